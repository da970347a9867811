//! Redirects, which are followed on the same origin at most.

use super::listed;
use crate::{
    servers::{
        certificates::authority,
        web::{Answer, Web},
    },
    support::{
        backend::{Backend, Request, Script, dunno, response},
        peer::{framed, netstring},
        program::{ALL, Binary, LOOKUPS, Reserved},
        replies::{BROKEN, DUNNO},
        same,
        tables::{ask, expect, serve, table},
    },
};

/// Answers `/ask` with a redirect and everything else well.
fn redirecting(status: u16, location: String) -> impl FnMut(&Request) -> Script + Send + 'static {
    move |request| match request.target.starts_with("/ask") {
        true => response(status, &[("Location", &location)], "\"REJECT\""),
        false => dunno(),
    }
}

fn redirected(status: u16) -> String {
    format!("PERM backend answered {status}")
}

const SECRETS: &str = "auth-token = \"a-token\"\nbasic-auth = { user = \"u\", password = \"p\" }\n\
                       headers = { X-Own = \"own\" }\n";

#[tokio::test]
async fn a_redirect_is_not_followed_unless_the_operator_says_so() {
    for keys in ["", "redirects = false"] {
        let backend = Backend::new(redirecting(302, "/there".to_owned()));
        let config = table(Binary::Socketmap, &backend.url("/ask"), keys);
        let program = serve(Binary::Socketmap, config).await;
        let reply = ask(&program, Binary::Socketmap, "key").await;
        same("default", &reply, &netstring("PERM backend answered 302"));
        assert_eq!(backend.count(), 1);
        let end = program.stop().await;
        let line = end
            .stderr
            .lines()
            .find(|line| line.contains("answered 302"));
        let line = line.expect("a warning");
        assert!(
            line.contains("t: backend answered 302: to http://127.0.0.1:"),
            "{line}"
        );
        assert!(
            line.contains(", another path, not followed: redirects = false"),
            "{line}"
        );

        let backend = Backend::new(redirecting(307, "/there".to_owned()));
        let config = table(Binary::Policy, &backend.url("/ask"), keys);
        let program = serve(Binary::Policy, config).await;
        let reply = ask(&program, Binary::Policy, "key").await;
        same("default", &reply, &framed(Binary::Policy, BROKEN));
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn lookups_follow_a_redirect_on_the_same_origin() {
    for binary in LOOKUPS {
        for number in [301, 302, 307, 308] {
            let reserved = Reserved::new();
            let address = reserved.address();
            let backend = Backend::at(reserved, redirecting(number, "/there?x=1".to_owned()));
            let keys = format!("{SECRETS}redirects = \"same-origin\"\n");
            let config = table(binary, &format!("http://{address}/ask"), &keys);
            expect(binary, config, DUNNO).await;
            let requests = backend.requests();
            assert_eq!(requests.len(), 2, "{requests:?}");
            assert_eq!(requests[1].method, "GET");
            assert_eq!(requests[1].target, "/there?x=1");
            // It is the same call at another place.
            for name in ["x-auth-token", "authorization", "x-own", "x-request-id"] {
                let sent = requests[0].header(name);
                assert!(sent.is_some(), "{name}");
                assert_eq!(requests[1].header(name), sent, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_location_may_be_written_in_every_way() {
    let binary = Binary::Socketmap;
    for (location, target) in [
        ("/there", "/there"),
        ("there", "/there"),
        ("./there", "/there"),
        ("//ADDRESS/there", "/there"),
        ("http://ADDRESS/there", "/there"),
        ("HTTP://ADDRESS/there", "/there"),
        ("http://ADDRESS", "/"),
        ("/there#part", "/there"),
    ] {
        let reserved = Reserved::new();
        let address = reserved.address();
        let place = location.replace("ADDRESS", &address.to_string());
        let backend = Backend::at(reserved, redirecting(302, place));
        let target_url = format!("http://{address}/ask");
        let config = table(binary, &target_url, "redirects = \"same-origin\"");
        expect(binary, config, DUNNO).await;
        let requests = backend.requests();
        assert_eq!(requests.len(), 2, "{location}: {requests:?}");
        assert_eq!(requests[1].target, target, "{location}");
    }
}

#[tokio::test]
async fn a_redirect_to_another_origin_is_not_followed() {
    let elsewhere = Backend::always(dunno());
    for binary in ALL {
        for number in [301, 302, 303, 307, 308] {
            let reserved = Reserved::new();
            let address = reserved.address();
            let port = address.port();
            let backend = Backend::at(reserved, |_| Script::new());
            let keys = format!("{SECRETS}redirects = \"same-origin\"\n");
            let config = table(binary, &format!("http://{address}/ask"), &keys);
            let program = serve(binary, config).await;
            for location in [
                elsewhere.url("/there"),
                format!("//{}/there", elsewhere.address()),
                format!("http://localhost:{port}/there"),
                format!("http://127.0.0.2:{port}/there"),
                format!("http://127.0.0.1.evil.invalid:{port}/there"),
                format!("https://127.0.0.1:{port}/there"),
                "http://127.0.0.1/there".to_owned(),
                format!("ftp://127.0.0.1:{port}/there"),
                "file:///etc/passwd".to_owned(),
                "data:application/json,%22DUNNO%22".to_owned(),
            ] {
                let asked = backend.count();
                backend.set(response(number, &[("Location", &location)], "\"REJECT\""));
                let reply = ask(&program, binary, "key").await;
                let expected_reply = match binary {
                    Binary::TcpLookup => format!("400 backend%20answered%20{number}"),
                    Binary::Socketmap => redirected(number),
                    Binary::Policy => BROKEN.to_owned(),
                };
                same(&location, &reply, &framed(binary, expected_reply));
                assert_eq!(backend.count(), asked + 1, "{location}");
            }
        }
    }
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_not_followed() {
    let (authority, _directory, ca) = authority();
    let binary = Binary::Socketmap;
    for scheme in ["http", "https"] {
        let reserved = Reserved::new();
        let address = reserved.address();
        let elsewhere = Backend::at(reserved, |_| dunno());
        let location = format!("{scheme}://{address}/there");
        let server = Web::secure(authority.server().tls().config(), move |_| {
            Answer::redirect(302, &location)
        });
        let keys = format!("{ca}{SECRETS}redirects = \"same-origin\"\n");
        let config = table(binary, &server.url("https", "/ask"), &keys);
        let program = serve(binary, config).await;
        let reply = ask(&program, binary, "key").await;
        same(scheme, &reply, &netstring("PERM backend answered 302"));
        assert_eq!((server.count(), elsewhere.count()), (1, 0));
    }
}

#[tokio::test]
async fn a_redirect_over_https_on_the_same_origin_is_followed() {
    let (authority, _directory, ca) = authority();
    for offered in [&["h2"][..], &[]] {
        for binary in ALL {
            let tls = authority.server().tls().offering(offered).config();
            let server = Web::secure(tls, |visit| match visit.target.starts_with("/ask") {
                true => Answer::redirect(307, "/there"),
                false => Answer::dunno(),
            });
            let keys = format!("{ca}redirects = \"same-origin\"\n");
            let config = table(binary, &server.url("https", "/ask"), &keys);
            expect(binary, config, DUNNO).await;
            let visits = server.visits();
            assert_eq!(visits.len(), 2, "{visits:?}");
            assert_eq!(visits[1].target, "/there");
            assert_eq!(visits[1].method, visits[0].method);
            assert_eq!(visits[1].body, visits[0].body);
        }
    }
}

#[tokio::test]
async fn a_chain_of_redirects_ends_where_the_origin_does() {
    let elsewhere = Backend::always(dunno());
    let there = elsewhere.url("/there");
    let backend = Backend::new(move |request| {
        let next = match request.target.split('?').next() {
            Some("/ask") => "/second",
            Some("/second") => "/third",
            _ => there.as_str(),
        };
        response(302, &[("Location", next)], "")
    });
    let keys = format!("{SECRETS}redirects = \"same-origin\"\n");
    let config = table(Binary::Socketmap, &backend.url("/ask"), &keys);
    let program = serve(Binary::Socketmap, config).await;
    let reply = ask(&program, Binary::Socketmap, "key").await;
    same("the chain", &reply, &netstring("PERM backend answered 302"));
    assert_eq!((backend.count(), elsewhere.count()), (3, 0));
}

#[tokio::test]
async fn a_loop_of_redirects_ends() {
    for (binary, number) in [
        (Binary::TcpLookup, 301),
        (Binary::Socketmap, 302),
        (Binary::Policy, 307),
    ] {
        let backend = Backend::always(response(number, &[("Location", "/again")], ""));
        let keys = "redirects = \"same-origin\"\nrequest-timeout = \"90s\"";
        let program = serve(binary, table(binary, &backend.url("/ask"), keys)).await;
        let reply = ask(&program, binary, "key").await;
        let expected_reply = match binary {
            Binary::TcpLookup => "400 backend%20answered%20301",
            Binary::Socketmap => "PERM backend answered 302",
            Binary::Policy => BROKEN,
        };
        same("a loop", &reply, &framed(binary, expected_reply));
        assert!((2..=21).contains(&backend.count()), "{}", backend.count());
    }
}

#[tokio::test]
async fn a_redirect_that_leads_nowhere_is_permanent() {
    let binary = Binary::Socketmap;
    for headers in [
        &[][..],
        &[("Location", "")],
        &[("Location", "http://")],
        &[("Location", "http://[::1")],
        &[("Location", "/\u{e9}")],
    ] {
        let script = response(302, headers, "\"v\"");
        let backend = Backend::new(move |request| match request.target.starts_with("/ask") {
            true => script.clone(),
            false => dunno(),
        });
        let config = table(
            binary,
            &backend.url("/ask?k={key}"),
            "redirects = \"same-origin\"",
        );
        let program = serve(binary, config).await;
        let reply = ask(&program, binary, "key").await;
        let row = format!("{headers:?}");
        same(&row, &reply, &netstring("PERM backend answered 302"));
        // An empty location is the place itself, and so a loop.
        if headers != [("Location", "")] {
            assert_eq!(backend.count(), 1, "{row}");
        }
    }
}

#[tokio::test]
async fn a_location_brings_no_credentials_of_its_own() {
    let reserved = Reserved::new();
    let address = reserved.address();
    let location = format!("http://mallory:secret@{address}/there");
    let backend = Backend::at(reserved, redirecting(302, location));
    let keys = "bearer-token = \"a-token\"\nredirects = \"same-origin\"";
    let config = table(Binary::Socketmap, &format!("http://{address}/ask"), keys);
    let program = serve(Binary::Socketmap, config).await;
    let reply = ask(&program, Binary::Socketmap, "key").await;
    same("refused", &reply, &netstring("PERM backend answered 302"));
    let bearer = Some("Bearer a-token");
    assert_eq!(backend.only().header("authorization"), bearer);
}

#[tokio::test]
async fn a_call_with_a_body_is_redirected_by_307_and_308_only() {
    for binary in ALL {
        let body = match binary {
            Binary::Policy => "",
            _ => "method = \"POST\"\nform = { k = \"{key}\" }\n",
        };
        for number in [301, 302, 303, 307, 308] {
            let backend = Backend::new(redirecting(number, "/there".to_owned()));
            let keys = format!("{body}redirects = \"same-origin\"\n");
            let program = serve(binary, table(binary, &backend.url("/ask"), &keys)).await;
            let reply = ask(&program, binary, "key").await;
            let requests = backend.requests();
            let expected_reply = match binary {
                _ if number >= 307 => {
                    assert_eq!(requests.len(), 2, "{binary:?} {number}");
                    assert_eq!(requests[1].method, "POST");
                    assert_eq!(requests[1].target, "/there");
                    assert_eq!(requests[1].form(), requests[0].form());
                    same("the body", &requests[1].body, &requests[0].body);
                    same("followed", &reply, &DUNNO.by(binary));
                    continue;
                }
                Binary::TcpLookup => format!("400 backend%20answered%20{number}"),
                Binary::Socketmap => redirected(number),
                Binary::Policy => BROKEN.to_owned(),
            };
            same("not followed", &reply, &framed(binary, expected_reply));
            assert_eq!(requests.len(), 1, "{binary:?} {number}");
        }
    }
}

#[tokio::test]
async fn a_redirect_is_no_reason_to_ask_the_next_target() {
    let first = Backend::new(redirecting(302, "http://127.0.0.2:1/".to_owned()));
    let second = Backend::always(dunno());
    let urls = [first.url("/ask"), second.url("/")];
    let binary = Binary::Socketmap;
    let config = listed(binary, &urls, "redirects = \"same-origin\"");
    let program = serve(binary, config).await;
    let reply = ask(&program, binary, "key").await;
    same("refused", &reply, &netstring("PERM backend answered 302"));
    assert_eq!((first.count(), second.count()), (1, 0));
}
