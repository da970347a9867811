//! Issuers: their configuration names the token endpoint.

use jsonwebtoken::{Algorithm, DecodingKey};
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{ID, SECRET, assertion, endpoint, form, issuer, pairs, taking, token, with_key};
use crate::{
    servers::{
        certificates::{authority, write},
        web::{Answer, Web},
    },
    support::{
        backend::{Backend, dunno, json as answer, status, typed},
        peer::question,
        program::{ALL, Binary, Reserved},
        replies::{DUNNO, NO_CREDENTIALS},
        same, soon,
        tables::{ask, expect, serve, table},
    },
};

#[tokio::test]
async fn an_issuer_tells_its_token_endpoint() {
    for binary in ALL {
        for (path, end) in [
            ("", ""),
            ("", "/"),
            ("/realms/mail", ""),
            ("/realms/mail", "/"),
        ] {
            let reserved = Reserved::new();
            let url = format!("http://{}{path}{end}", reserved.address());
            let issuer = issuer(reserved, path);
            let backend = taking("token-1");
            let keys = format!(
                "oauth2 = {{ issuer = \"{url}\", client-id = \"{ID}\", \
                 client-secret = \"{SECRET}\" }}\n"
            );
            let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
            for _ in 0..5 {
                let reply = ask(&program, binary, "key").await;
                same("found", &reply, &DUNNO.by(binary));
            }
            let asked = issuer.requests();
            assert_eq!(asked.len(), 2, "{asked:?}");
            // The document is public; no credential goes with the request.
            assert_eq!(asked[0].header("authorization"), None);
            assert_eq!(
                form(&asked[1]),
                pairs(&[("grant_type", "client_credentials")])
            );
            assert_eq!(backend.count(), 5);
        }
    }
}

#[tokio::test]
async fn an_issuer_may_move_its_token_endpoint() {
    let binary = Binary::Socketmap;
    let reserved = Reserved::new();
    let url = format!("http://{}", reserved.address());
    let origin = url.clone();
    let mut moves = 0;
    let issuer = Backend::at(reserved, move |request| match request.target.as_str() {
        "/.well-known/openid-configuration" => {
            moves += 1;
            let endpoint = format!("{origin}/{moves}");
            answer(json!({ "issuer": origin, "token_endpoint": endpoint }).to_string())
        }
        "/2" => token("token-1"),
        _ => status(404),
    });
    let backend = taking("token-1");
    let keys = format!(
        "oauth2 = {{ issuer = \"{url}\", client-id = \"{ID}\", client-secret = \"{SECRET}\" }}\n"
    );
    let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
    let mut peer = program.peer().await;
    let is_found =
        async { while peer.ask(question(binary, "t", "key")).await != DUNNO.by(binary) {} };
    soon("the new endpoint", is_found).await;
    assert_eq!(issuer.count(), 4);
}

#[tokio::test]
async fn an_assertion_is_made_for_the_token_endpoint_an_issuer_tells() {
    let key = KeyPair::generate().expect("a key");
    let public = DecodingKey::from_ec_pem(key.public_key_pem().as_bytes()).expect("a public key");
    let directory = crate::support::Directory::new();
    let file = write(directory.path(), "key.pem", &key.serialize_pem());
    let reserved = Reserved::new();
    let origin = format!("http://{}", reserved.address());
    let issuer = issuer(reserved, "/realm");
    let backend = taking("token-1");
    let keys = with_key(&format!("issuer = \"{origin}/realm\""), &file, "");
    let config = table(Binary::Socketmap, &backend.url("/"), &keys);
    expect(Binary::Socketmap, config, DUNNO).await;
    let asked = issuer.requests();
    assert_eq!(asked.len(), 2, "{asked:?}");
    let url = format!("{origin}/the/token");
    assertion(&asked[1], Algorithm::ES256, &public, &url);
}

#[tokio::test]
async fn an_issuer_that_tells_nothing_is_no_source_of_credentials() {
    let nowhere = endpoint();
    let token_url = nowhere.url("/token");
    let document = |issuer: &str, endpoint: Value| {
        json!({ "issuer": issuer, "token_endpoint": endpoint }).to_string()
    };
    for row in 0..9 {
        let reserved = Reserved::new();
        let own = format!("http://{}", reserved.address());
        let script = match row {
            0 => status(404),
            1 => status(500),
            2 => answer("no JSON"),
            3 => answer(json!({ "issuer": own }).to_string()),
            4 => answer(document(&own, Value::Null)),
            5 => answer(document(&own, json!("no URL"))),
            6 => answer(document(&own, json!("ftp://127.0.0.1/token"))),
            // OpenID Connect Discovery, section 4.3: the issuer must be the one that was asked.
            7 => answer(document("https://other.example", json!(token_url))),
            _ => typed(200, "text/html", "<html>Welcome</html>"),
        };
        let issuer = Backend::at(reserved, move |_| script.clone());
        let backend = Backend::always(dunno());
        let keys = format!(
            "oauth2 = {{ issuer = \"{own}\", client-id = \"{ID}\", client-secret = \"{SECRET}\" }}\n"
        );
        let program = serve(
            Binary::Socketmap,
            table(Binary::Socketmap, &backend.url("/"), &keys),
        )
        .await;
        for _ in 0..20 {
            let reply = ask(&program, Binary::Socketmap, "key").await;
            let row = format!("row {row}");
            same(&row, &reply, &NO_CREDENTIALS.by(Binary::Socketmap));
        }
        assert!((1..=3).contains(&issuer.count()), "{:?}", issuer.requests());
        assert_eq!(backend.count(), 0, "row {row}");
    }
    assert_eq!(nowhere.count(), 0);
}

/// An issuer that is asked over TLS must not have the secret sent without it.
#[tokio::test]
async fn an_issuer_cannot_lead_from_https_to_http() {
    let (authority, _directory, ca) = authority();
    let nowhere = endpoint();
    let tls = authority.server().tls().config();
    let reserved = Reserved::new();
    let own = format!("https://{}", reserved.address());
    let document = json!({ "issuer": own, "token_endpoint": nowhere.url("/token") }).to_string();
    let issuer = Web::secure_at(reserved, tls, move |_| Answer::json(&document));
    let backend = Backend::always(dunno());
    let keys = format!(
        "{ca}oauth2 = {{ issuer = \"{own}\", client-id = \"{ID}\", \
         client-secret = \"{SECRET}\" }}\n"
    );
    let config = table(Binary::Socketmap, &backend.url("/"), &keys);
    expect(Binary::Socketmap, config, NO_CREDENTIALS).await;
    assert_eq!(issuer.only().target, "/.well-known/openid-configuration");
    assert_eq!((nowhere.count(), backend.count()), (0, 0));
}
