//! The figures of the page beside those of the metrics.

use super::page;
use crate::metrics::value;
use crate::support::{
    backend::{Backend, json, status},
    peer::question,
    program::{Binary, Launch, Program},
};

const OUTCOMES: [&str; 4] = ["found", "not-found", "temporary", "permanent"];

/// The cells of a row, as the page writes them: the last minute, the last hour, since the start.
fn row(page: &str, name: &str) -> [String; 3] {
    let start = format!("<tr><th scope=\"row\">{name}</th>");
    let sum = format!("<tr class=\"sum\"><th scope=\"row\">{name}</th>");
    let (_, rest) = page
        .split_once(&start)
        .or_else(|| page.split_once(&sum))
        .unwrap_or_else(|| panic!("no row {name} in\n{page}"));
    let (cells, _) = rest.split_once("</tr>").expect("an end of the row");
    let cells = cells.split("</td>").filter_map(|cell| cell.split_once('>'));
    let cells: Vec<_> = cells.map(|(_, text)| text.to_owned()).collect();
    cells.try_into().expect("three cells")
}

fn numbers(page: &str, name: &str) -> [u64; 3] {
    row(page, name).map(|text| text.replace(',', "").parse().expect("a number"))
}

fn counted(metrics: &str, outcome: &str) -> u64 {
    let sample = format!(
        "postgate_requests_total{{outcome=\"{outcome}\",table=\"t\",program=\"socketmap\"}}"
    );
    value(metrics, &sample) as u64
}

/// What Prometheus's `histogram_quantile` makes of the buckets of all outcomes.
fn quantile(metrics: &str, share: f64) -> f64 {
    let mut buckets = std::collections::BTreeMap::<u64, (f64, f64)>::new();
    for line in metrics.lines() {
        let Some(line) = line.strip_prefix("postgate_request_duration_seconds_bucket{") else {
            continue;
        };
        if !line.contains("table=\"t\"") {
            continue;
        }
        let (_, rest) = line.split_once(",le=\"").expect("a bound");
        let (bound, rest) = rest.split_once('"').expect("the end of a bound");
        let bound: f64 = bound.parse().expect("a number");
        let count: f64 = rest
            .rsplit(' ')
            .next()
            .expect("a value")
            .parse()
            .expect("a number");
        buckets.entry(bound.to_bits()).or_insert((bound, 0.0)).1 += count;
    }
    let buckets: Vec<_> = buckets.into_values().collect();
    let rank = share * buckets.last().expect("buckets").1;
    let at = buckets
        .iter()
        .position(|(_, count)| *count >= rank)
        .expect("a bucket");
    let (start, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    let (end, count) = buckets[at];
    start + (end - start) * (rank - below) / (count - below)
}

/// Seconds as the page writes them.
fn written(text: &str) -> f64 {
    let (number, unit) = text.split_once(' ').expect("a unit");
    let number: f64 = number.parse().expect("a number");
    match unit {
        "ms" => number / 1e3,
        "s" => number,
        unit => panic!("{unit}"),
    }
}

async fn both(program: &Program) -> (String, String) {
    (
        page(program, "/metrics").await.1,
        page(program, "/").await.1,
    )
}

#[tokio::test]
async fn they_agree_when_it_is_busy_and_when_it_is_quiet() {
    let mut turn = 0;
    let backend = Backend::new(move |_| {
        turn += 1;
        match turn % 5 {
            0 => status(503),
            1 => status(404),
            2 => status(400),
            _ => json("\"v\""),
        }
    });
    let config = format!(
        "[socketmap.t]\ntarget = \"{}\"\nretries = 0\nbreaker = false\ncache = {{ ttl = \"1h\", negative-ttl = \"1h\" }}\n",
        backend.url("/")
    );
    let program = Launch::new(Binary::Socketmap)
        .config(config)
        .tcp4("t")
        .tcp4("metrics")
        .ready()
        .await;
    let asked = async {
        let mut peer = program.peer().await;
        for number in 0..600 {
            let key = format!("k{}", number % 300);
            peer.ask(question(Binary::Socketmap, "t", key)).await;
        }
    };
    let looked = async {
        let mut looks = 0;
        loop {
            let (before, page) = both(&program).await;
            let after = both(&program).await.0;
            for outcome in OUTCOMES {
                let [minute, hour, start] = numbers(&page, outcome);
                let may_be = counted(&before, outcome)..=counted(&after, outcome);
                assert!(may_be.contains(&start), "{outcome}: {start}, {may_be:?}");
                assert!(minute <= hour && hour <= start, "{page}");
            }
            looks += 1;
            if looks >= 5 && counted(&after, "found") > 100 {
                break;
            }
        }
    };
    tokio::join!(asked, looked);

    let (metrics, page) = both(&program).await;
    let mut all = 0;
    for outcome in OUTCOMES {
        let count = counted(&metrics, outcome);
        assert!(count > 0, "{metrics}");
        let [minute, hour, start] = numbers(&page, outcome);
        // The test takes less than an hour, and perhaps more than a minute.
        assert_eq!([hour, start], [count, count], "{outcome}: {page}");
        assert!(minute <= hour, "{outcome}: {page}");
        all += count;
    }
    assert_eq!(all, 600);
    assert_eq!(numbers(&page, "all")[1..], [all, all]);
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let expected = quantile(&metrics, share);
        let [_, hour, start] = row(&page, name);
        assert_eq!(hour, start);
        let shown = written(&start);
        assert!(
            (shown - expected).abs() <= expected * 0.05 + 0.000_05,
            "{name}: {shown}, {expected}"
        );
    }
    let of_cache = |kind: &str| {
        let labels = format!("{{kind=\"{kind}\",table=\"t\",program=\"socketmap\"}}");
        value(&metrics, &format!("postgate_cache_answers_total{labels}"))
    };
    let cache = format!("{} hit, {} miss,", of_cache("hit"), of_cache("miss"));
    let plain = page.replace(',', "");
    assert!(
        of_cache("hit") > 0.0 && plain.contains(&cache.replace(',', "")),
        "no {cache} in {page}"
    );
    assert!(page.contains("at most "), "{page}");
}
