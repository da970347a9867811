//! The pages on sockets named `metrics`, and the documents about their contents.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{
    backend::{Backend, good, response, status},
    peer::question,
    program::{ALL, Binary, Launch, Program, Reserved},
};

/// Fetches a page; its status line, its headers and its text.
pub(crate) async fn page(program: &Program, target: &str) -> (String, String) {
    let mut peer = program.peer_at(1).await;
    peer.send(format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ))
    .await;
    let answer = String::from_utf8(peer.everything().await).expect("text");
    let (head, text) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), text.to_owned())
}

async fn serve(binary: Binary, url: &str, keys: &str) -> Program {
    let name = binary.name();
    let config = format!("[{name}.t]\ntarget = \"{url}\"\n{keys}\n");
    with_config(binary, config).await
}

async fn with_config(binary: Binary, config: String) -> Program {
    Launch::new(binary)
        .config(config)
        .tcp4("t")
        .tcp4("metrics")
        .ready()
        .await
}

pub(crate) fn value(page: &str, sample: &str) -> f64 {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no {sample} in\n{page}"));
    line.parse().expect("a number")
}

#[tokio::test]
async fn requests_and_calls_are_counted_by_what_they_ended_in() {
    for binary in ALL {
        let name = binary.name();
        let backend = Backend::in_turn([good(binary, "DUNNO"), status(503), status(503)]);
        let program = serve(binary, &backend.url("/"), "").await;
        let mut peer = program.peer().await;
        for _ in 0..3 {
            peer.ask(question(binary, "t", "secret-key@example.org"))
                .await;
        }
        let (head, text) = page(&program, "/metrics").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        let of = |metric: &str, label: &str| {
            value(
                &text,
                &format!("postgate_{metric}{{{label},table=\"t\",program=\"{name}\"}}"),
            )
        };
        assert_eq!(of("requests_total", "outcome=\"found\""), 1.0);
        assert_eq!(of("requests_total", "outcome=\"temporary\""), 2.0);
        // A counter stands at 0 before its first event, so that the first one can be seen.
        assert_eq!(of("requests_total", "outcome=\"permanent\""), 0.0);
        let stray = format!(
            "postgate_requests_total{{outcome=\"permanent\",table=\"-\",program=\"{name}\"}}"
        );
        assert_eq!(value(&text, &stray), 0.0);
        assert_eq!(
            of("request_duration_seconds_count", "outcome=\"found\""),
            1.0
        );
        assert_eq!(of("backend_calls_total", "status=\"2xx\""), 1.0);
        assert_eq!(of("backend_calls_total", "status=\"5xx\""), 2.0);
        let alone = format!("{{program=\"{name}\"}}");
        assert_eq!(value(&text, &format!("postgate_connections{alone}")), 1.0);
        assert_eq!(
            value(
                &text,
                &format!("postgate_connections_accepted_total{alone}")
            ),
            1.0
        );
        assert!(!text.contains("secret-key"), "{text}");
    }
}

#[tokio::test]
async fn a_target_that_is_down_can_be_seen() {
    let backend = Backend::always(status(503));
    let keys = "breaker = { failures = 1, pause = \"1h\" }";
    let program = serve(Binary::Socketmap, &backend.url("/secret?path={key}"), keys).await;
    let target = backend.url("");
    let target = target.trim_end_matches('/');
    let (_, text) = page(&program, "/ready?backends").await;
    assert_eq!(text, format!("ready\nt {target} up\n"));
    let mut peer = program.peer().await;
    peer.ask(question(Binary::Socketmap, "t", "k")).await;
    let (_, text) = page(&program, "/ready?backends").await;
    assert_eq!(text, format!("ready\nt {target} down\n"));
    let (_, text) = page(&program, "/metrics").await;
    let sample =
        format!("postgate_target_up{{table=\"t\",target=\"{target}\",program=\"socketmap\"}}");
    assert_eq!(value(&text, &sample), 0.0);
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(page(&program, "/ready").await.1, "ready\n");
}

#[tokio::test]
async fn a_target_that_another_stands_in_for_is_down_and_the_table_ready() {
    let dead = Reserved::new();
    let backend = Backend::always(good(Binary::Socketmap, "v"));
    let origin = format!("http://{}", dead.address());
    let config = format!(
        "[socketmap.t]\ntarget = [\"{origin}\", \"{}\"]\nbreaker = false\n",
        backend.url("/")
    );
    let program = with_config(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    peer.ask(question(Binary::Socketmap, "t", "k")).await;
    let (head, text) = page(&program, "/ready?backends").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let second = backend.url("");
    assert_eq!(text, format!("ready\nt {origin} down\nt {second} up\n"));
    let (_, text) = page(&program, "/metrics").await;
    let sample =
        format!("postgate_target_up{{table=\"t\",target=\"{origin}\",program=\"socketmap\"}}");
    assert_eq!(value(&text, &sample), 0.0);
    let (_, text) = page(&program, "/").await;
    let concern = format!("</a>: targets down: {origin} (1 of 2)</li>");
    assert!(text.contains(&concern), "{text}");
    assert!(!text.contains("All is well"), "{text}");
}

#[tokio::test]
async fn the_page_names_each_target_without_a_connection() {
    let dead = [Reserved::new(), Reserved::new()];
    let origins = dead
        .each_ref()
        .map(|dead| format!("http://{}", dead.address()));
    let config = format!("[socketmap.t]\ntarget = {origins:?}\nbreaker = false\n");
    let program = with_config(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    peer.ask(question(Binary::Socketmap, "t", "k")).await;
    let (_, text) = page(&program, "/").await;
    let concern = format!("</a>: targets down: {} (2 of 2)</li>", origins.join(", "));
    assert!(text.contains(&concern), "{text}");
}

#[tokio::test]
async fn two_targets_in_one_place_are_told_apart() {
    let backend = Backend::new(|request| match request.target.as_str() {
        "/secret-one?key=k" => status(503),
        _ => good(Binary::Socketmap, "v"),
    });
    let [one, two] = ["/secret-one", "/secret-two"].map(|path| backend.url(path));
    let config = format!(
        "[socketmap.t]\ntarget = [\"{one}\", \"{two}\"]\nquery = {{ key = \"{{key}}\" }}\n\
         breaker = {{ failures = 1, pause = \"1h\" }}\n"
    );
    let program = with_config(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    peer.ask(question(Binary::Socketmap, "t", "k")).await;
    let place = one.trim_end_matches("/secret-one");
    let (_, text) = page(&program, "/ready?backends").await;
    assert_eq!(text, format!("ready\nt {place} #1 down\nt {place} #2 up\n"));
    let (_, text) = page(&program, "/metrics").await;
    for (number, up) in [(1, 0.0), (2, 1.0)] {
        let sample = format!(
            "postgate_target_up{{table=\"t\",target=\"{place} #{number}\",program=\"socketmap\"}}"
        );
        assert_eq!(value(&text, &sample), up);
    }
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_cache_is_seen_at_work() {
    let backend = Backend::always(good(Binary::TcpLookup, "v"));
    let program = serve(Binary::TcpLookup, &backend.url("/"), "cache = {}").await;
    let mut peer = program.peer().await;
    for key in ["a", "a", "b", "a"] {
        peer.ask(question(Binary::TcpLookup, "t", key)).await;
    }
    let (_, text) = page(&program, "/metrics").await;
    let of = |metric: &str, label: &str| {
        value(
            &text,
            &format!("postgate_{metric}{{{label}table=\"t\",program=\"tcp-lookup\"}}"),
        )
    };
    assert_eq!(of("cache_entries", ""), 2.0);
    assert_eq!(of("cache_answers_total", "kind=\"hit\","), 2.0);
    assert_eq!(of("cache_answers_total", "kind=\"miss\","), 2.0);
    assert_eq!(of("cache_answers_total", "kind=\"stale\","), 0.0);
}

#[tokio::test]
async fn the_page_has_nothing_but_what_it_has() {
    let backend = Backend::always(response(200, &[], "x"));
    let program = serve(Binary::Policy, &backend.url("/"), "").await;
    assert_eq!(page(&program, "/health").await.1, "alive\n");
    let (head, _) = page(&program, "/nothing").await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let mut peer = program.peer_at(1).await;
    peer.send(
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )
    .await;
    let answer = String::from_utf8(peer.everything().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn who_has_asked_for_a_page_and_ends_its_side_gets_it() {
    let program = serve(Binary::Socketmap, "http://127.0.0.1:1/", "").await;
    let mut peer = program.peer_at(1).await;
    peer.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    peer.finish().await;
    let answer = String::from_utf8(peer.everything().await).expect("text");
    assert!(answer.ends_with("\r\n\r\nalive\n"), "{answer}");
}

#[tokio::test]
async fn a_program_with_nothing_but_metrics_has_nothing_to_serve() {
    let backend = Backend::always(status(200));
    let end = Launch::new(Binary::Socketmap)
        .config(format!(
            "[socketmap.t]\ntarget = \"{}\"\n",
            backend.url("/")
        ))
        .tcp4("metrics")
        .end()
        .await;
    end.status(69)
        .says("only a metrics socket; start a .socket unit");
}

/// Every name that begins as ours do.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices("postgate_")
        .map(|(at, _)| {
            text[at..]
                .split(|c| !is_part(c))
                .next()
                .expect("a name")
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn dashboard_and_alerts_name_what_there_is() {
    let mut there = BTreeSet::new();
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let keys = match binary {
            Binary::Policy => "cache = { by = [\"recipient\"] }",
            Binary::TcpLookup | Binary::Socketmap => "cache = {}",
        };
        let program = serve(binary, &backend.url("/"), keys).await;
        program.peer().await.ask(question(binary, "t", "k")).await;
        there.extend(names(&page(&program, "/metrics").await.1));
    }
    // Those of limits are there where a table has limits.
    let config = "[store]\npath = \"/nowhere/limits.sqlite\"\n[[policy.t.limits]]\nname = \"l\"\n\
                  by = \"{sasl_username}\"\nrates = { \"1h\" = 1 }\n";
    let program = with_config(Binary::Policy, config.to_owned()).await;
    there.extend(names(&page(&program, "/metrics").await.1));
    let mut named = BTreeSet::new();
    for paper in ["dashboard.json", "alerts.yml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("docs/monitoring")
            .join(paper);
        let text = std::fs::read_to_string(path).expect("the paper");
        if paper.ends_with("json") {
            serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        }
        let names = names(&text);
        assert!(names.len() > 3, "{paper} names only {names:?}");
        assert!(
            names.is_subset(&there),
            "{paper}: {:?}",
            names.difference(&there)
        );
        named.extend(names);
    }
    // And every metric is of use to somebody.
    let base = |name: &String| {
        let ends = ["_bucket", "_count", "_sum"];
        let end = ends.iter().find_map(|end| name.strip_suffix(end));
        end.unwrap_or(name).to_owned()
    };
    let named: BTreeSet<_> = named.iter().map(base).collect();
    let unused: Vec<_> = there
        .iter()
        .map(base)
        .filter(|name| !named.contains(name))
        .collect();
    assert!(unused.is_empty(), "on no panel: {unused:?}");
}
