//! Proxies, from the configuration and from the environment.

use crate::{
    servers::{
        certificates::{Validity, authority},
        tunnel::Tunnel,
        web::{Answer, Web},
    },
    support::{
        backend::{Backend, dunno, status},
        peer::netstring,
        program::{ALL, Binary, Launch, Reserved},
        replies::{DUNNO, UNREACHABLE},
        same,
        tables::{ask, expect, expect_of, serve, table},
    },
};

#[tokio::test]
async fn a_proxy_is_asked_in_absolute_form() {
    for binary in ALL {
        let proxy = Backend::always(dunno());
        let keys = format!(
            "proxy = \"{}\"\nbearer-token = \"a-token\"\n",
            proxy.url("")
        );
        // Nobody but the proxy could find this host.
        let target = "http://backend.invalid:8080/ask";
        expect(binary, table(binary, target, &keys), DUNNO).await;
        let request = proxy.only();
        let expected = match binary {
            Binary::TcpLookup => "http://backend.invalid:8080/ask?key=key",
            Binary::Socketmap => "http://backend.invalid:8080/ask?name=t&key=key",
            Binary::Policy => "http://backend.invalid:8080/ask",
        };
        assert_eq!(request.target, expected);
        assert_eq!(request.header("host"), Some("backend.invalid:8080"));
        assert_eq!(request.header("authorization"), Some("Bearer a-token"));
    }
}

#[tokio::test]
async fn the_environment_names_a_proxy_only_when_it_is_asked_to() {
    for (keys, is_asked) in [
        ("proxy = \"environment\"", true),
        ("proxy = false", false),
        ("", false),
    ] {
        let binary = Binary::Socketmap;
        for name in ["HTTP_PROXY", "http_proxy"] {
            let proxy = Backend::always(dunno());
            let backend = Backend::always(dunno());
            let launch = Launch::new(binary)
                .config(table(binary, &backend.url("/"), keys))
                .environment(name, proxy.url(""));
            expect_of(launch, binary, DUNNO).await;
            let calls = (proxy.count(), backend.count());
            let expected = if is_asked { (1, 0) } else { (0, 1) };
            assert_eq!(calls, expected, "{binary:?} {keys:?} {name}");
        }
    }
}

#[tokio::test]
async fn the_environment_may_exempt_a_host_from_its_proxy() {
    let binary = Binary::Socketmap;
    let proxy = Backend::always(dunno());
    let backend = Backend::always(dunno());
    let launch = Launch::new(binary)
        .config(table(binary, &backend.url("/"), "proxy = \"environment\""))
        .environment("HTTP_PROXY", proxy.url(""))
        .environment("NO_PROXY", "127.0.0.1");
    expect_of(launch, binary, DUNNO).await;
    assert_eq!((proxy.count(), backend.count()), (0, 1));
}

#[tokio::test]
async fn a_proxy_of_the_configuration_is_used_whatever_the_environment_says() {
    let binary = Binary::Socketmap;
    let [proxy, other, backend] = [(); 3].map(|()| Backend::always(dunno()));
    let keys = format!("proxy = \"{}\"", proxy.url(""));
    let launch = Launch::new(binary)
        .config(table(binary, &backend.url("/"), &keys))
        .environment("HTTP_PROXY", other.url(""))
        .environment("NO_PROXY", "*");
    expect_of(launch, binary, DUNNO).await;
    let calls = (proxy.count(), other.count(), backend.count());
    assert_eq!(calls, (1, 0, 0));
}

#[tokio::test]
async fn without_a_proxy_in_it_the_environment_changes_nothing() {
    let backend = Backend::always(dunno());
    let config = table(
        Binary::Socketmap,
        &backend.url("/"),
        "proxy = \"environment\"",
    );
    expect(Binary::Socketmap, config, DUNNO).await;
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn an_inherited_proxy_is_taken_back() {
    let proxy = Backend::always(dunno());
    let backend = Backend::always(dunno());
    let config = format!(
        "[http]\nproxy = \"{}\"\n{}",
        proxy.url(""),
        table(Binary::Socketmap, &backend.url("/"), "proxy = false")
    );
    expect(Binary::Socketmap, config, DUNNO).await;
    assert_eq!((proxy.count(), backend.count()), (0, 1));
}

#[tokio::test]
async fn a_dead_proxy_is_unreachable() {
    let binary = Binary::Socketmap;
    let backend = Backend::always(dunno());
    let gone = Reserved::new();
    let keys = format!("proxy = \"http://{}\"", gone.address());
    for target in [backend.url("/"), "https://backend.invalid/".to_owned()] {
        expect(binary, table(binary, &target, &keys), UNREACHABLE).await;
    }
    assert_eq!(backend.count(), 0, "{binary:?}");
}

#[tokio::test]
async fn what_a_proxy_answers_itself_is_an_answer() {
    for (number, expected_reply) in [
        (502, "TEMP backend answered 502"),
        (407, "TEMP backend answered 407"),
    ] {
        let proxy = Backend::always(status(number));
        let keys = format!("proxy = \"{}\"", proxy.url(""));
        let config = table(Binary::Socketmap, "http://backend.invalid/", &keys);
        let program = serve(Binary::Socketmap, config).await;
        let reply = ask(&program, Binary::Socketmap, "key").await;
        same("the proxy's", &reply, &netstring(expected_reply));
        assert_eq!(proxy.count(), 1);
    }
}

#[tokio::test]
async fn https_goes_through_a_proxy_by_connect_and_nothing_is_shown_to_it() {
    let (authority, _directory, ca) = authority();
    let identity = authority.server_named("backend.invalid", Validity::Now);
    for offered in [&["h2", "http/1.1"][..], &[]] {
        let binary = Binary::Socketmap;
        let tls = identity.tls().offering(offered).config();
        let server = Web::secure(tls, |_| Answer::dunno());
        let proxy = Tunnel::to(server.address());
        let keys = format!(
            "{ca}proxy = \"{}\"\nbearer-token = \"a-token\"\nheaders = {{ X-Own = \"own\" }}\n",
            proxy.url()
        );
        let config = table(binary, "https://backend.invalid:8443/ask", &keys);
        expect(binary, config, DUNNO).await;
        let visit = server.only();
        assert_eq!(visit.header("authorization"), Some("Bearer a-token"));
        let heads = proxy.heads();
        assert_eq!(heads.len(), 1, "{heads:?}");
        let first = "CONNECT backend.invalid:8443 HTTP/1.1\r\n";
        assert!(heads[0].starts_with(first), "{heads:?}");
        for hidden in ["a-token", "/ask", "own"] {
            assert!(!heads[0].contains(hidden), "{heads:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_is_checked_through_a_proxy_too() {
    let (authority, _directory, ca) = authority();
    let identity = authority.server_named("other.example", Validity::Now);
    let binary = Binary::Socketmap;
    let server = Web::secure(identity.tls().config(), |_| Answer::dunno());
    let proxy = Tunnel::to(server.address());
    let keys = format!("{ca}proxy = \"{}\"\n", proxy.url());
    let config = table(binary, "https://backend.invalid/", &keys);
    expect(binary, config, UNREACHABLE).await;
    server.refusals(1).await;
    assert_eq!(server.count(), 0, "{binary:?}");
}

#[tokio::test]
async fn the_environment_names_a_proxy_for_https() {
    let (authority, _directory, ca) = authority();
    let identity = authority.server_named("backend.invalid", Validity::Now);
    let server = Web::secure(identity.tls().config(), |_| Answer::dunno());
    let proxy = Tunnel::to(server.address());
    let binary = Binary::Socketmap;
    let keys = format!("{ca}proxy = \"environment\"\n");
    let launch = Launch::new(binary)
        .config(table(binary, "https://backend.invalid/", &keys))
        .environment("HTTPS_PROXY", proxy.url());
    expect_of(launch, binary, DUNNO).await;
    assert_eq!((proxy.heads().len(), server.count()), (1, 1));
}

#[tokio::test]
async fn a_proxy_that_refuses_to_connect_makes_the_backend_unreachable() {
    for number in [403, 407, 502] {
        let binary = Binary::Socketmap;
        let proxy = Backend::always(status(number));
        let keys = format!("proxy = \"{}\"", proxy.url(""));
        let config = table(binary, "https://backend.invalid/", &keys);
        expect(binary, config, UNREACHABLE).await;
        let methods = proxy.requests().into_iter().map(|request| request.method);
        assert!(methods.into_iter().all(|method| method == "CONNECT"));
        assert!(proxy.count() > 0, "{binary:?}");
    }
}
