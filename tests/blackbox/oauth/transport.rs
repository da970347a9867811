//! The way to a token endpoint, and the data that must not reach it.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use super::{ID, SECRET, endpoint, form, oauth, pairs, taking, token};
use crate::{
    servers::{
        certificates::{Authority, authority},
        web::{Answer, Web},
    },
    support::{
        backend::{Backend, dunno, response},
        peer::netstring,
        program::{Binary, Launch},
        replies::{DUNNO, NO_CREDENTIALS},
        same,
        tables::{ask, expect, expect_of, serve, table},
    },
};

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
    let binary = Binary::Socketmap;
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
    for (table_tls, own, server, expected_reply) in [
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
        // Neither `verify = false` nor a client certificate reaches the token endpoint.
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
        let end = expect_of(launch, binary, expected_reply).await;
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
    let binary = Binary::Socketmap;
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

#[tokio::test]
async fn a_token_comes_through_the_proxy_of_the_table() {
    let binary = Binary::Socketmap;
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
