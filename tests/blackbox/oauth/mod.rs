//! Tokens of OAuth 2 (RFC 6749, section 4.4), with a token endpoint and a backend of the tests on
//! the loopback.

mod client;
mod failures;
mod issuers;
mod lifetime;
mod tables;
mod transport;

use std::path::Path;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};

use crate::support::{
    backend::{Backend, Request, Script, dunno, json as answer, status},
    program::Reserved,
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
    // A server may refuse an assertion with a long lifetime.
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
