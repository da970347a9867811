//! Bodies of any bytes, read in every way there is: no panic, nothing found that is empty, no
//! failure said as "not found", and no word of the body in the log.

use std::path::Path;

use fastrand::Rng;
use postgate::config::{Missing, Response, ResponseRules, Statuses};
use postgate::http::answer::read;
use postgate::outcome::{Outcome, Reason};
use postgate::protocol::Protocol as _;
use postgate::protocol::policy::Policy;
use postgate::protocol::tcp_lookup::TcpLookup;
use serde_json::Value;

const POINTERS: [&str; 14] = [
    "",
    "/",
    "/a",
    "/a/0",
    "/a/b",
    "/data/result",
    "/0",
    "/1/a",
    "/a~1b/~0",
    "/00",
    "/-",
    "//",
    "/error",
    "/a/0/1/2",
];

const WORDS: [&str; 40] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1.50",
    "1e999",
    "-0",
    "\"\"",
    "[]",
    "{}",
    "\"a\":",
    "\"a\"",
    "\"error\":",
    "\"data\":{\"result\":",
    "\\u0000",
    "\\ud800",
    "\\ud83d\\ude00",
    "\\",
    "\u{fc}",
    "\u{feff}",
    "\n",
    "\r\n",
    " ",
    "\t",
    "<html>",
    "action=",
    "DUNNO",
    "\0",
    "\u{2028}",
    "\"a~b\":",
    "\"\":",
    "[[[[[[[[[[",
];

/// What stands in the seeds where an answer has what is nobody's business.
const PRIVATE: &str = "s3cret";

#[test]
fn every_answer_is_read() {
    let mut rng = Rng::with_seed(super::seed());
    let seeds = seeds();
    let mut found = 0;
    for run in 0..super::runs() {
        let mut body = seeds[rng.usize(..seeds.len())].clone();
        for _ in 0..rng.usize(..6) {
            super::mutate(&mut body, &seeds, &WORDS, &mut rng);
        }
        let reading = reading(&mut rng);
        let content_type = [
            "application/json",
            "text/plain",
            "text/html",
            "",
            "a/b+json",
        ];
        let content_type = content_type[rng.usize(..content_type.len())];
        let outcome = read(content_type, &body, &reading);
        let place = || format!("run {run}: {reading:?}: {}", body.escape_ascii());
        match &outcome {
            Outcome::Found(value) => {
                assert!(has_word(value), "{}", place());
                found += 1;
            }
            Outcome::Done => panic!("{}: a lookup does nothing", place()),
            Outcome::NotFound => {
                let may_be = is_lookup(&reading) || reading.missing == Missing::NotFound;
                assert!(may_be, "{}", place());
            }
            Outcome::Refused(_) => panic!("{}", place()),
            Outcome::Temporary(failure) => {
                let reasons = [
                    Reason::NotUnderstood,
                    Reason::ReportedError,
                    Reason::ValueCannotBeSent,
                ];
                assert!(reasons.contains(&failure.reason), "{}", place());
                assert!(!failure.detail.contains(PRIVATE), "{}", place());
            }
            Outcome::Permanent(_) => panic!("{}", place()),
        }
        let is_json = reading.response == Response::Json
            || reading.response == Response::Auto && content_type.ends_with("json");
        if is_json && let Ok(root) = serde_json::from_slice(&body) {
            let expected = meaning(&root, &reading);
            let is_right = expected.is_none_or(|expected| expected == outcome);
            assert!(is_right, "{}: {outcome:?}", place());
        }
    }
    assert!(found > 100, "only {found} answers had a value");
}

/// What a document means, as far as another reader of JSON can tell it from its tree.
fn meaning(root: &Value, reading: &ResponseRules) -> Option<Outcome> {
    if let Some(error) = &reading.error
        && (root.pointer(error).is_some_and(|error| !error.is_null()) || is_barred(root, error))
    {
        return None;
    }
    let pointer = match &reading.value {
        Some(pointer) => pointer,
        None if !is_lookup(reading) && root.is_object() => "/action",
        None => "",
    };
    match root.pointer(pointer)? {
        Value::String(text) if has_word(text) => Some(Outcome::Found(text.clone())),
        Value::String(text) if !text.is_empty() => None,
        Value::Bool(true) => Some(Outcome::Found(reading.true_value.clone())),
        Value::Array(list) if !list.is_empty() => {
            let texts: Option<Vec<_>> = list.iter().map(Value::as_str).collect();
            let texts = texts.filter(|texts| texts.iter().all(|text| has_word(text)))?;
            Some(Outcome::Found(texts.join(&reading.list_separator)))
        }
        Value::Null | Value::Bool(false) | Value::String(_) | Value::Array(_)
            if is_lookup(reading) =>
        {
            Some(Outcome::NotFound)
        }
        _ => None,
    }
}

/// Returns whether the rules are those of a lookup.
fn is_lookup(rules: &ResponseRules) -> bool {
    rules.protocol == TcpLookup::FACTS
}

/// Returns whether Postfix finds a word in a value.
fn has_word(value: &str) -> bool {
    value.contains(|c| !" \t\r\n,".contains(c))
}

/// Tells whether something without members, or a list, stands below the root on the way of a
/// pointer that leads nowhere.
fn is_barred(root: &Value, pointer: &str) -> bool {
    let ends = pointer.match_indices('/').map(|(at, _)| at).rev();
    let mut on_the_way = ends
        .map(|end| &pointer[..end])
        .filter(|way| !way.is_empty());
    let deepest = on_the_way.find_map(|way| root.pointer(way));
    root.pointer(pointer).is_none()
        && deepest.is_some_and(|found| !found.is_object() && !found.is_null())
}

fn reading(rng: &mut Rng) -> ResponseRules {
    let pointer = |rng: &mut Rng| POINTERS[rng.usize(..POINTERS.len())].to_owned();
    ResponseRules {
        protocol: if rng.bool() {
            TcpLookup::FACTS
        } else {
            Policy::FACTS
        },
        response: [Response::Json, Response::Text, Response::Auto][rng.usize(..3)],
        value: rng.bool().then(|| pointer(rng)),
        missing: [Missing::Temporary, Missing::NotFound][rng.usize(..2)],
        error: (rng.u8(..4) == 0).then(|| pointer(rng)),
        no_error: vec!["none".to_owned(), "0".to_owned()],
        list_separator: [",", "", ", "][rng.usize(..3)].to_owned(),
        true_value: "1".to_owned(),
        status: Statuses::default(),
        require_header: Vec::new(),
        login: None,
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/answers");
    let entries = std::fs::read_dir(folder).expect("the folder of answers");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    assert!(paths.len() > 5, "only {} seeds", paths.len());
    let read = |path| std::fs::read(path).expect("a seed");
    paths.into_iter().map(read).collect()
}
