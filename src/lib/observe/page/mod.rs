//! The page for people: what the program does at this moment, and what it did in the last hour.
//!
//! Its figures are those of the metrics. Like them, it holds names from the configuration, the
//! origins of targets and words of this crate, and nothing of a request.

mod card;
mod curve;
mod figures;
mod html;

use std::sync::LazyLock;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;

use self::card::Card;
use self::figures::{Now, counted, number, time};
use self::html::Html;
use super::history::History;
use super::log::NO_TABLE;
use super::metrics::Metrics;
use super::state::Snapshot;

const STYLE: &str = include_str!("style.css");

/// The policy of the page: it loads and runs nothing, and its style is the one of this program. The
/// icon of the page is in the page itself, so that a browser asks for no other.
pub static CONTENT_SECURITY_POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    )
});

/// Returns the page of this moment. It renews itself unless it is to stay.
pub fn page(metrics: &Metrics, history: &History, snapshot: &Snapshot, stays: bool) -> Vec<u8> {
    let now = Now {
        wall: SystemTime::now(),
        instant: Instant::now(),
    };
    let cards = cards(metrics, history, snapshot);
    let concerns = concerns(snapshot, &cards);
    let mut html = Html::default();
    head(&mut html, metrics, !concerns.is_empty(), stays);
    facts(&mut html, metrics, history, snapshot, now);
    state(&mut html, &concerns);
    html.raw("<main>\n");
    for (number, card) in cards.iter().enumerate() {
        card.write(&mut html, number, now);
    }
    html.raw("</main>\n");
    foot(&mut html, now, stays);
    html.into_bytes()
}

/// Returns the tables by name, and at the end what reached none.
fn cards<'p>(metrics: &'p Metrics, history: &History, snapshot: &'p Snapshot) -> Vec<Card<'p>> {
    let mut states: Vec<_> = snapshot.tables.iter().collect();
    states.sort_unstable_by_key(|state| &state.table);
    let has_own = states.iter().any(|state| state.table == NO_TABLE);
    let mut cards: Vec<_> = states
        .into_iter()
        .map(|state| Card::new(metrics.meter(&state.table), Some(state), history))
        .collect();
    if !has_own {
        let card = Card::new(metrics.meter(NO_TABLE), None, history);
        cards.extend(Some(card).filter(Card::is_used));
    }
    cards
}

/// What is wrong at this moment.
struct Concern {
    /// The number of its table, if it is one of a table.
    table: Option<usize>,
    name: String,
    text: String,
}

fn concerns(snapshot: &Snapshot, cards: &[Card<'_>]) -> Vec<Concern> {
    let store = (snapshot.store == Some(false)).then(|| Concern {
        table: None,
        name: "store".to_owned(),
        text: "down, so limits are counted in the memory of this host".to_owned(),
    });
    let of_tables = cards.iter().enumerate().flat_map(|(number, card)| {
        card.concerns().into_iter().map(move |text| Concern {
            table: Some(number),
            name: card.name().to_owned(),
            text,
        })
    });
    store.into_iter().chain(of_tables).collect()
}

fn head(html: &mut Html, metrics: &Metrics, is_bad: bool, stays: bool) {
    let program = metrics.program.name;
    html.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>");
    html.raw(if is_bad { "(!) " } else { "" });
    html.text(program).raw(" \u{2013} Postgate</title>\n");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\">\n");
    if !stays {
        html.raw("<meta http-equiv=\"refresh\" content=\"10\">\n");
    }
    html.raw(
        "<link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg%20xmlns='http://www.w3.org/2000/svg'",
    );
    html.raw("%20viewBox='0%200%208%208'%3E%3Ccircle%20cx='4'%20cy='4'%20r='4'%20fill='");
    html.raw(if is_bad { "%23b3261e" } else { "%2312683a" });
    html.raw("'/%3E%3C/svg%3E\">\n<style>").raw(STYLE);
    html.raw("</style>\n</head>\n<body>\n<h1>").text(program);
    html.raw(" <span>Postgate</span></h1>\n");
}

/// Adds what is known of the program as a whole.
fn facts(html: &mut Html, metrics: &Metrics, history: &History, snapshot: &Snapshot, now: Now) {
    html.raw("<div class=\"facts\">\n<dl><dt>Version</dt><dd>");
    html.text(env!("CARGO_PKG_VERSION"));
    html.raw("</dd></dl>\n<dl><dt>Running since</dt><dd>");
    now.moment(html, history.started);
    html.raw("</dd></dl>\n<dl><dt>Connections</dt><dd>");
    html.text(&number(snapshot.connections as u64)).raw(" open");
    html.raw(" <small>(")
        .text(&number(metrics.connections_accepted.get()));
    html.raw(" accepted, ")
        .text(&number(metrics.connections_evicted.get()));
    html.raw(" evicted)</small></dd></dl>\n<dl><dt>Configuration read</dt><dd>");
    now.wall_moment(html, metrics.reloaded_at());
    let refused = metrics.reloads_refused();
    if refused > 0 {
        let refused = counted(refused, "reload", "reloads");
        html.raw("<br>")
            .text(&refused)
            .raw(" refused since the start");
    }
    html.raw("</dd></dl>\n");
    if let Some(is_up) = snapshot.store {
        html.raw("<dl><dt>Store of limits</dt><dd>");
        html.raw(match is_up {
            true => "<span class=\"up\">up</span>",
            false => "<span class=\"down\">down</span>",
        });
        html.raw("</dd></dl>\n");
    }
    html.raw("</div>\n");
}

fn state(html: &mut Html, concerns: &[Concern]) {
    if concerns.is_empty() {
        html.raw(
            "<p class=\"state good\"><strong>All is well.</strong> No target is down, and in ",
        );
        html.raw("the last minute no request has failed and no limit was reached.</p>\n");
        return;
    }
    html.raw("<section class=\"state bad\">\n<h2>Needs attention</h2>\n<ul>\n");
    for concern in concerns {
        html.raw("<li>");
        if let Some(table) = concern.table {
            html.raw("<a href=\"#table-")
                .text(&table.to_string())
                .raw("\"><bdi>");
            html.text(&concern.name).raw("</bdi></a>");
        } else {
            html.text(&concern.name);
        }
        html.raw(": ").text(&concern.text).raw("</li>\n");
    }
    html.raw("</ul>\n</section>\n");
}

fn foot(html: &mut Html, now: Now, stays: bool) {
    html.raw("<footer>\n<p>As of ");
    time(html, now.wall);
    html.raw(match stays {
        false => "; this page renews itself every 10 s (<a href=\"/?stay\">stop</a>).",
        true => "; this page stays as it is (<a href=\"/\">renew</a>).",
    });
    html.raw(
        " The last minute is the last 60 to 70 seconds, the last hour the last 59 to 60 minutes.",
    );
    html.raw(" The figures since the start are those of <a href=\"/metrics\">/metrics</a>.</p>\n");
    html.raw("</footer>\n</body>\n</html>\n");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::state::{CacheState, State, TargetState};
    use crate::outcome::{Outcome, Reason};
    use crate::protocol::Protocol as _;
    use crate::protocol::socketmap::Socketmap;

    #[test]
    fn it_says_what_is_wrong_and_what_was() {
        let metrics = Metrics::new(Socketmap::FACTS).unwrap();
        let (history, meter) = (History::default(), metrics.meter("users"));
        let target = |name: &str, down_since| TargetState {
            name: name.to_owned(),
            down_since,
        };
        let mut snapshot = Snapshot {
            connections: 1_234,
            store: Some(true),
            tables: vec![State {
                table: "users".to_owned(),
                in_flight: 3,
                cache: Some(CacheState {
                    entries: 1,
                    hits: 199,
                    misses: 1,
                    ..CacheState::default()
                }),
                targets: vec![target("https://a", None), target("https://b", None)],
                limits: vec!["l".to_owned()],
            }],
        };
        let text = |snapshot: &Snapshot| {
            String::from_utf8(page(&metrics, &history, snapshot, true)).unwrap()
        };
        let well = text(&snapshot);
        let has = |text: &str, parts: &[&str]| {
            for part in parts {
                assert!(text.contains(part), "no {part} in\n{text}");
            }
        };
        let first = [
            "<title>socketmap",
            "All is well.",
            "1,234 open",
            "1 answer; 99 % of requests",
            "<dt>Calls under way</dt><dd>3<",
            "https://a</bdi> <span class=\"up\">up<",
            "<td>\u{2013}</td>",
            "no request</span>",
            "<dd>none</dd>",
        ];
        has(&well, &first);
        assert!(!well.contains("<path"), "{well}");

        meter.request(&Outcome::Found("v".to_owned()), Duration::from_millis(2));
        (0..7).for_each(|_| history.tick(&metrics));
        let failure = Outcome::Permanent(Reason::Answered(418).into());
        meter.request(&failure, Duration::from_secs(60));
        metrics.limit_meter("users", "l").exceeded.inc();
        snapshot.store = Some(false);
        snapshot.tables[0].targets[1].down_since = Some(Instant::now());
        let then = [
            "<title>(!) socketmap",
            "<li>store: down, so",
            "users</bdi></a>: targets down: https://b (1 of 2)</li>",
            "users</bdi></a>: 1 of 1 request failed in the last minute, last: backend answered 418<",
            "users</bdi></a>: limit \u{201c}l\u{201d} reached 1 time in the last minute<",
            "<tr class=\"sum\"><th scope=\"row\">all</th><td>1</td><td>2</td><td>2</td></tr>",
            "p50</th><td>over 30 s</td>",
            "<td class=\"down\">1</td>",
            "<span class=\"down\">1 of 2 down</span>",
            "https://b</bdi> <span class=\"down\">down since</span> <time datetime=\"20",
            "<bdi>l</bdi> reached</th><td>1</td><td>1</td><td>1</td>",
            "<dd>backend answered 418, <time",
            "<path class=\"all\" d=\"M232 48h3v-48h-3zM236 48h3v-48h-3z\"/>",
            "<path class=\"failed\" d=\"M236 48h3v-48h-3z\"/>",
        ];
        has(&text(&snapshot), &then);
    }
}
