//! The page for people: in a browser, as HTML, and its figures beside those of the metrics.

mod browser;
mod figures;
mod looks;

use crate::client::rcpt;
use crate::metrics::page;
use crate::support::{
    backend::{Backend, dunno, status},
    peer::{Address, Peer, question},
    program::{ALL, Binary, Launch, Program},
};

/// A policy with a table that answers, one whose target is down, and one whose limit is reached.
async fn in_trouble() -> (Program, [Backend; 2]) {
    let backends = [Backend::always(dunno()), Backend::always(status(503))];
    let [good, bad] = backends
        .each_ref()
        .map(|backend| backend.url("/secret-path"));
    let config = format!(
        "[store]\npath = \"/nowhere/limits.sqlite\"\n\
         [policy.'a<b>&amp;\"name\"-longer-than-any-that-a-person-would-give-to-a-table']\n\
         target = \"{good}\"\nsocket = \"good\"\ncache = {{ by = [\"recipient\"] }}\n\
         [policy.broken]\ntarget = \"{bad}\"\nbreaker = {{ failures = 1, pause = \"1h\" }}\n\
         [[policy.counted.limits]]\nname = \"per-login\"\nby = \"{{sasl_username}}\"\n\
         rates = {{ \"1h\" = 1 }}\n"
    );
    let program = Launch::new(Binary::Policy)
        .config(config)
        .tcp4("good")
        .tcp4("metrics")
        .tcp4("broken")
        .tcp4("counted")
        .ready()
        .await;
    for at in [0, 2, 3] {
        let mut peer = program.peer_at(at).await;
        for instance in ["1", "2"] {
            let asked = [("instance", instance), ("sasl_username", "hidden-account")];
            let reply = peer.ask(rcpt(&asked)).await;
            assert!(!reply.is_empty());
        }
    }
    (program, backends)
}

fn url(program: &Program, path: &str) -> String {
    let Address::Tcp(address) = program.address(1) else {
        panic!("no TCP");
    };
    format!("http://{address}{path}")
}

#[tokio::test]
async fn every_program_has_the_page() {
    for binary in ALL {
        let backend = Backend::always(dunno());
        let config = format!("[{}.t]\ntarget = \"{}\"\n", binary.name(), backend.url("/"));
        let program = Launch::new(binary)
            .config(config)
            .tcp4("t")
            .tcp4("metrics")
            .ready()
            .await;
        is_served(&program, binary.name()).await;
        assert_eq!(backend.count(), 0);
    }
    let dict = "[dict.t]\ntarget = \"http://127.0.0.1:1/\"\n";
    let sasl = "[sasl.t]\ntarget = \"http://127.0.0.1:1/\"\n";
    for (launch, config, name) in [
        (Launch::dict(), dict, "dict"),
        (Launch::sasl(), sasl, "sasl"),
    ] {
        let program = launch
            .config(config)
            .tcp4("t")
            .tcp4("metrics")
            .ready()
            .await;
        is_served(&program, name).await;
    }
}

async fn is_served(program: &Program, name: &str) {
    let (head, text) = page(program, "/").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for header in [
        "content-type: text/html; charset=utf-8",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ] {
        assert!(head.contains(header), "no {header} in {head}");
    }
    assert!(
        text.contains(&format!("<title>{name} \u{2013} Postgate</title>")),
        "{text}"
    );
    assert!(text.contains("<bdi>t</bdi></h2>"), "{text}");
    assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
}

/// A program that nobody has asked yet.
async fn unasked() -> Program {
    let launch = Launch::new(Binary::Socketmap)
        .config("[socketmap.t]\ntarget = \"http://127.0.0.1:1/\"\n")
        .tcp4("t")
        .tcp4("metrics");
    launch.ready().await
}

#[tokio::test]
async fn only_the_head_of_the_page_is_sent_where_only_that_is_asked_for() {
    let program = unasked().await;
    let mut peer: Peer = program.peer_at(1).await;
    peer.send("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    let answer = String::from_utf8(peer.everything().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn nothing_of_a_request_and_no_path_is_on_the_page() {
    let (program, _backends) = in_trouble().await;
    let (_, text) = page(&program, "/").await;
    let (_, text) = text.split_once("</style>").expect("a style");
    for hidden in ["hidden-account", "secret-path", "@", "<b>"] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    assert!(
        text.contains("a&lt;b&gt;&amp;amp;&quot;name&quot;-longer"),
        "{text}"
    );
}

#[tokio::test]
async fn what_reached_no_table_has_a_place() {
    let program = unasked().await;
    assert!(!page(&program, "/").await.1.contains("(no table)"));
    program
        .peer()
        .await
        .ask(question(Binary::Socketmap, "other", "k"))
        .await;
    let (_, text) = page(&program, "/").await;
    assert!(text.contains("<bdi>(no table)</bdi></h2>"), "{text}");
    assert!(
        text.contains("1 of 1 request failed in the last minute, last: unknown map"),
        "{text}"
    );
}
