//! Tokens of OAuth 2: how a program gets them (RFC 6749, section 4.4; RFC 7523, section 2.2), how
//! long it uses them, and what it says when there are none. The real programs, against a token
//! endpoint and a backend of the tests' own on the loopback.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    servers::{
        certificates::{Authority, authority, write},
        web::{Answer, Web},
    },
    support::{
        Seen, Wrong,
        backend::{
            Act, Backend, Gate, Request, Script, dunno, json as answer, raw, response, status,
            typed,
        },
        peer::{framed, netstring, question},
        program::{ALL, Binary, Launch, Reserved},
        said::{DUNNO, LATER, NO_CREDENTIALS, UNREACHABLE},
        same, soon,
        tables::{ask, expect, expect_of, refused, serve, table},
    },
};

const ID: &str = "anId";
const SECRET: &str = "s3cretOfTheClient";

/// A token that lasts for an hour.
fn token(text: &str) -> Script {
    answer(json!({ "access_token": text, "token_type": "Bearer", "expires_in": 3600 }).to_string())
}

/// A token endpoint that gives out `token-1`, `token-2`, ...
fn endpoint() -> Backend {
    let mut number = 0;
    Backend::new(move |_| {
        number += 1;
        token(&format!("token-{number}"))
    })
}

/// A backend that takes this token only.
fn taking(token: &'static str) -> Backend {
    Backend::new(move |request| {
        let expected = format!("Bearer {token}");
        match request.header("authorization") == Some(expected.as_str()) {
            true => dunno(),
            false => status(401),
        }
    })
}

/// The key `oauth2` with a token endpoint, a secret and more.
fn oauth(token_url: &str, more: &str) -> String {
    format!(
        "oauth2 = {{ token-url = \"{token_url}\", client-id = \"{ID}\", \
         client-secret = \"{SECRET}\"{more} }}\n"
    )
}

/// The form a token was asked for with, as text, sorted.
fn form(request: &Request) -> Vec<(String, String)> {
    assert_eq!(request.method, "POST");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let mut pairs: Vec<_> = request
        .form()
        .into_iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    pairs.sort();
    pairs
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The tokens that a backend saw.
fn tokens(backend: &Backend) -> Vec<String> {
    backend
        .requests()
        .iter()
        .map(|request| request.header("authorization").unwrap_or("none").to_owned())
        .collect()
}

#[tokio::test]
async fn a_token_is_fetched_and_sent_to_the_backend() {
    for binary in ALL {
        let tokens = Backend::always(token("abc.DEF-123_~+/=="));
        let backend = Backend::always(dunno());
        let keys = oauth(&tokens.url("/token"), "");
        expect(binary, table(binary, &backend.url("/"), &keys), DUNNO).await;

        let asked = tokens.only();
        assert_eq!(asked.target, "/token");
        let basic = format!("Basic {}", BASE64.encode(format!("{ID}:{SECRET}")));
        assert_eq!(asked.header("authorization"), Some(basic.as_str()));
        assert_eq!(asked.header("accept"), Some("application/json"));
        assert_eq!(
            asked.header("content-type"),
            Some("application/x-www-form-urlencoded")
        );
        same("the form", &asked.body, b"grant_type=client_credentials");

        let bearer = Some("Bearer abc.DEF-123_~+/==");
        assert_eq!(backend.only().header("authorization"), bearer);
    }
}

#[tokio::test]
async fn a_token_goes_with_the_other_headers_of_the_table() {
    let tokens = endpoint();
    let backend = Backend::always(dunno());
    let keys = format!(
        "{}auth-token = \"x-token\"\nheaders = {{ X-Own = \"own\", X-Key = \"{{key}}\" }}\n\
         compression = \"both\"\n",
        oauth(&tokens.url("/"), "")
    );
    let config = table(Binary::Socketmap, &backend.url("/"), &keys);
    expect(Binary::Socketmap, config, DUNNO).await;
    let asked = tokens.only();
    // What is the backend's is none of the token endpoint's business.
    for name in ["x-auth-token", "x-own", "x-key"] {
        assert_eq!(asked.header(name), None, "{name}");
        assert!(backend.only().header(name).is_some(), "{name}");
    }
    assert_eq!(asked.header("content-encoding"), None);
}

#[tokio::test]
async fn the_client_proves_itself_as_the_operator_says() {
    let basic = format!("Basic {}", BASE64.encode(format!("{ID}:{SECRET}")));
    for (more, header, body) in [
        (
            "",
            Some(basic.as_str()),
            pairs(&[("grant_type", "client_credentials")]),
        ),
        (
            ", auth-method = \"basic\", scope = \"mail.read mail.write\"",
            Some(basic.as_str()),
            pairs(&[
                ("grant_type", "client_credentials"),
                ("scope", "mail.read mail.write"),
            ]),
        ),
        (
            ", auth-method = \"post\"",
            None,
            pairs(&[
                ("client_id", ID),
                ("client_secret", SECRET),
                ("grant_type", "client_credentials"),
            ]),
        ),
        (
            ", auth-method = \"post\", scope = \"https://x/.default\"",
            None,
            pairs(&[
                ("client_id", ID),
                ("client_secret", SECRET),
                ("grant_type", "client_credentials"),
                ("scope", "https://x/.default"),
            ]),
        ),
    ] {
        for binary in ALL {
            let tokens = endpoint();
            let backend = taking("token-1");
            let keys = oauth(&tokens.url("/token?tenant=a%20b"), more);
            expect(binary, table(binary, &backend.url("/"), &keys), DUNNO).await;
            let asked = tokens.only();
            assert_eq!(asked.target, "/token?tenant=a%20b");
            assert_eq!(asked.header("authorization"), header, "{more}");
            assert_eq!(form(&asked), body, "{more}");
        }
    }
}

/// RFC 6749, section 2.3.1: both are encoded as in a form before they are put together.
#[tokio::test]
async fn odd_characters_of_a_client_are_encoded() {
    let (id, secret) = ("a client:ü/1", "p:a&b=c+d%20 \\\"ß");
    let plain_secret = secret.replace("\\\"", "\"");
    for method in ["basic", "post"] {
        let tokens = endpoint();
        let backend = taking("token-1");
        let keys = format!(
            "oauth2 = {{ token-url = \"{}\", client-id = \"{id}\", client-secret = \"{secret}\", \
             auth-method = \"{method}\" }}\n",
            tokens.url("/")
        );
        let config = table(Binary::Socketmap, &backend.url("/"), &keys);
        expect(Binary::Socketmap, config, DUNNO).await;
        let asked = tokens.only();
        if method == "post" {
            let expected = pairs(&[
                ("client_id", id),
                ("client_secret", &plain_secret),
                ("grant_type", "client_credentials"),
            ]);
            assert_eq!(form(&asked), expected);
            continue;
        }
        let header = asked.header("authorization").expect("Authorization");
        let coded = header.strip_prefix("Basic ").expect("Basic");
        let pair = BASE64.decode(coded).expect("base64");
        let pair = String::from_utf8(pair).expect("UTF-8");
        let (coded_id, coded_secret) = pair.split_once(':').expect("a pair");
        assert_eq!(unquoted(coded_id), id);
        assert_eq!(unquoted(coded_secret), plain_secret);
    }
}

/// Many servers do not decode what they get, and many names of clients are UUIDs.
#[tokio::test]
async fn characters_that_need_no_encoding_stay_as_they_are() {
    let tokens = endpoint();
    let backend = taking("token-1");
    let (id, secret) = ("0c6f6e0e-6f0b-4a6e", "A_b.c-d");
    let keys = format!(
        "oauth2 = {{ token-url = \"{}\", client-id = \"{id}\", client-secret = \"{secret}\" }}\n",
        tokens.url("/")
    );
    let config = table(Binary::Socketmap, &backend.url("/"), &keys);
    expect(Binary::Socketmap, config, DUNNO).await;
    let basic = format!("Basic {}", BASE64.encode(format!("{id}:{secret}")));
    assert_eq!(tokens.only().header("authorization"), Some(basic.as_str()));
}

/// Takes the encoding of a form off; only unreserved characters may stand for themselves.
fn unquoted(text: &str) -> String {
    let is_sound = |c: char| c.is_ascii_alphanumeric() || "-._~*+%".contains(c);
    assert!(text.chars().all(is_sound), "{text:?}");
    let text = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&text).decode_utf8();
    decoded.expect("UTF-8").into_owned()
}

#[tokio::test]
async fn the_secret_may_stand_elsewhere() {
    for source in ["credential", "file", "env"] {
        let tokens = endpoint();
        let backend = taking("token-1");
        let launch = Launch::new(Binary::Socketmap);
        let directory = launch.directory().to_owned();
        let file = write(&directory, "secret", &format!("{SECRET}\n"));
        let value = match source {
            "credential" => "secret".to_owned(),
            "file" => file.display().to_string(),
            _ => "THE_SECRET".to_owned(),
        };
        let keys = format!(
            "oauth2 = {{ token-url = \"{}\", client-id = \"{ID}\", \
             client-secret = {{ {source} = \"{value}\" }} }}\n",
            tokens.url("/")
        );
        let launch = launch
            .config(table(Binary::Socketmap, &backend.url("/"), &keys))
            .environment("CREDENTIALS_DIRECTORY", directory)
            .environment("THE_SECRET", SECRET);
        expect_of(launch, Binary::Socketmap, DUNNO).await;
        let basic = format!("Basic {}", BASE64.encode(format!("{ID}:{SECRET}")));
        assert_eq!(tokens.only().header("authorization"), Some(basic.as_str()));
    }
}

#[tokio::test]
async fn a_missing_credential_is_a_warning_for_check_and_an_error_at_the_start() {
    let credentials = crate::support::Directory::new();
    for key in ["client-secret", "private-key"] {
        let keys = format!(
            "oauth2 = {{ token-url = \"http://127.0.0.1/\", client-id = \"{ID}\", \
             {key} = {{ credential = \"the-secret\" }} }}\n"
        );
        let launch = || {
            Launch::new(Binary::Socketmap)
                .config(table(Binary::Socketmap, "http://127.0.0.1/", &keys))
                .environment("CREDENTIALS_DIRECTORY", credentials.path())
        };
        let end = launch().argument("--check").end().await;
        end.status(0).says("the-secret");
        assert_eq!(end.stdout, "ok\n");
        launch().unix("t").end().await.status(78).says("the-secret");
    }
}

/// The `oauth2` of a client with a key in a file.
fn with_key(server: &str, key: &Path, more: &str) -> String {
    format!(
        "oauth2 = {{ {server}, client-id = \"{ID}\", private-key = {{ file = \"{}\" }}{more} }}\n",
        key.display()
    )
}

/// Checks an assertion against RFC 7523, section 3, and tells its `jti`.
fn assertion(request: &Request, algorithm: Algorithm, public: &DecodingKey, url: &str) -> String {
    assert_eq!(request.header("authorization"), None);
    let sent = form(request);
    let member = |name: &str| {
        let mut values = sent.iter().filter(|pair| pair.0 == name);
        let value = values.next().map(|pair| pair.1.clone());
        assert!(values.next().is_none(), "{name} twice");
        value
    };
    assert_eq!(member("grant_type").as_deref(), Some("client_credentials"));
    assert_eq!(member("client_secret"), None);
    assert!(member("client_id").is_none_or(|id| id == ID), "{sent:?}");
    assert_eq!(
        member("client_assertion_type").as_deref(),
        Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
    );
    let jwt = member("client_assertion").expect("an assertion");
    assert_eq!(decode_header(&jwt).expect("a header").alg, algorithm);

    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
    validation.set_audience(&[url]);
    validation.set_issuer(&[ID]);
    validation.sub = Some(ID.to_owned());
    validation.leeway = 0;
    let claims = decode::<Value>(&jwt, public, &validation).expect("a sound assertion");
    let claims = claims.claims;
    // A server may refuse what is good for long.
    let now = jsonwebtoken::get_current_timestamp();
    let end = claims["exp"].as_u64().expect("exp");
    assert!((now + 1..=now + 600).contains(&end), "{claims}");
    if let Some(from) = claims.get("iat") {
        assert!(from.as_u64().expect("iat") <= now, "{claims}");
    }
    let id = claims["jti"].as_str().expect("jti");
    assert!(id.len() >= 16, "{claims}");
    id.to_owned()
}

#[tokio::test]
async fn a_client_with_a_private_key_signs_an_assertion() {
    let ed = DecodingKey::from_ed_pem;
    let ec = DecodingKey::from_ec_pem;
    let rsa = DecodingKey::from_rsa_pem;
    type Read = fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>;
    for (kind, algorithm, read) in [
        (&PKCS_ECDSA_P256_SHA256, Algorithm::ES256, ec as Read),
        (&PKCS_ECDSA_P384_SHA384, Algorithm::ES384, ec),
        (&PKCS_ED25519, Algorithm::EdDSA, ed),
        (&PKCS_RSA_SHA256, Algorithm::RS256, rsa),
    ] {
        let key = KeyPair::generate_for(kind).expect("a key");
        let public = read(key.public_key_pem().as_bytes()).expect("a public key");
        let directory = crate::support::Directory::new();
        let file = write(directory.path(), "key.pem", &key.serialize_pem());
        for more in ["", ", auth-method = \"private-key-jwt\", scope = \"a b\""] {
            let tokens = endpoint();
            // Its first token is not taken, so that a second one has to be fetched.
            let backend = taking("token-2");
            let url = tokens.url("/token");
            let keys = with_key(&format!("token-url = \"{url}\""), &file, more);
            let config = table(Binary::Socketmap, &backend.url("/"), &keys);
            expect(Binary::Socketmap, config, DUNNO).await;
            let asked = tokens.requests();
            assert_eq!(asked.len(), 2, "{asked:?}");
            let first = assertion(&asked[0], algorithm, &public, &url);
            let second = assertion(&asked[1], algorithm, &public, &url);
            assert_ne!(first, second, "a jti came twice");
            let scope = form(&asked[0]).into_iter().find(|pair| pair.0 == "scope");
            let expected = (!more.is_empty()).then(|| "a b".to_owned());
            assert_eq!(scope.map(|pair| pair.1), expected);
        }
    }
}

#[tokio::test]
async fn every_program_signs_with_a_key_from_a_credential() {
    let key = KeyPair::generate().expect("a key");
    let public = DecodingKey::from_ec_pem(key.public_key_pem().as_bytes()).expect("a public key");
    let credentials = crate::support::Directory::new();
    credentials.write("the-key", &key.serialize_pem());
    for binary in ALL {
        let tokens = endpoint();
        let backend = taking("token-1");
        let url = tokens.url("/");
        let keys = format!(
            "oauth2 = {{ token-url = \"{url}\", client-id = \"{ID}\", \
             private-key = {{ credential = \"the-key\" }} }}\n"
        );
        let launch = Launch::new(binary)
            .config(table(binary, &backend.url("/"), &keys))
            .environment("CREDENTIALS_DIRECTORY", credentials.path());
        expect_of(launch, binary, DUNNO).await;
        assertion(&tokens.only(), Algorithm::ES256, &public, &url);
    }
}

/// An issuer at this path: its configuration leads to `/the/token` of the same server.
fn issuer(reserved: Reserved, path: &'static str) -> Backend {
    let origin = format!("http://{}", reserved.address());
    Backend::at(reserved, move |request| {
        let document = format!("{path}/.well-known/openid-configuration");
        if request.target == document {
            assert_eq!(request.method, "GET");
            answer(
                json!({
                    "issuer": format!("{origin}{path}"),
                    "token_endpoint": format!("{origin}/the/token"),
                    "jwks_uri": format!("{origin}/keys"),
                })
                .to_string(),
            )
        } else if request.target == "/the/token" {
            token("token-1")
        } else {
            status(404)
        }
    })
}

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
            // The document is public; who asks for it is nobody's business.
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

#[tokio::test]
async fn one_token_serves_one_call_after_the_other() {
    for binary in ALL {
        let tokens = endpoint();
        let backend = taking("token-1");
        let keys = oauth(&tokens.url("/"), "");
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        let mut peer = program.peer().await;
        for _ in 0..20 {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same("found", &reply, &DUNNO.by(binary));
        }
        assert_eq!((tokens.count(), backend.count()), (1, 20), "{binary:?}");
    }
}

#[tokio::test]
async fn one_token_is_fetched_for_many_callers_at_once() {
    const CALLERS: usize = 30;
    for binary in ALL {
        let gate = Gate::shut();
        let mut script = vec![Act::Wait(gate.clone())];
        script.extend(token("token-1"));
        let tokens = Backend::always(script);
        let backend = taking("token-1");
        let keys = format!("{}request-timeout = \"60s\"\n", oauth(&tokens.url("/"), ""));
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        let peers = program.asking(CALLERS).await;
        tokens.asked(1).await;
        gate.pass(CALLERS);
        for mut peer in peers {
            same("at once", &peer.reply().await, &DUNNO.by(binary));
        }
        assert_eq!(
            (tokens.count(), backend.count()),
            (1, CALLERS),
            "{binary:?}"
        );
    }
}

/// The call that happens to fetch the token may be cancelled; the others still want it.
#[tokio::test]
async fn a_caller_that_goes_away_does_not_take_the_token_along() {
    let binary = Binary::Socketmap;
    let gate = Gate::shut();
    let mut script = vec![Act::Wait(gate.clone())];
    script.extend(token("token-1"));
    let tokens = Backend::always(script);
    let backend = taking("token-1");
    let keys = format!("{}request-timeout = \"60s\"\n", oauth(&tokens.url("/"), ""));
    let config = table(binary, &backend.url("/"), &keys);
    let program = Launch::new(binary).config(config).tcp4("t").ready().await;
    let mut first = program.peer().await;
    first.send(question(binary, "t", "first")).await;
    tokens.asked(1).await;
    let mut second = program.peer().await;
    second.send(question(binary, "t", "second")).await;
    first.reset();
    gate.pass(10);
    same("the second", &second.reply().await, &DUNNO.by(binary));
    assert_eq!(tokens.count(), 1);
}

#[tokio::test]
async fn a_token_is_used_until_it_is_near_its_end() {
    let binary = Binary::Socketmap;
    let mut number = 0;
    let tokens = Backend::new(move |_| {
        number += 1;
        let lasts = if number == 1 { 1 } else { 3600 };
        answer(
            json!({
                "access_token": format!("token-{number}"),
                "token_type": "bearer",
                "expires_in": lasts,
            })
            .to_string(),
        )
    });
    let backend = Backend::always(dunno());
    let keys = oauth(&tokens.url("/"), "");
    let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
    let mut peer = program.peer().await;
    let asking = async {
        while tokens.count() < 2 {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same("found", &reply, &DUNNO.by(binary));
        }
    };
    soon("a second token", asking).await;
    for _ in 0..10 {
        let reply = peer.ask(question(binary, "t", "key")).await;
        same("found", &reply, &DUNNO.by(binary));
    }
    assert_eq!(tokens.count(), 2);
    let seen = self::tokens(&backend);
    assert_eq!(seen.first().map(String::as_str), Some("Bearer token-1"));
    assert_eq!(seen.last().map(String::as_str), Some("Bearer token-2"));
}

#[tokio::test]
async fn a_token_may_come_without_saying_how_long_it_lasts() {
    for binary in ALL {
        for body in [
            json!({ "access_token": "token-1", "token_type": "Bearer" }),
            json!({ "access_token": "token-1", "token_type": "bearer", "expires_in": null }),
            json!({ "access_token": "token-1", "token_type": "BEARER", "expires_in": 3600 }),
            json!({ "access_token": "token-1", "token_type": "Bearer", "expires_in": 3599.5 }),
            json!({ "access_token": "token-1", "token_type": "Bearer", "expires_in": 0 }),
            json!({ "access_token": "token-1", "token_type": "Bearer", "expires_in": -1 }),
            json!({ "access_token": "token-1", "token_type": "Bearer",
                    "expires_in": u64::MAX, "scope": "x", "refresh_token": "y", "z": [{}] }),
        ] {
            let tokens = Backend::always(answer(body.to_string()));
            let backend = taking("token-1");
            let keys = oauth(&tokens.url("/"), "");
            expect(binary, table(binary, &backend.url("/"), &keys), DUNNO).await;
            assert_eq!((tokens.count(), backend.count()), (1, 1), "{body}");
        }
    }
}

/// Not what RFC 6749 has, but what one of the largest servers says.
#[tokio::test]
async fn how_long_a_token_lasts_may_be_said_in_a_string() {
    let body = json!({ "access_token": "token-1", "token_type": "Bearer", "expires_in": "3599" });
    let tokens = Backend::always(answer(body.to_string()));
    let backend = taking("token-1");
    let keys = oauth(&tokens.url("/"), "");
    let config = table(Binary::Socketmap, &backend.url("/"), &keys);
    expect(Binary::Socketmap, config, DUNNO).await;
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_and_the_call_repeated_once() {
    for binary in ALL {
        let tokens = endpoint();
        let backend = taking("token-2");
        let keys = oauth(&tokens.url("/"), "");
        let program = serve(binary, table(binary, &backend.url("/ask"), &keys)).await;
        let mut peer = program.peer().await;
        for _ in 0..5 {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same("found", &reply, &DUNNO.by(binary));
        }
        assert_eq!((tokens.count(), backend.count()), (2, 6), "{binary:?}");
        let requests = backend.requests();
        let first = &requests[0];
        let second = &requests[1];
        assert_eq!(first.header("authorization"), Some("Bearer token-1"));
        assert_eq!(second.header("authorization"), Some("Bearer token-2"));
        assert_eq!(first.target, second.target);
        same("the body", &second.body, &first.body);
    }
}

#[tokio::test]
async fn a_second_refusal_is_an_answer() {
    for binary in ALL {
        let tokens = endpoint();
        let backend = Backend::always(status(401));
        let keys = oauth(&tokens.url("/"), "");
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        let said = match binary {
            Binary::TcpLookup => "400 backend%20answered%20401",
            Binary::Socketmap => "TEMP backend answered 401",
            Binary::Policy => LATER,
        };
        let reply = ask(&program, binary, "key").await;
        same("refused", &reply, &framed(binary, said));
        assert_eq!((tokens.count(), backend.count()), (2, 2), "{binary:?}");
        assert_eq!(
            self::tokens(&backend),
            ["Bearer token-1", "Bearer token-2"],
            "{binary:?}"
        );
    }
}

#[tokio::test]
async fn a_backend_that_takes_no_token_does_not_wear_the_token_endpoint_out() {
    const ASKED: usize = 20;
    let binary = Binary::Socketmap;
    let tokens = endpoint();
    let backend = Backend::always(status(401));
    let keys = oauth(&tokens.url("/"), "");
    let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
    let mut peer = program.peer().await;
    for _ in 0..ASKED {
        let reply = peer.ask(question(binary, "t", "key")).await;
        same("refused", &reply, &netstring("TEMP backend answered 401"));
    }
    assert!((2..=4).contains(&tokens.count()), "{}", tokens.count());
    assert!((ASKED..=2 * ASKED).contains(&backend.count()));
}

#[tokio::test]
async fn a_token_that_many_callers_saw_refused_is_renewed_once() {
    const CALLERS: usize = 10;
    let binary = Binary::Socketmap;
    let tokens = endpoint();
    let gate = Gate::shut();
    let waiting = gate.clone();
    let backend = Backend::new(move |request| match request.header("authorization") {
        Some("Bearer token-2") => dunno(),
        _ => {
            let mut script = vec![Act::Wait(waiting.clone())];
            script.extend(status(401));
            script
        }
    });
    let keys = format!("{}request-timeout = \"60s\"\n", oauth(&tokens.url("/"), ""));
    let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
    let peers = program.asking(CALLERS).await;
    backend.asked(CALLERS).await;
    gate.pass(CALLERS);
    for mut peer in peers {
        same("renewed", &peer.reply().await, &DUNNO.by(binary));
    }
    assert_eq!((tokens.count(), backend.count()), (2, 2 * CALLERS));
}

#[tokio::test]
async fn only_a_401_renews_a_token() {
    let binary = Binary::Socketmap;
    for (number, said) in [
        (403, "TEMP backend answered 403"),
        (407, "TEMP backend answered 407"),
        (400, "PERM backend answered 400"),
        (503, "TEMP backend answered 503"),
    ] {
        let tokens = endpoint();
        let backend = Backend::always(status(number));
        let keys = oauth(&tokens.url("/"), "");
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        let reply = ask(&program, binary, "key").await;
        same(said, &reply, &netstring(said));
        assert_eq!((tokens.count(), backend.count()), (1, 1), "{said}");
    }
    let backend = Backend::always(status(401));
    let config = table(binary, &backend.url("/"), "bearer-token = \"fixed\"");
    let program = serve(binary, config).await;
    let reply = ask(&program, binary, "key").await;
    same("fixed", &reply, &netstring("TEMP backend answered 401"));
    assert_eq!(backend.count(), 1);
}

/// Every way for a token endpoint not to give a token.
fn refusals() -> Vec<(&'static str, Script)> {
    let member = |token: Value| {
        answer(
            json!({ "access_token": token, "token_type": "Bearer", "expires_in": 60 }).to_string(),
        )
    };
    let mut refusals = vec![
        ("garbage", answer("no JSON")),
        ("nothing", answer("")),
        ("HTML", typed(200, "text/html", "<html>Welcome</html>")),
        ("an empty object", answer("{}")),
        ("a string", answer("\"token\"")),
        ("null", answer("null")),
        ("a token that is null", member(Value::Null)),
        ("a token that is a number", member(json!(5))),
        ("an empty token", member(json!(""))),
        ("a token with a line", member(json!("a\r\nX-Evil: 1"))),
        ("a token with a NUL", member(json!("a\0b"))),
        ("a token of another kind", {
            answer(json!({ "access_token": "x", "token_type": "mac" }).to_string())
        }),
        ("no HTTP", vec![raw("garbage\r\n\r\n"), Act::Close]),
        ("a broken connection", vec![Act::Close]),
        ("a reset connection", vec![Act::Reset]),
        ("204", status(204)),
        (
            "201 with a token",
            typed(
                201,
                "application/json",
                r#"{"access_token":"x","token_type":"Bearer"}"#,
            ),
        ),
        ("a body without end", {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\"";
            vec![raw(head), Act::Endless(vec![b'a'; 65_536])]
        }),
        (
            "a refusal as RFC 6749 has it",
            typed(400, "application/json", r#"{"error":"invalid_client"}"#),
        ),
        (
            "a token with the status of a failure",
            typed(
                500,
                "application/json",
                r#"{"access_token":"x","token_type":"Bearer"}"#,
            ),
        ),
    ];
    for number in [401, 403, 404, 429, 500, 502, 503] {
        refusals.push(("a status", status(number)));
    }
    refusals
}

#[tokio::test]
async fn without_a_token_nothing_is_asked_and_the_endpoint_is_left_alone() {
    const ASKED: usize = 30;
    let binary = Binary::Socketmap;
    let expected = NO_CREDENTIALS.by(binary);
    let mut wrong = Wrong::default();
    for (row, script) in refusals() {
        let tokens = Backend::always(script);
        let backend = Backend::always(dunno());
        let keys = oauth(&tokens.url("/"), "");
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        let mut peer = program.peer().await;
        let mut replies = Vec::new();
        for _ in 0..ASKED {
            replies.push(peer.ask(question(binary, "t", "key")).await);
        }
        let odd = replies.into_iter().find(|reply| *reply != expected);
        wrong.compare(row, &odd.unwrap_or_else(|| expected.clone()), &expected);
        let calls = (tokens.count(), backend.count());
        let holds = matches!(calls, (1..=5, 0));
        wrong.require(row, holds, || format!("{calls:?} fetches and calls"));
    }
    wrong.none();
}

/// Only the codes of RFC 6749 are shown; all else may be a part of a secret.
#[tokio::test]
async fn a_failure_names_the_step_and_the_servers_word_for_it() {
    const LONG: &str = "a_word_that_no_server_would_say_since_it_is_far_too_long_for_one";
    let refusal = |code, error: Value| {
        typed(
            code,
            "application/json",
            json!({ "error": error, "error_description": "s3cret" }).to_string(),
        )
    };
    let binary = Binary::Socketmap;
    for (script, expected) in [
        (
            refusal(401, json!("invalid_client")),
            "token: their server answered 401: invalid_client",
        ),
        (
            refusal(400, json!("unauthorized_client")),
            "token: their server answered 400: unauthorized_client",
        ),
        (
            refusal(200, json!("temporarily_unavailable")),
            "token: their server's answer is not understood: temporarily_unavailable",
        ),
        (
            refusal(400, json!("invalid client")),
            "token: their server answered 400: an error code that is not RFC 6749's\"",
        ),
        (
            refusal(400, json!(LONG)),
            "token: their server answered 400: an error code that is not RFC 6749's\"",
        ),
        (
            refusal(400, json!(SECRET)),
            "token: their server answered 400: an error code that is not RFC 6749's\"",
        ),
        (
            refusal(400, json!(format!("bad_{SECRET}"))),
            "token: their server answered 400: an error code that is not RFC 6749's\"",
        ),
        (
            refusal(400, json!("not_one_of_them")),
            "token: their server answered 400: an error code that is not RFC 6749's\"",
        ),
        (
            refusal(400, json!(&SECRET[..4])),
            "token: their server answered 400: an error code that is not RFC 6749's\"",
        ),
        (refusal(400, json!(5)), "token: their server answered 400\""),
        (
            typed(400, "text/html", "<html>"),
            "token: their server answered 400\"",
        ),
        (vec![Act::Close], "token: "),
    ] {
        let tokens = Backend::always(script);
        let keys = oauth(&tokens.url("/"), "");
        let config = table(binary, "http://127.0.0.1/", &keys);
        let end = expect(binary, config, NO_CREDENTIALS).await;
        let said = end.stderr.replace(" table=", "\" table=");
        let expected = format!("backend credentials unavailable: {expected}");
        assert!(said.contains(&expected), "{expected}: {end:#?}");
        assert!(!said.contains("s3cret"), "{end:#?}");
    }
    let reserved = Reserved::new();
    let origin = format!("http://{}", reserved.address());
    let _issuer = Backend::at(reserved, move |_| refusal(404, json!("not_here")));
    let keys = format!(
        "oauth2 = {{ issuer = \"{origin}\", client-id = \"{ID}\", client-secret = \"{SECRET}\" }}\n"
    );
    let end = expect(
        binary,
        table(binary, "http://127.0.0.1/", &keys),
        NO_CREDENTIALS,
    )
    .await;
    end.says(
        "backend credentials unavailable: discovery: their server answered 404: an error code that \
         is not RFC 6749's",
    );
}

#[tokio::test]
async fn every_call_for_a_token_says_who_asks_and_for_which_request() {
    let binary = Binary::Socketmap;
    let reserved = Reserved::new();
    let url = format!("http://{}", reserved.address());
    let issuer = issuer(reserved, "");
    let backend = taking("token-1");
    let keys = format!(
        "user-agent = \"mail.example/1\"\noauth2 = {{ issuer = \"{url}\", client-id = \"{ID}\", \
         client-secret = \"{SECRET}\" }}\n"
    );
    expect(binary, table(binary, &backend.url("/"), &keys), DUNNO).await;
    let asked = issuer.requests();
    assert_eq!(asked.len(), 2, "{asked:?}");
    let id = backend.only().header("x-request-id").map(str::to_owned);
    assert!(id.is_some());
    for request in asked {
        assert_eq!(request.header("user-agent"), Some("mail.example/1"));
        assert_eq!(request.header("x-request-id"), id.as_deref());
    }
}

#[tokio::test]
async fn parameters_stand_in_the_form_for_a_token() {
    for (binary, more) in ALL
        .into_iter()
        .zip(["", ", auth-method = \"post\"", ", scope = \"a\""])
    {
        let tokens = endpoint();
        let backend = taking("token-1");
        let more = format!(
            "{more}, parameters = {{ audience = \"https://api/ä&b\", resource = {{ env = \"THE_SECRET\" }} }}"
        );
        let keys = oauth(&tokens.url("/"), &more);
        let launch = Launch::new(binary)
            .config(table(binary, &backend.url("/"), &keys))
            .environment("THE_SECRET", SECRET);
        expect_of(launch, binary, DUNNO).await;
        let form = form(&tokens.only());
        let value = |name: &str| {
            form.iter()
                .find(|pair| pair.0 == name)
                .map(|pair| pair.1.as_str())
        };
        assert_eq!(value("audience"), Some("https://api/ä&b"), "{form:?}");
        assert_eq!(value("resource"), Some(SECRET), "{form:?}");
        assert_eq!(value("grant_type"), Some("client_credentials"), "{form:?}");
    }
}

#[tokio::test]
async fn every_program_says_that_there_are_no_credentials() {
    for binary in ALL {
        let gone = Reserved::new();
        let backend = Backend::always(dunno());
        let keys = oauth(&format!("http://{}/", gone.address()), "");
        let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
        for _ in 0..3 {
            let reply = ask(&program, binary, "key").await;
            same("down", &reply, &NO_CREDENTIALS.by(binary));
        }
        assert_eq!(backend.count(), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn many_callers_at_once_ask_an_ill_endpoint_once() {
    const CALLERS: usize = 30;
    let binary = Binary::Socketmap;
    let gate = Gate::shut();
    let mut script = vec![Act::Wait(gate.clone())];
    script.extend(status(500));
    let tokens = Backend::always(script);
    let backend = Backend::always(dunno());
    let keys = format!("{}request-timeout = \"60s\"\n", oauth(&tokens.url("/"), ""));
    let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
    let peers = program.asking(CALLERS).await;
    tokens.asked(1).await;
    gate.pass(CALLERS);
    for mut peer in peers {
        same("at once", &peer.reply().await, &NO_CREDENTIALS.by(binary));
    }
    assert!((1..=3).contains(&tokens.count()), "{}", tokens.count());
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn an_endpoint_that_gets_well_is_asked_again() {
    let binary = Binary::Socketmap;
    let tokens = Backend::in_turn([status(503), token("token-1")]);
    let backend = taking("token-1");
    let keys = oauth(&tokens.url("/"), "");
    let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
    let mut peer = program.peer().await;
    let asking = async {
        let mut failures = 0;
        loop {
            let reply = peer.ask(question(binary, "t", "key")).await;
            if reply == DUNNO.by(binary) {
                break failures;
            }
            same("before", &reply, &NO_CREDENTIALS.by(binary));
            failures += 1;
        }
    };
    let failures = soon("a token", asking).await;
    assert!(failures > 0, "the first fetch failed");
    assert_eq!(tokens.count(), 2);
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_is_given_up_before_the_deadline() {
    for binary in ALL {
        let tokens = Backend::always(vec![Act::Hang]);
        let backend = Backend::always(dunno());
        let keys = format!(
            "{}request-timeout = \"300ms\"\n",
            oauth(&tokens.url("/"), "")
        );
        expect(
            binary,
            table(binary, &backend.url("/"), &keys),
            NO_CREDENTIALS,
        )
        .await;
        assert_eq!(backend.count(), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_is_not_held_against_the_backend() {
    let tokens = Backend::always(vec![Act::Hang]);
    let backend = Backend::always(dunno());
    let (binary, url) = (Binary::Socketmap, backend.url("/"));
    // Both wait for one fetch, which goes on for as long as the first of them has time.
    let config = format!(
        "[http]\n{}[socketmap.patient]\ntarget = \"{url}\"\nrequest-timeout = \"80s\"\n\
         [socketmap.t]\ntarget = \"{url}\"\nrequest-timeout = \"100ms\"\nbreaker = {{ failures = 1 }}\n",
        oauth(&tokens.url("/"), "")
    );
    let program = serve(binary, config).await;
    let mut peer = program.peer().await;
    for _ in 0..3 {
        let reply = peer.ask(question(binary, "t", "key")).await;
        same("no token", &reply, &NO_CREDENTIALS.by(binary));
    }
    assert_eq!((tokens.count(), backend.count()), (1, 0));
}

#[tokio::test]
async fn a_token_endpoint_cannot_send_the_secret_elsewhere() {
    let elsewhere = endpoint();
    for number in [301, 302, 303, 307, 308] {
        for method in ["basic", "post"] {
            let location = elsewhere.url("/token");
            let tokens = Backend::always(response(number, &[("Location", &location)], ""));
            let backend = Backend::always(dunno());
            let keys = format!(
                "{}redirects = \"same-origin\"\n",
                oauth(&tokens.url("/"), &format!(", auth-method = \"{method}\""))
            );
            let config = table(Binary::Socketmap, &backend.url("/"), &keys);
            expect(Binary::Socketmap, config, NO_CREDENTIALS).await;
            assert_eq!((tokens.count(), backend.count()), (1, 0));
        }
    }
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test]
async fn a_redirect_of_the_backend_takes_the_token_nowhere_else() {
    let elsewhere = Backend::always(dunno());
    let location = elsewhere.url("/");
    let tokens = endpoint();
    let backend = Backend::always(response(302, &[("Location", &location)], ""));
    let keys = format!(
        "{}redirects = \"same-origin\"\n",
        oauth(&tokens.url("/"), "")
    );
    let config = table(Binary::Socketmap, &backend.url("/"), &keys);
    let program = serve(Binary::Socketmap, config).await;
    let reply = ask(&program, Binary::Socketmap, "key").await;
    same("refused", &reply, &netstring("PERM backend answered 302"));
    assert_eq!((backend.count(), elsewhere.count()), (1, 0));
}

#[tokio::test]
async fn a_token_comes_over_the_tls_of_the_table() {
    let (authority, _directory, ca) = authority();
    for binary in ALL {
        let tls = authority.server().tls().offering(&["h2"]).config();
        let tokens = Web::secure(tls, |_| {
            Answer::json(r#"{"access_token":"token-1","token_type":"Bearer","expires_in":3600}"#)
        });
        let backend = taking("token-1");
        let keys = format!("{ca}{}", oauth(&tokens.url("https", "/token"), ""));
        expect(binary, table(binary, &backend.url("/"), &keys), DUNNO).await;
        let asked = tokens.only();
        let basic = format!("Basic {}", BASE64.encode(format!("{ID}:{SECRET}")));
        assert_eq!(asked.header("authorization"), Some(basic.as_str()));
        same("the form", &asked.body, b"grant_type=client_credentials");
    }
}

/// The secret for a token is worth more than one answer.
#[tokio::test]
async fn of_the_tls_of_a_table_only_what_narrows_trust_reaches_the_token_endpoint() {
    let binary = Binary::Socketmap;
    let (authority, directory, _) = authority();
    let other = Authority::new();
    let (cert, key) = authority.client().files(directory.path(), "client");
    let (ca, other_ca) = (
        directory.join("ca.pem"),
        other.file(directory.path(), "other.pem"),
    );
    let [ca, other_ca, cert, key] =
        [ca, other_ca, cert, key].map(|path| path.display().to_string());
    let client = format!("client-cert = \"{cert}\", client-key = \"{key}\"");
    let (of_one, of_other) = (authority.server(), other.server());
    for (table_tls, own, server, said) in [
        // Whom to trust instead of the system, and the lowest version.
        (format!("ca = \"{ca}\""), None, of_one.tls(), DUNNO),
        (
            format!("ca = \"{ca}\""),
            None,
            of_other.tls(),
            NO_CREDENTIALS,
        ),
        (
            format!("ca = \"{ca}\", min-version = \"1.3\""),
            None,
            of_one.tls().old(),
            NO_CREDENTIALS,
        ),
        // No leave to trust anybody, and no proof of who we are.
        (
            "verify = false".to_owned(),
            None,
            of_one.tls(),
            NO_CREDENTIALS,
        ),
        (
            format!("ca = \"{ca}\", {client}"),
            None,
            of_one.tls().demanding(&authority),
            NO_CREDENTIALS,
        ),
        // A setting of its own goes before that of the table.
        (
            format!("ca = \"{ca}\""),
            Some(format!("ca = \"{other_ca}\"")),
            of_other.tls(),
            DUNNO,
        ),
        (
            format!("ca = \"{ca}\""),
            Some(format!("ca = \"{other_ca}\"")),
            of_one.tls(),
            NO_CREDENTIALS,
        ),
        (
            format!("ca = \"{ca}\""),
            Some(client.clone()),
            of_one.tls().demanding(&authority),
            DUNNO,
        ),
        (
            format!("ca = \"{ca}\", min-version = \"1.3\""),
            Some("min-version = \"1.2\"".to_owned()),
            of_one.tls().old(),
            DUNNO,
        ),
        (
            format!("ca = \"{ca}\""),
            Some("verify = false".to_owned()),
            of_other.tls(),
            DUNNO,
        ),
        // The system's authorities are those of `other`.
        (
            format!("ca = \"{ca}\""),
            Some("ca = false".to_owned()),
            of_other.tls(),
            DUNNO,
        ),
        (
            format!("ca = \"{ca}\""),
            Some("ca = false".to_owned()),
            of_one.tls(),
            NO_CREDENTIALS,
        ),
    ] {
        let tokens = Web::secure(server.config(), |_| {
            Answer::json(r#"{"access_token":"token-1","token_type":"Bearer","expires_in":3600}"#)
        });
        let backend = taking("token-1");
        let more = own.map_or_else(String::new, |own| format!(", tls = {{ {own} }}"));
        let keys = format!(
            "{}tls = {{ {table_tls} }}\n",
            oauth(&tokens.url("https", "/"), &more)
        );
        println!("{keys}");
        let launch = Launch::new(binary)
            .config(table(binary, &backend.url("/"), &keys))
            .environment("SSL_CERT_FILE", &other_ca);
        let end = expect_of(launch, binary, said).await;
        let is_warned = end.stderr.contains("socketmap.t.oauth2.tls.verify");
        assert_eq!(is_warned, more.contains("verify"), "{end:#?}");
    }
}

#[tokio::test]
async fn a_token_endpoint_nobody_vouches_for_gets_no_secret() {
    let (_other, _directory, ca) = authority();
    for keys in ["", ca.as_str()] {
        let tls = Authority::new().server().tls().config();
        let tokens = Web::secure(tls, |_| Answer::dunno());
        let backend = Backend::always(dunno());
        let keys = format!("{keys}{}", oauth(&tokens.url("https", "/token"), ""));
        let config = table(Binary::Socketmap, &backend.url("/"), &keys);
        expect(Binary::Socketmap, config, NO_CREDENTIALS).await;
        tokens.refusals(1).await;
        assert_eq!((tokens.count(), backend.count()), (0, 0));
    }
}

#[tokio::test]
async fn a_token_endpoint_is_not_behind_the_unix_socket_of_the_backend() {
    for binary in ALL {
        let directory = crate::support::Directory::new();
        let path = directory.join("backend.sock");
        let backend = Web::unix(&path, |_| Answer::dunno());
        let tokens = endpoint();
        let keys = format!(
            "{}unix-socket = \"{}\"\n",
            oauth(&tokens.url("/"), ""),
            path.display()
        );
        let config = table(binary, "http://backend.invalid/", &keys);
        expect(binary, config, DUNNO).await;
        assert_eq!(tokens.count(), 1, "{binary:?}");
        let bearer = Some("Bearer token-1");
        assert_eq!(backend.only().header("authorization"), bearer);
    }
}

#[tokio::test]
async fn a_token_comes_through_the_proxy_of_the_table() {
    for binary in ALL {
        let proxy = Backend::new(|request| match request.target.as_str() {
            "http://tokens.invalid/token" => token("token-1"),
            _ => dunno(),
        });
        let keys = format!(
            "{}proxy = \"{}\"\n",
            oauth("http://tokens.invalid/token", ""),
            proxy.url("")
        );
        let config = table(binary, "http://backend.invalid/", &keys);
        expect(binary, config, DUNNO).await;
        let requests = proxy.requests();
        assert_eq!(requests.len(), 2, "{requests:?}");
        assert_eq!(
            form(&requests[0]),
            pairs(&[("grant_type", "client_credentials")])
        );
        assert_eq!(requests[1].header("authorization"), Some("Bearer token-1"));
    }
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

#[tokio::test]
async fn a_backend_that_is_down_is_unreachable_with_a_token_too() {
    for binary in ALL {
        let gone = Reserved::new();
        let tokens = endpoint();
        let keys = oauth(&tokens.url("/"), "");
        let config = table(binary, &format!("http://{}/", gone.address()), &keys);
        expect(binary, config, UNREACHABLE).await;
    }
}

#[tokio::test]
async fn a_question_that_needs_no_call_needs_no_token() {
    let binary = Binary::Socketmap;
    let tokens = endpoint();
    let backend = Backend::always(dunno());
    let keys = format!(
        "{}normalise = {{ pattern = \"a+\" }}\n",
        oauth(&tokens.url("/"), "")
    );
    let program = serve(binary, table(binary, &backend.url("/"), &keys)).await;
    for key in ["*", "b"] {
        let reply = ask(&program, binary, key).await;
        same(key, &reply, &netstring("NOTFOUND "));
    }
    assert_eq!((tokens.count(), backend.count()), (0, 0));
}

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
        self::tokens(&backend),
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
    assert_eq!(self::tokens(&backend), ["Bearer token-1"]);
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
            &["already; only one of them can be sent"],
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
    program.told("READY=1", 2).await;
    same("after", &peer.ask(&request).await, &DUNNO.by(binary));
    let basic = format!("Basic {}", BASE64.encode(format!("{ID}:another")));
    let asked = tokens.requests();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[1].header("authorization"), Some(basic.as_str()));
    assert_eq!(self::tokens(&backend), ["Bearer token-1", "Bearer token-2"]);
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
            // Some servers say again what they were told.
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
            let said = match row {
                0 => "TEMP backend answered 401",
                _ => "TEMP backend credentials unavailable",
            };
            same("no value", &reply, &netstring(said));
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

#[tokio::test]
async fn bad_values_of_oauth2_are_named_with_their_place() {
    let url = "token-url = \"https://127.0.0.1/token\"";
    let rest = "client-id = \"i\", client-secret = \"s\"";
    for (value, subject) in [
        ("true".to_owned(), ""),
        ("\"x\"".to_owned(), ""),
        (format!("{{ {rest} }}"), ""),
        (
            format!("{{ {url}, issuer = \"https://127.0.0.1\", {rest} }}"),
            "",
        ),
        (format!("{{ {url}, client-secret = \"s\" }}"), ""),
        (format!("{{ {url}, client-id = \"i\" }}"), ""),
        (format!("{{ {url}, {rest}, private-key = \"k\" }}"), ""),
        (format!("{{ {url}, {rest}, bogus = 1 }}"), ".bogus"),
        (
            format!("{{ {url}, {rest}, auth-method = \"tls\" }}"),
            ".auth-method",
        ),
        (
            format!("{{ {url}, {rest}, auth-method = \"private-key-jwt\" }}"),
            "",
        ),
        (format!("{{ {url}, {rest}, scope = 5 }}"), ".scope"),
        (
            format!("{{ {url}, client-id = 5, client-secret = \"s\" }}"),
            ".client-id",
        ),
        (
            format!("{{ {url}, client-id = \"i\", client-secret = 5 }}"),
            ".client-secret",
        ),
        (
            format!("{{ {url}, client-id = \"i\", private-key = \"no key\" }}"),
            ".private-key",
        ),
        (
            format!("{{ token-url = \"ftp://x/\", {rest} }}"),
            ".token-url",
        ),
        (
            format!("{{ token-url = \"https://u:p@x/\", {rest} }}"),
            ".token-url",
        ),
        (format!("{{ token-url = 5, {rest} }}"), ".token-url"),
        (format!("{{ issuer = \"nowhere\", {rest} }}"), ".issuer"),
    ] {
        let config = format!("[socketmap.t]\ntarget = \"http://127.0.0.1/\"\noauth2 = {value}\n");
        println!("{config}");
        refused(config, &[&format!("socketmap.t.oauth2{subject}")]).await;
    }
    for other in [
        "bearer-token = \"b\"",
        "basic-auth = { user = \"u\", password = \"p\" }",
    ] {
        let config = format!(
            "[socketmap.t]\ntarget = \"http://127.0.0.1/\"\n{other}\n\
             oauth2 = {{ {url}, {rest} }}\n"
        );
        println!("{config}");
        refused(config, &["socketmap.t."]).await;
    }
}
