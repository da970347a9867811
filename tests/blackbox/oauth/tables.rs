//! The token of each table, and the places where no secret may appear.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rcgen::KeyPair;
use rustix::process::Signal;
use serde_json::json;

use super::{ID, SECRET, endpoint, form, oauth, taking, token};
use crate::support::{
    Seen,
    backend::{Backend, dunno, json as answer, status, typed},
    peer::{netstring, question},
    program::{Binary, Launch},
    replies::DUNNO,
    same,
    tables::{ask, expect, refused, serve, table},
};

#[tokio::test]
async fn each_table_has_the_token_of_its_own_client() {
    let tokens = Backend::new(|request| {
        let form = form(request);
        let id = form.iter().find(|pair| pair.0 == "client_id");
        token(&format!("token-of-{}", id.expect("client_id").1))
    });
    let backend = Backend::always(dunno());
    let (url, token_url) = (backend.url("/"), tokens.url("/"));
    let client = |id: &str| {
        format!(
            "oauth2 = {{ token-url = \"{token_url}\", client-id = \"{id}\", \
             client-secret = \"{SECRET}\", auth-method = \"post\" }}\n"
        )
    };
    let config = format!(
        "[http]\n{}\
         [socketmap.inherited]\ntarget = \"{url}\"\n\
         [socketmap.own]\ntarget = \"{url}\"\n{}\
         [socketmap.bearer]\ntarget = \"{url}\"\nbearer-token = \"fixed\"\n\
         [socketmap.basic]\ntarget = \"{url}\"\nbasic-auth = {{ user = \"u\", password = \"p\" }}\n\
         [socketmap.none]\ntarget = \"{url}\"\noauth2 = false\n",
        client("all"),
        client("own")
    );
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    for map in [
        "inherited",
        "own",
        "bearer",
        "basic",
        "none",
        "inherited",
        "own",
    ] {
        let reply = peer.ask(question(Binary::Socketmap, map, "key")).await;
        same(map, &reply, &netstring("OK DUNNO"));
    }
    assert_eq!(
        super::tokens(&backend),
        [
            "Bearer token-of-all",
            "Bearer token-of-own",
            "Bearer fixed",
            "Basic dTpw",
            "none",
            "Bearer token-of-all",
            "Bearer token-of-own",
        ]
    );
    assert_eq!(tokens.count(), 2);
}

#[tokio::test]
async fn tables_of_one_client_share_its_token() {
    let tokens = endpoint();
    let backend = taking("token-1");
    let (name, url) = ("socketmap", backend.url("/"));
    let config = format!(
        "[http]\n{}[{name}.one]\ntarget = \"{url}\"\n[{name}.two]\ntarget = \"{url}\"\n",
        oauth(&tokens.url("/"), "")
    );
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    for map in ["one", "two"] {
        let reply = peer.ask(question(Binary::Socketmap, map, "key")).await;
        same(map, &reply, &netstring("OK DUNNO"));
    }
    assert_eq!((tokens.count(), backend.count()), (1, 2));
}

#[tokio::test]
async fn an_oauth2_of_its_own_displaces_an_inherited_credential() {
    let tokens = endpoint();
    let backend = Backend::always(dunno());
    let config = format!(
        "[http]\nbearer-token = \"fixed\"\n{}",
        table(
            Binary::Socketmap,
            &backend.url("/"),
            &oauth(&tokens.url("/"), "")
        )
    );
    expect(Binary::Socketmap, config, DUNNO).await;
    assert_eq!(super::tokens(&backend), ["Bearer token-1"]);
}

#[tokio::test]
async fn of_headers_and_keys_that_say_who_we_are_the_nearest_are_sent() {
    const HEADERS: &str =
        "headers = { authorization = \"of a header\", X-AUTH-TOKEN = \"of a header\" }\n";
    const KEYS: &str =
        "basic-auth = { user = \"a\", password = \"b\" }\nauth-token = \"of a key\"\n";
    let tokens = Backend::always(token("token-1"));
    let oauth = oauth(&tokens.url("/"), "");
    let (by_header, by_key) = (Some("of a header"), Some("of a key"));
    for (inherited, own, authorization, token) in [
        (HEADERS, KEYS, Some("Basic YTpi"), by_key),
        (KEYS, HEADERS, by_header, by_header),
        (HEADERS, &oauth, Some("Bearer token-1"), None),
        (KEYS, &oauth, Some("Bearer token-1"), None),
        (&oauth, HEADERS, by_header, by_header),
        (HEADERS, "auth-token = false\n", by_header, by_header),
        (
            KEYS,
            "headers = { Authorization = false }\n",
            Some("Basic YTpi"),
            by_key,
        ),
        (
            HEADERS,
            "headers = { Authorization = false }\n",
            None,
            by_header,
        ),
    ] {
        let backend = Backend::always(dunno());
        let table = table(Binary::Socketmap, &backend.url("/"), own);
        expect(
            Binary::Socketmap,
            format!("[http]\n{inherited}{table}"),
            DUNNO,
        )
        .await;
        let asked = backend.only();
        let seen = (asked.header("authorization"), asked.header("x-auth-token"));
        assert_eq!(seen, (authorization, token), "{inherited}{own}");
    }
    for key in ["bearer-token = \"x\"", "auth-token = \"x\""] {
        let keys = format!("{HEADERS}{key}\n");
        refused(
            table(Binary::Socketmap, "http://127.0.0.1/", &keys),
            &["and only one of them can be sent; remove one"],
        )
        .await;
    }
}

#[tokio::test]
async fn a_reload_with_another_client_fetches_another_token() {
    let binary = Binary::Socketmap;
    let tokens = endpoint();
    let backend = Backend::always(dunno());
    let keys = oauth(&tokens.url("/"), "");
    let config = table(binary, &backend.url("/"), &keys);
    let program = serve(binary, config.clone()).await;
    let mut peer = program.peer().await;
    let request = question(binary, "t", "key");
    same("before", &peer.ask(&request).await, &DUNNO.by(binary));
    program.rewrite(&config.replace(SECRET, "another"));
    program.signal(Signal::HUP);
    program.notified("READY=1", 2).await;
    same("after", &peer.ask(&request).await, &DUNNO.by(binary));
    let basic = format!("Basic {}", BASE64.encode(format!("{ID}:another")));
    let asked = tokens.requests();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[1].header("authorization"), Some(basic.as_str()));
    assert_eq!(
        super::tokens(&backend),
        ["Bearer token-1", "Bearer token-2"]
    );
}

#[tokio::test]
async fn a_query_on_the_command_line_uses_a_token_as_well() {
    let tokens = endpoint();
    let backend = taking("token-1");
    let config = table(
        Binary::Socketmap,
        &backend.url("/"),
        &oauth(&tokens.url("/"), ""),
    );
    let end = Launch::new(Binary::Socketmap)
        .config(config)
        .argument("--query")
        .argument("t")
        .argument("key")
        .end()
        .await;
    end.status(0);
    assert_eq!(end.stdout, "DUNNO\n");
}

#[tokio::test]
async fn secrets_stand_in_no_log_and_no_listing() {
    let key = KeyPair::generate().expect("a key");
    let pem = key.serialize_pem();
    let body_of_key: Vec<_> = pem.lines().filter(|line| !line.contains("---")).collect();
    let spoken = Seen::new();
    for more in [
        format!("client-secret = \"{SECRET}\""),
        format!("client-secret = \"{SECRET}\", auth-method = \"post\""),
        format!("private-key = '''{pem}'''"),
    ] {
        for row in 0..4 {
            // Some servers repeat the request in their answer.
            let heard = spoken.clone();
            let tokens = Backend::new(move |request| {
                let body = String::from_utf8_lossy(&request.body).into_owned();
                let header = request.header("authorization").unwrap_or("none");
                let echo = format!("{body} {header} {SECRET}");
                heard.push(echo.clone());
                match row {
                    0 => token("the-t0ken"),
                    1 => typed(
                        400,
                        "application/json",
                        json!({ "error": echo }).to_string(),
                    ),
                    2 => typed(200, "application/json", echo),
                    _ => answer(json!({ "access_token": "the-t0ken\n" }).to_string()),
                }
            });
            let backend = Backend::always(status(401));
            let config = format!(
                "[log]\nlevel = \"debug\"\n[socketmap.t]\ntarget = \"{}\"\n\
                 oauth2 = {{ token-url = \"{}\", client-id = \"{ID}\", {more} }}\n",
                backend.url("/"),
                tokens.url("/token")
            );
            let program = serve(Binary::Socketmap, config.clone()).await;
            let reply = ask(&program, Binary::Socketmap, "key").await;
            let expected_reply = match row {
                0 => "TEMP backend answered 401",
                _ => "TEMP backend credentials unavailable",
            };
            same("no value", &reply, &netstring(expected_reply));
            let log = program.stop().await.stderr;
            assert!(!log.is_empty(), "a log at all");
            let shown = Launch::new(Binary::Socketmap)
                .config(config)
                .argument("--show")
                .end()
                .await;
            shown.status(0);
            let coded = BASE64.encode(format!("{ID}:{SECRET}"));
            let mut hidden = vec![SECRET, "the-t0ken", "client_assertion=", coded.as_str()];
            hidden.extend(&body_of_key);
            for text in hidden {
                assert!(!log.contains(text), "{text:?} in the log:\n{log}");
                assert!(!shown.stdout.contains(text), "{text:?} in {shown:#?}");
            }
        }
    }
    assert!(spoken.count() >= 12, "{}", spoken.count());
}
