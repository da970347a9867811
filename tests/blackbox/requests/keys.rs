//! Normalised keys.

use crate::support::{
    backend::{Backend, dunno},
    peer::{netstring, question},
    program::{Binary, LOOKUPS},
    replies::{DUNNO, NOT_FOUND},
    same,
    tables::{ask, serve, table},
};

/// `tests/calls.rs` has the rows.
#[tokio::test]
async fn a_key_is_normalised_before_the_backend_is_asked() {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let keys = "query = { k = \"{key}\" }\nnormalise = { lowercase = true, delimiter = \"+\", \
                    pattern = \"[a-z]+@example\\\\.com\" }";
        let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
        for (key, expected_reply) in [
            ("Alice+News@Example.COM", DUNNO),
            ("alice2@example.com", NOT_FOUND),
        ] {
            let reply = ask(&program, binary, key).await;
            same(key, &reply, &expected_reply.by(binary));
        }
        assert_eq!(backend.only().target, "/?k=alice%40example.com");
    }
}

#[tokio::test]
async fn every_placeholder_has_the_normalised_key() {
    let backend = Backend::always(dunno());
    let keys = "query = { l = \"{local}\", d = \"{domain}\" }\nheaders = { X-Key = \"{key}\" }\n\
                normalise = { lowercase = true, delimiter = \"+\" }";
    let binary = Binary::Socketmap;
    let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
    let reply = ask(&program, binary, "Alice+x@Example.COM").await;
    same("found", &reply, &DUNNO.by(binary));
    let request = backend.only();
    assert_eq!(request.target, "/?l=alice&d=example.com");
    assert_eq!(request.header("x-key"), Some("alice@example.com"));
}

#[tokio::test]
async fn bytes_that_are_not_utf8_are_normalised_as_far_as_they_can_be() {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let keys = "query = { k = \"{key}\" }\n\
                    normalise = { lowercase = true, delimiter = \"+\" }";
        let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
        let reply = ask(&program, binary, b"A\xff+x@EXAMPLE.com").await;
        same("found", &reply, &DUNNO.by(binary));
        assert_eq!(backend.only().target, "/?k=a%FF%40example.com");

        // A pattern is text, and so matches text only.
        let keys = "query = { k = \"{key}\" }\nnormalise = { pattern = \"(?s).*\" }";
        let program = serve(binary, table(binary, &backend.url("/"), keys)).await;
        let reply = ask(&program, binary, b"a\xff").await;
        same("not found", &reply, &NOT_FOUND.by(binary));
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn what_is_left_of_a_key_cannot_change_the_path() {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let keys = "normalise = { delimiter = \"+\" }";
        let config = table(binary, &backend.url("/users/{local}"), keys);
        let program = serve(binary, config).await;
        for key in [".+x@example.com", "..+x@example.com"] {
            let reply = ask(&program, binary, key).await;
            same(key, &reply, &NOT_FOUND.by(binary));
        }
        assert_eq!(backend.count(), 0, "{binary:?}");
        let reply = ask(&program, binary, "...+x@example.com").await;
        same("three dots", &reply, &DUNNO.by(binary));
        assert_eq!(backend.only().target, "/users/...");
    }
}

#[tokio::test]
async fn members_of_normalise_are_inherited_one_by_one() {
    let backend = Backend::always(dunno());
    let url = backend.url("/{key}");
    let config = format!(
        "[http]\nnormalise = {{ lowercase = true, delimiter = \"+\" }}\n\
         [socketmap.t]\ntarget = \"{url}\"\nnormalise = {{ delimiter = \"-\" }}\n\
         [socketmap.own]\ntarget = \"{url}\"\nnormalise = false\n\
         [policy.p]\ntarget = \"{}\"\n",
        backend.url("/")
    );
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    for map in ["t", "own"] {
        let reply = peer.ask(question(Binary::Socketmap, map, "A+B-C@X")).await;
        same(map, &reply, &netstring("OK DUNNO"));
    }
    let paths: Vec<_> = backend.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(paths, ["/a%2Bb%40x", "/A%2BB-C%40X"]);
}
