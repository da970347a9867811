//! Configurations with random mistakes: no panic, every mistake reported in one line, and no secret
//! in a report, in the output of `--show` or in debug output.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use postgate::config::{Config, Mode, Report, load, show};
use postgate::protocol::Protocol as _;
use postgate::protocol::policy::Policy;
use postgate::protocol::socketmap::Socketmap;
use postgate::protocol::tcp_lookup::TcpLookup;

/// What the secrets of the seeds begin with.
const SECRETS: [&str; 2] = ["s3cret", "text-secret"];

/// None of these puts a secret into a key that is known to hold none.
const WORDS: [&str; 50] = [
    "\n",
    "\"",
    "'",
    "=",
    "[",
    "]",
    "{",
    "}",
    ",",
    "#",
    ".",
    "\\",
    " ",
    "\t",
    "{key}",
    "{sender}",
    "{{",
    "false",
    "true",
    "1",
    "-1",
    "1.5",
    "\"5s\"",
    "\"1MiB\"",
    "\"0s\"",
    "1979-05-27",
    "inf",
    "0x10",
    "\u{fc}",
    "\u{2028}",
    "[http]\n",
    "[[socketmap.users]]\n",
    "[socketmap.\"*\"]\n",
    "[policy.x]\n",
    "{ env = \"PATH\" }",
    "{ file = \"/nonexistent\" }",
    "cache = { ttl = false }\n",
    "cache = { by = [] }\n",
    "breaker = false\n",
    "breaker = { failures = 0 }\n",
    "target = [\"http://h/{key}\", \"\"]\n",
    "json = { a = [{ b = \"{key}\" }] }\n",
    "status = { \"4xx\" = \"found\" }\n",
    "99999999999999999999",
    "[[policy.x.limits]]\n",
    "limits = []\n",
    "rates = { \"1h\" = \"/a\", \"1d\" = 5 }\n",
    "fallback = { \"2h\" = 5 }\n",
    "by = [\"{sender.domain}\", \"all\"]\n",
    "on-exceeded = \"450 {limit} {wait}\"\n",
];

#[test]
fn every_configuration_is_taken_or_told_what_is_wrong_with_it() {
    let mut rng = Rng::with_seed(super::seed());
    let seeds = seeds();
    let file = File::new();
    let mut taken = 0;
    let mut wrong = Wrong::default();
    for run in 0..super::runs() / 10 {
        // Each as it is, and then with mistakes.
        let text = match usize::try_from(run).ok().and_then(|run| seeds.get(run)) {
            Some(seed) => seed.clone(),
            None => mutated(&seeds[rng.usize(..seeds.len())], &mut rng),
        };
        // A string of several lines may swallow others, keys and secrets with them.
        if ["\"\"\"", "'''"].iter().any(|quotes| text.contains(quotes)) {
            continue;
        }
        let mode = match rng.u8(..4) {
            0 => Mode::Check,
            1 => Mode::Serve(TcpLookup::FACTS),
            2 => Mode::Serve(Socketmap::FACTS),
            _ => Mode::Serve(Policy::FACTS),
        };
        let (config, report) = file.load(&text, mode);
        let mut note = |rule, holds: bool, seen: &str| {
            wrong.require(rule, holds, || format!("run {run}:\n{text}\n{seen}"));
        };
        let is_told = config.is_some() != report.has_errors();
        note("a bad one is told about", is_told, "");
        for problem in report.problems() {
            let is_line = !problem.line.contains(char::is_control);
            note("a problem is a line", is_line, &problem.line);
            note(
                "no secret in a problem",
                hides(&problem.line),
                &problem.line,
            );
            note(
                "no secret in a quote",
                hides(&problem.quote),
                &problem.quote,
            );
        }
        let Some(config) = config else {
            continue;
        };
        taken += 1;
        let debug = format!("{config:?}");
        let shown = show(&config).expect("TOML");
        // What mistakes have put into a URL or a name is no secret.
        let is_open = |line: &str| line.contains("target") || line.trim_start().starts_with('[');
        if text.lines().filter(|line| is_open(line)).all(hides) {
            note("no secret in Debug", hides(&debug), &debug);
            note("no secret in --show", hides(&shown), &shown);
        }
        if !shown.contains("(hidden)") {
            let (again, report) = file.load(&shown, mode);
            let seen = format!("{shown}{:?}", report.problems());
            note("what is shown loads again", again == Some(config), &seen);
        }
    }
    wrong.none();
    assert!(taken > 20, "only {taken} were taken");
}

/// The first example of each rule that was broken.
#[derive(Default)]
struct Wrong(BTreeMap<&'static str, String>);

impl Wrong {
    fn require(&mut self, rule: &'static str, holds: bool, example: impl FnOnce() -> String) {
        if !holds {
            self.0.entry(rule).or_insert_with(example);
        }
    }

    fn none(self) {
        let lines = self.0.iter().map(|(rule, text)| format!("{rule}: {text}"));
        let lines: Vec<_> = lines.collect();
        assert!(lines.is_empty(), "{}", lines.join("\n\n"));
    }
}

fn hides(text: &str) -> bool {
    SECRETS.iter().all(|secret| !text.contains(secret))
}

/// A file that is written again and again.
struct File(PathBuf);

impl File {
    fn new() -> Self {
        let name = format!("postgate-fuzz-{}.toml", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn load(&self, text: &str, mode: Mode) -> (Option<Config>, Report) {
        std::fs::write(&self.0, text).expect("a written file");
        load(&self.0, mode)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn seeds() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("config.toml.example")];
    for folder in [
        "tests/configs/good",
        "tests/configs/bad",
        "tests/fuzz/configs",
    ] {
        let entries = std::fs::read_dir(root.join(folder)).expect("a folder");
        let files = entries.map(|entry| entry.expect("an entry").path());
        paths.extend(files.filter(|path| path.extension().is_some_and(|e| e == "toml")));
    }
    paths.sort();
    assert!(paths.len() > 10, "only {} seeds", paths.len());
    let read = |path| std::fs::read_to_string(path).expect("a seed");
    let seeds: Vec<String> = paths.into_iter().map(read).collect();
    // Where a string of these is not closed there is no telling what is a secret.
    let is_sound = |seed: &String| {
        let mut rest = seed.clone();
        for range in secrets(seed).into_iter().rev() {
            rest.replace_range(range, "");
        }
        SECRETS.iter().all(|secret| !rest.contains(secret))
    };
    let seeds: Vec<String> = seeds.into_iter().filter(is_sound).collect();
    let with_secrets = seeds.iter().filter(|seed| !secrets(seed).is_empty());
    assert!(with_secrets.count() > 2, "no secrets to be hidden");
    seeds
}

/// The strings that hold secrets, with their quotes.
fn secrets(text: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut from = 0;
    while let Some(length) = text[from..].find('"') {
        let start = from + length;
        let Some(length) = text[start + 1..].find(['"', '\n']) else {
            break;
        };
        let end = start + 1 + length + 1;
        let string = &text[start..end];
        if SECRETS.iter().any(|secret| string.contains(secret)) {
            ranges.push(start..end);
        }
        from = end;
    }
    ranges
}

/// A few mistakes, none of them inside of a secret.
fn mutated(seed: &str, rng: &mut Rng) -> String {
    let mut text = seed.to_owned();
    for _ in 0..rng.usize(..6) {
        let at = rng.usize(..=text.len());
        let is_inside = |range: &Range<usize>| range.start < at && at < range.end;
        if !text.is_char_boundary(at) || secrets(&text).iter().any(is_inside) {
            continue;
        }
        let next = text[at..].chars().next();
        let is_of_a_secret = secrets(&text).iter().any(|range| range.start == at);
        match (rng.u8(..6), next) {
            (0, Some(_)) if !is_of_a_secret => drop(text.remove(at)),
            (1, Some(_)) if !is_of_a_secret => {
                text.remove(at);
                text.insert(at, char::from(rng.u8(b' '..=b'~')));
            }
            (2, _) => text.insert(at, char::from(rng.u8(b' '..=b'~'))),
            (3, _) => text.insert_str(at, WORDS[rng.usize(..WORDS.len())]),
            (4, _) => move_line(&mut text, rng),
            _ => repeat_line(&mut text, rng),
        }
    }
    text
}

fn move_line(text: &mut String, rng: &mut Rng) {
    let mut lines: Vec<&str> = text.lines().collect();
    if !lines.is_empty() {
        let line = lines.remove(rng.usize(..lines.len()));
        lines.insert(rng.usize(..=lines.len()), line);
    }
    *text = lines.join("\n");
}

fn repeat_line(text: &mut String, rng: &mut Rng) {
    let mut lines: Vec<&str> = text.lines().collect();
    if !lines.is_empty() {
        let at = rng.usize(..lines.len());
        lines.insert(at, lines[at]);
    }
    *text = lines.join("\n");
}
