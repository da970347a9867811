//! The calls that lookups, lists and writes become.

use super::{bodies, calls, serve, served, table, talk};
use crate::support::{
    backend::{Backend, json, status},
    program::Launch,
};

#[tokio::test]
async fn a_lookup_sends_all_it_has_by_default() {
    let backend = Backend::always(json("\"v\""));
    let (_program, mut peer) = served(&backend, "").await;
    talk(&mut peer, "Lshared/passdb/joe@x.test\tjoe@x.test\n", "Ov\n").await;
    talk(&mut peer, "Lpriv/a b\x01tc\tann\n", "Ov\n").await;
    talk(&mut peer, "Lshared/\u{fc}\t\n", "Ov\n").await;
    assert_eq!(
        calls(&backend.requests()),
        [
            "GET /d?name=t&scope=shared&key=passdb%2Fjoe%40x.test&user=joe%40x.test",
            "GET /d?name=t&scope=priv&key=a%20b%09c&user=ann",
            "GET /d?name=t&scope=shared&key=%C3%BC&user=",
        ]
    );
    let ids: std::collections::BTreeSet<_> = backend
        .requests()
        .iter()
        .map(|request| request.header("x-request-id").expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn a_key_is_segments_of_the_path_and_a_user_one_more_for_keys_of_users() {
    let backend = Backend::always(json("\"v\""));
    let program = serve(table(
        &backend.url("/internal/dovecot{/path*}{/user}"),
        &format!(
            "iterate = {{ target = \"{}\" }}",
            backend.url("/list{/path*}{/user}/")
        ),
    ))
    .await;
    let mut peer = super::hello(&program).await;
    for (sent, expected) in [
        (
            "Lshared/passdb/joe@x.test\tjoe@x.test\n",
            "/internal/dovecot/passdb/joe%40x.test",
        ),
        (
            "Lpriv/quota/storage\tjoe@x.test\n",
            "/internal/dovecot/quota/storage/joe%40x.test",
        ),
        ("Lpriv/a\tj/o?e#\n", "/internal/dovecot/a/j%2Fo%3Fe%23"),
        (
            "Lshared/a%2e/b;c=d/\x01t\t\n",
            "/internal/dovecot/a%252e/b%3Bc%3Dd/%09",
        ),
        ("Lshared/a...b/...\t\n", "/internal/dovecot/a...b/..."),
    ] {
        let before = backend.count();
        talk(&mut peer, sent, "Ov\n").await;
        assert_eq!(
            calls(&backend.requests()[before..]),
            [format!("GET {expected}")],
            "{sent:?}"
        );
    }
    // A segment that names another resource, or none, is not found without a call.
    let before = backend.count();
    for key in [
        "shared/..",
        "shared/a/../b",
        "shared/./a",
        "shared//a",
        "shared/a//b",
        "shared/a/",
        "shared/",
    ] {
        talk(&mut peer, &format!("L{key}\tjoe\n"), "N\n").await;
    }
    talk(&mut peer, "Lpriv/a\t..\n", "N\n").await;
    talk(&mut peer, "I0\t0\tshared/a/../b/\t\n", "\n").await;
    talk(&mut peer, "I0\t0\tshared/a//\t\n", "\n").await;
    assert_eq!(backend.count(), before);
    // One final slash of a list's path is taken off, and the list of all has no path.
    backend.set(json("[]"));
    // One after the other: calls that are under way together come in any order.
    for list in [
        "shared/userdb/\t*",
        "priv/a\tjoe",
        "shared/\t",
        "priv/\tjoe",
    ] {
        talk(&mut peer, &format!("I0\t0\t{list}\n"), "\n").await;
    }
    assert_eq!(
        calls(&backend.requests()[before..]),
        [
            "GET /list/userdb/",
            "GET /list/a/joe/",
            "GET /list/",
            "GET /list/joe/"
        ]
    );
}

#[tokio::test]
async fn a_key_of_a_user_needs_one_and_a_call_that_carries_it() {
    let backend = Backend::always(json("\"v\""));
    for (target, keys, is_carried) in [
        ("/d", "", true),
        ("/d/{user}/{key}", "", true),
        ("/d{/path*}{/user}", "", true),
        ("/d{/path*}", "", false),
        ("/d{/path*}", "headers = { X-User = \"{user}\" }", true),
        ("/d", "query = { key = \"{key}\" }", false),
        ("/d?u={user}", "query = { key = \"{key}\" }", true),
        (
            "/d",
            "method = \"POST\"\njson = { q = [{ k = \"{key}\" }] }",
            false,
        ),
        (
            "/d",
            "method = \"POST\"\njson = { q = [{ k = \"{key}\", u = \"x{user}\" }] }",
            true,
        ),
        (
            "/d",
            "method = \"POST\"\nform = { k = \"{key}\", u = \"{user}\" }",
            true,
        ),
    ] {
        let program = serve(table(&backend.url(target), keys)).await;
        let mut peer = super::hello(&program).await;
        let before = backend.count();
        let expected = if is_carried {
            "Ov\n"
        } else {
            "Fkey cannot be sent\n"
        };
        talk(&mut peer, "Lpriv/a\tjoe\n", expected).await;
        assert_eq!(
            backend.count() - before,
            usize::from(is_carried),
            "{target} {keys}"
        );
        let before = backend.count();
        talk(&mut peer, "Lpriv/a\t\n", "Fkey cannot be sent\n").await;
        assert_eq!(backend.count(), before);
        talk(&mut peer, "Lshared/a\tjoe\n", "Ov\n").await;
        assert_eq!(backend.count(), before + 1);
    }
}

#[tokio::test]
async fn sub_tables_have_requests_of_their_own_and_the_identity_of_the_table() {
    let backend = Backend::always(status(200));
    let config = format!(
        "[dict.t]\ntarget = \"{0}\"\nbearer-token = \"s3cret\"\nuser-agent = \"own\"\n\
         headers = {{ X-Own = \"1\", X-Gone = \"2\", X-Key = \"{{key}}\" }}\n\
         [dict.t.set]\ntarget = \"{0}/s\"\nbody = \"{{value}}\"\n\
         headers = {{ Content-Type = \"application/json\", X-Gone = false, X-User = \"{{user}}\" }}\n\
         [dict.t.unset]\ntarget = \"{0}/u{{/path*}}\"\n\
         [dict.t.increment]\ntarget = \"{0}/i\"\nmethod = \"POST\"\nform = {{ k = \"{{key}}\", by = \"{{value}}\" }}\n",
        backend.url("/d")
    );
    let program = serve(config).await;
    let mut peer = super::hello(&program).await;
    talk(
        &mut peer,
        "B1\tjoe\nS1\tpriv/a\t476\nU1\tshared/b/c\nA1\tshared/n\t-18\nC1\n",
        "O1\n",
    )
    .await;
    let requests = backend.requests();
    assert_eq!(
        bodies(&requests),
        [
            "PUT /d/s?name=t&scope=priv&key=a&user=joe 476",
            "DELETE /d/u/b/c ",
            "POST /d/i k=n&by=-18",
        ]
    );
    for request in &requests {
        assert_eq!(request.header("authorization"), Some("Bearer s3cret"));
        assert_eq!(request.header("user-agent"), Some("own"));
        assert_eq!(request.header("x-own"), Some("1"));
        assert_eq!(request.header("x-key"), None);
    }
    let of = |number: usize, name: &str| requests[number].header(name).map(str::to_owned);
    assert_eq!(of(0, "content-type").as_deref(), Some("application/json"));
    assert_eq!(of(0, "x-user").as_deref(), Some("joe"));
    assert_eq!(
        (of(0, "x-gone"), of(1, "x-gone").as_deref()),
        (None, Some("2"))
    );
    assert_eq!(of(1, "content-length").as_deref(), Some("0"));
}

#[tokio::test]
async fn a_dict_inherits_what_says_nothing_of_requests_and_answers() {
    let backend = Backend::always(json("\"v\""));
    let config = format!(
        "[http]\nbearer-token = \"s3cret\"\nheaders = {{ X-Own = \"1\", X-Key = \"{{key}}\", X-Sender = \"{{sender}}\" }}\n\
         user-agent = \"own\"\nmethod = \"POST\"\njson = {{ k = \"{{key}}\" }}\nvalue = \"/data\"\nresponse = \"text\"\n\
         status = {{ 200 = \"permanent\" }}\nrequire-header = {{ X-Api = \"1\" }}\nrequest-timeout = \"60s\"\n\
         [server]\ndrain-timeout = \"90s\"\n\
         [dict.t]\ntarget = \"{}\"\n",
        backend.url("/d")
    );
    let program = serve(config).await;
    let mut peer = super::hello(&program).await;
    talk(&mut peer, "Lshared/k\t\n", "Ov\n").await;
    let request = backend.only();
    assert_eq!(
        calls(std::slice::from_ref(&request)),
        ["GET /d?name=t&scope=shared&key=k&user="]
    );
    assert_eq!(request.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(request.header("x-own"), Some("1"));
    assert_eq!(request.header("x-key"), None);
    assert_eq!(request.header("x-sender"), None);
    assert_eq!(request.header("user-agent"), Some("own"));
}

#[tokio::test]
async fn an_inherited_request_timeout_is_cut_and_an_own_one_is_refused() {
    let config = |http: &str, own: &str| {
        format!(
            "[http]\n{http}\n[server]\ndrain-timeout = \"90s\"\n[dict.t]\ntarget = \"http://127.0.0.1:9/\"\n{own}\n"
        )
    };
    let show = Launch::dict()
        .config(config("request-timeout = \"60s\"", ""))
        .argument("--show");
    let shown = show.end().await;
    shown.status(0);
    assert!(
        shown.stdout.contains("request-timeout = \"25s\""),
        "{shown:#?}"
    );
    let check = Launch::dict()
        .config(config("", "request-timeout = \"26s\""))
        .argument("--check");
    check
        .end()
        .await
        .status(78)
        .says("must be at most \"25s\"; Dovecot gives up after 30 s");
}
