//! `--query`.

use super::users;
use crate::support::{
    backend::{Act, Backend, Script, json, plain, status},
    program::{Binary, End, LOOKUPS, Launch, times_seen},
    replies::{BROKEN, LATER},
};

/// Asks once by `--query`.
async fn query(binary: Binary, script: Script, arguments: &[&str], input: &str) -> End {
    let backend = Backend::always(script);
    let mut launch = Launch::new(binary)
        .config(users(binary, &backend.url("/")))
        .argument("--query");
    for argument in arguments {
        launch = launch.argument(*argument);
    }
    launch.end_after(input.as_bytes()).await
}

#[tokio::test]
async fn a_queried_lookup_exits_as_postmap_does() {
    for binary in LOOKUPS {
        let ask = |script| query(binary, script, &["users", "a b@c.example"], "");
        let end = ask(json("\"Grüße, 50%\"")).await;
        end.status(0);
        assert_eq!(end.stdout, "Grüße, 50%\n", "as it is, not as it is framed");
        for (script, exit, reason) in [
            (status(404), 1, ""),
            (json("null"), 1, ""),
            (status(503), 75, "backend answered 503"),
            (vec![Act::Reset], 75, "backend unreachable"),
            (json("{}"), 75, "backend answer not understood"),
            (json("\"a\\u0000\""), 75, "value cannot be sent"),
            (status(400), 76, "backend answered 400"),
        ] {
            let end = ask(script).await;
            end.status(exit).says(reason);
            assert_eq!(end.stdout, "");
        }
    }
}

#[tokio::test]
async fn a_queried_socketmap_value_with_a_newline_is_temporary() {
    let end = query(Binary::Socketmap, json("\"a\\nb\""), &["users", "k"], "").await;
    end.status(75).says("value cannot be sent");
    assert_eq!(end.stdout, "");
}

#[tokio::test]
async fn a_queried_name_that_no_table_has_is_said() {
    let end = query(Binary::Socketmap, json("\"v\""), &["nobody", "key"], "").await;
    assert_eq!(end.stdout, "");
    end.status(76).says("unknown map");
    for (binary, arguments) in [
        (Binary::TcpLookup, &["nobody", "key"][..]),
        (Binary::Policy, &["nobody"]),
    ] {
        let end = query(binary, json("\"v\""), arguments, "sender=\n\n").await;
        assert_eq!(end.stdout, "");
        end.status(64).says("nobody");
    }
}

#[tokio::test]
async fn a_queried_policy_reads_attributes_and_prints_the_action() {
    let input = "request=smtpd_access_policy\nsender=a=b&c@d.example\n\n";
    for (script, exit, action) in [
        (plain("REJECT no"), 0, "REJECT no"),
        (status(204), 1, "DUNNO"),
        (status(503), 75, LATER),
        (plain("OK"), 75, LATER),
        (plain(""), 75, LATER),
        (status(404), 76, BROKEN),
    ] {
        let end = query(Binary::Policy, script, &["users"], input).await;
        end.status(exit);
        assert_eq!(end.stdout, format!("{action}\n"));
    }
}

#[tokio::test]
async fn a_queried_policy_asks_with_the_attributes_it_read() {
    let backend = Backend::always(plain("DUNNO"));
    let config = users(Binary::Policy, &backend.url("/"));
    let launch = || {
        Launch::new(Binary::Policy)
            .config(config.clone())
            .argument("--query")
            .argument("users")
    };
    // With and without the empty line, as people type it.
    for input in [
        "sender=a=b&c@d.example\nsize=\n\n",
        "sender=a=b&c@d.example\nsize=\n",
    ] {
        launch().end_after(input.as_bytes()).await.status(0);
    }
    for request in backend.requests() {
        assert_eq!(
            request.form(),
            [
                (b"sender".to_vec(), b"a=b&c@d.example".to_vec()),
                (b"size".to_vec(), b"".to_vec())
            ]
        );
    }
    assert_eq!(backend.count(), 2);
    let end = launch().end_after(b"no attribute\n\n").await;
    assert_ne!(end.status, Some(0));
    assert_eq!(backend.count(), 2, "a malformed request was asked");
}

#[tokio::test]
async fn a_query_needs_no_socket_and_takes_none() {
    let backend = Backend::always(json("\"v\""));
    let program = Launch::new(Binary::Socketmap)
        .config(users(Binary::Socketmap, &backend.url("/")))
        .argument("--query")
        .argument("users")
        .argument("key")
        .start();
    let told = program.notices.clone();
    let end = program.end().await;
    end.status(0);
    assert_eq!(end.stdout, "v\n");
    assert_eq!(times_seen(&told.all(), "READY=1"), 0);
}
