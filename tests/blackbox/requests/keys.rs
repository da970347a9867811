//! Keys that are normalised before they are asked for.

use crate::support::{
    Wrong,
    backend::{Backend, dunno},
    peer::{netstring, question},
    program::{Binary, LOOKUPS},
    said::{DUNNO, NOT_FOUND},
    same,
    tables::{ask, serve, table},
};

/// Asks for each key; `None` is one that is not asked for.
async fn normalised(keys: &str, rows: &[(&str, Option<&str>)]) {
    for binary in LOOKUPS {
        let backend = Backend::always(dunno());
        let keys = format!("query = {{ k = \"{{key}}\" }}\n{keys}");
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        let mut peer = program.peer().await;
        let mut wrong = Wrong::default();
        for (key, expected) in rows {
            let before = backend.count();
            let reply = peer.ask(question(binary, "t", key)).await;
            let said = if expected.is_some() { DUNNO } else { NOT_FOUND };
            wrong.compare(key, &reply, &said.by(binary));
            let asked: Vec<_> = backend.requests()[before..]
                .iter()
                .map(|request| request.query().remove(0).1)
                .collect();
            let expected: Vec<_> = expected.iter().map(|key| key.as_bytes().to_vec()).collect();
            wrong.require(key, asked == expected, || {
                let asked: Vec<_> = asked
                    .iter()
                    .map(|key| String::from_utf8_lossy(key))
                    .collect();
                format!("asked for {asked:?}")
            });
        }
        wrong.none();
    }
}

#[tokio::test]
async fn a_key_is_asked_in_lower_case() {
    normalised(
        "normalise = { lowercase = true }",
        &[
            ("Alice@EXAMPLE.Com", Some("alice@example.com")),
            ("A+B", Some("a+b")),
            ("[]^_`@Z", Some("[]^_`@z")),
            ("ÄÖ@Example.com", Some("äö@example.com")),
        ],
    )
    .await;
    normalised("", &[("Alice@EXAMPLE.Com", Some("Alice@EXAMPLE.Com"))]).await;
}

#[tokio::test]
async fn a_local_part_is_cut_at_the_delimiter_as_postfix_cuts_it() {
    normalised(
        "normalise = { delimiter = \"+\" }",
        &[
            ("alice+x@example.com", Some("alice@example.com")),
            ("alice+x+y@example.com", Some("alice@example.com")),
            ("alice+@example.com", Some("alice@example.com")),
            ("+x@example.com", Some("+x@example.com")),
            ("+@example.com", Some("+@example.com")),
            ("+a+b@example.com", Some("+a+b@example.com")),
            ("alice@ex+ample.com", Some("alice@ex+ample.com")),
            ("alice+x@y@example.com", Some("alice@example.com")),
            ("alice+x", Some("alice+x")),
            ("alice", Some("alice")),
            ("@example.com", Some("@example.com")),
            ("example.com", Some("example.com")),
            ("owner-list+x@example.com", Some("owner-list@example.com")),
            ("alice-x@example.com", Some("alice-x@example.com")),
        ],
    )
    .await;
    normalised(
        "normalise = { delimiter = \"-\" }",
        &[
            ("alice-x@example.com", Some("alice@example.com")),
            ("owner-list@example.com", Some("owner-list@example.com")),
            ("Owner-list@example.com", Some("Owner-list@example.com")),
            ("list-request@example.com", Some("list-request@example.com")),
            ("list-REQUEST@example.com", Some("list-REQUEST@example.com")),
            (
                "mailer-daemon@example.com",
                Some("mailer-daemon@example.com"),
            ),
            (
                "MAILER-DAEMON@example.com",
                Some("MAILER-DAEMON@example.com"),
            ),
            (
                "double-bounce@example.com",
                Some("double-bounce@example.com"),
            ),
            ("postmaster@example.com", Some("postmaster@example.com")),
            ("-request@example.com", Some("-request@example.com")),
            ("my-owner-list@example.com", Some("my@example.com")),
            ("list-requests@example.com", Some("list@example.com")),
            ("double-bounces@example.com", Some("double@example.com")),
        ],
    )
    .await;
    normalised(
        "normalise = { delimiter = \"+-\" }",
        &[
            ("alice-x+y@example.com", Some("alice@example.com")),
            ("alice+x-y@example.com", Some("alice@example.com")),
            ("owner-list+x@example.com", Some("owner-list+x@example.com")),
            (
                "list+x-request@example.com",
                Some("list+x-request@example.com"),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_key_that_the_pattern_does_not_match_as_a_whole_is_not_found_without_a_call() {
    normalised(
        "normalise = { pattern = \"[a-z]+@example\\\\.com\" }",
        &[
            ("alice@example.com", Some("alice@example.com")),
            ("Alice@example.com", None),
            ("xalice@example.com.evil", None),
            ("1alice@example.com", None),
            ("alice@exampleXcom", None),
            ("alice@example.com\n", None),
            ("\nalice@example.com", None),
            ("alice", None),
        ],
    )
    .await;
    normalised(
        "normalise = { pattern = \"a|b\" }",
        &[
            ("a", Some("a")),
            ("b", Some("b")),
            ("ab", None),
            ("ax", None),
            ("xb", None),
        ],
    )
    .await;
    normalised(
        "normalise = { pattern = \"^(?m)a$\" }",
        &[("a", Some("a")), ("a\nb", None), ("b\na", None)],
    )
    .await;
}

#[tokio::test]
async fn a_key_is_lower_cased_then_cut_then_compared() {
    normalised(
        "normalise = { lowercase = true, delimiter = \"+\", pattern = \"[a-z]+@example\\\\.com\" }",
        &[
            ("Alice+News@Example.COM", Some("alice@example.com")),
            ("alice2@example.com", None),
            ("+alice@example.com", None),
        ],
    )
    .await;
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
