//! Client authentication (RFC 6749, section 2.3.1; RFC 7523, section 2.2).

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jsonwebtoken::{Algorithm, DecodingKey};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};

use super::{ID, SECRET, assertion, endpoint, form, oauth, pairs, taking, token, with_key};
use crate::{
    servers::certificates::write,
    support::{
        backend::{Backend, dunno},
        program::{ALL, Binary, Launch},
        replies::DUNNO,
        same,
        tables::{expect, expect_of, table},
    },
};

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
    // Headers for the backend must not reach the token endpoint.
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
