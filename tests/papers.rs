//! What the documents state, held to the code and to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use postgate::observe::metrics::Metrics;
use postgate::observe::state::{CacheState, State, TargetState};
use postgate::outcome::{Outcome, Reason};
use postgate::protocol::Protocol as _;
use postgate::protocol::socketmap::Socketmap;

const REPO: &str = env!("CARGO_MANIFEST_DIR");

fn read(name: &str) -> String {
    let path = Path::new(REPO).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The rows of the table that has this heading row, each as its cells.
fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = document.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "no table {heading:?}");
    lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect()
}

/// A metric, as the page or the document has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    help: String,
}

/// The page of a program that has done everything that is counted.
fn page() -> String {
    let metrics = Metrics::new(Socketmap::FACTS).expect("metrics");
    let meter = metrics.meter("t");
    meter.request(&Outcome::NotFound, Duration::from_millis(1));
    meter.call(Some(200), Duration::from_millis(1));
    let state = State {
        table: "t".to_owned(),
        in_flight: 1,
        cache: Some(CacheState::default()),
        targets: vec![TargetState {
            name: "http://127.0.0.1".to_owned(),
            down_since: None,
        }],
        limits: vec!["l".to_owned()],
    };
    metrics.limit_meter("t", "l").passed.inc();
    metrics.store_meter().question(Duration::from_millis(1));
    String::from_utf8(metrics.page(1, Some(true), &[state])).expect("text")
}

fn on_the_page(page: &str) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::<String, Metric>::new();
    let mut name = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let help;
            (name, help) = rest.split_once(' ').expect("a text");
            metrics.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            metrics.get_mut(name).expect("its HELP").kind = kind.to_owned();
        } else if let Some((_, rest)) = line.split_once('{') {
            let (labels, _) = rest.split_once('}').expect("an end of the labels");
            // Every metric has the program, and the buckets of a histogram have their bound.
            let names = labels
                .split(',')
                .filter_map(|label| label.split('=').next());
            let names = names.filter(|name| !["program", "le"].contains(name));
            let metric = metrics.get_mut(name).expect("its HELP");
            metric.labels.extend(names.map(str::to_owned));
        }
    }
    metrics
}

#[test]
fn every_metric_is_documented_as_it_is() {
    let page = page();
    let real = on_the_page(&page);
    let heading = "| metric | type | labels | unit | meaning |";
    let documented: BTreeMap<_, _> = table(&read("docs/metrics.md"), heading)
        .into_iter()
        .map(|cells| {
            let [name, kind, labels, _, help] = <[String; 5]>::try_from(cells).expect("5 cells");
            let plain = |text: &str| text.trim_matches('`').to_owned();
            let metric = Metric {
                kind,
                labels: labels.split_terminator(", ").map(plain).collect(),
                help,
            };
            (plain(&name), metric)
        })
        .collect();
    let names = |metrics: &BTreeMap<String, Metric>| metrics.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&documented), names(&real));
    for (name, metric) in &real {
        assert_eq!(&documented[name], metric, "{name}");
    }
}

#[test]
fn readme_and_design_have_the_same_tables_of_outcomes() {
    let [readme, design] = ["README.md", "docs/design.md"].map(read);
    for heading in [
        "| HTTP | lookups | policy |",
        "| outcome | tcp-lookup | socketmap | policy | dict |",
    ] {
        assert_eq!(table(&readme, heading), table(&design, heading));
    }
}

#[test]
fn the_readme_lists_the_keys_of_the_example() {
    let example = read("config.toml.example");
    let is_key = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    let documented: BTreeSet<_> = example
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once(" = "))
        .map(|(key, _)| key)
        .filter(|key| is_key(key))
        .collect();
    let rows = table(&read("README.md"), "| subject | keys |");
    let listed: Vec<_> = rows.iter().flat_map(|row| row[1].split('`')).collect();
    let listed: BTreeSet<_> = listed
        .into_iter()
        .filter(|key| !key.is_empty() && is_key(key))
        .collect();
    assert_eq!(listed, documented);
}

#[test]
fn the_design_lists_every_reason() {
    let reasons = [
        Reason::TimedOut,
        Reason::Unreachable,
        Reason::Down,
        Reason::Busy,
        Reason::Answered(503),
        Reason::NotUnderstood,
        Reason::AnswerTooLong,
        Reason::ReportedError,
        Reason::CredentialsUnavailable,
        Reason::KeyCannotBeSent,
        Reason::ValueCannotBeSent,
        Reason::RequestNotUnderstood,
        Reason::RequestTooLong,
        Reason::UnknownMap,
        Reason::UnknownDict,
        Reason::ReadOnly,
        Reason::CannotBeListed,
        Reason::NoSuchKey,
        Reason::LimitReached,
    ];
    let real = reasons.map(|reason| format!("`{}`", reason.to_string().replace("503", "STATUS")));
    let documented: Vec<_> = table(&read("docs/design.md"), "| reason | cause |")
        .into_iter()
        .map(|cells| cells[0].clone())
        .collect();
    assert_eq!(documented, real);
}

#[test]
fn the_design_lists_the_exit_statuses_that_help_does() {
    let output = Command::new(env!("CARGO_BIN_EXE_socketmap"))
        .arg("--help")
        .output()
        .expect("it starts");
    let help = String::from_utf8(output.stdout).expect("text");
    let (_, statuses) = help.split_once("Exit status:\n").expect("exit statuses");
    let real: Vec<_> = statuses
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    let documented: Vec<_> = table(&read("docs/design.md"), "| status | meaning |")
        .into_iter()
        .map(|cells| cells[0].clone())
        .collect();
    assert_eq!(documented, real);
}

/// The documents of the repository.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(REPO);
    [root.to_owned(), root.join("docs")]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).expect("a folder"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect()
}

/// The anchor of a heading, as forges make it.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for page in documents() {
        let name = page.display();
        let text = fs::read_to_string(&page).expect("text");
        for link in text.split("](").skip(1) {
            let (link, _) = link.split_once(')').expect("an end of the link");
            if link.contains("://") {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.with_file_name(path),
            };
            assert!(target.is_file(), "{name}: {link}");
            if !fragment.is_empty() {
                let target = fs::read_to_string(&target).expect("text");
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|line| anchor(line) == fragment),
                    "{name}: {link}"
                );
            }
            followed += 1;
        }
    }
    assert!(followed > 30, "only {followed} links");
}
