//! The calls that Postfix's questions about a mail become: real Postfix with the main.cf of README,
//! in the lab of the tests, which needs root and Debian.
//!
//! These are numbers of calls, so neither the machine nor the kind of build matters. The backend
//! counts, and the metrics of the programs have to agree with it. A figure such as `38-49` is a
//! range over rounds, each with other addresses. "again" is the same mail once more at once, in a
//! new session, when Postfix and the cache know its addresses.

#[path = "../tests/lab/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "for the tests")]
mod lab;
#[path = "../tests/lab/postfix.rs"]
mod postfix;
#[path = "../tests/lab/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::{env, thread};

use lab::{Lab, System};
use postfix::Smtp;

const ROUNDS: usize = 5;

const TABLES: [&str; 5] = ["domains", "mailboxes", "aliases", "transport", "policy"];

const CACHES: [(&str, &str); 3] = [
    ("no cache", ""),
    ("equal requests share", traffic::SHARED),
    ("cache of 10 s", "cache = { ttl = \"10s\" }"),
];

/// So many mails at the same time, each to so many recipients.
const LOADS: [(&str, usize, usize); 3] = [
    ("1 recipient", 1, 1),
    ("5 recipients", 1, 5),
    ("1 recipient, 5 mails at once", 5, 1),
];

/// Calls by table.
type Counts = BTreeMap<String, usize>;

fn main() {
    if env::var_os("POSTGATE_LAB_BACKEND").is_some() {
        return lab::backend::serve_inside();
    }
    for system in [System::Host, System::Debian13] {
        // The name is what the lab calls us if it cannot be had.
        let bench = thread::Builder::new().name("calls of a mail".to_owned());
        let ended = bench.spawn(move || measure(system)).expect("a thread");
        if ended.join().is_err() {
            std::process::exit(1);
        }
    }
}

fn measure(system: System) {
    let mut rows = Vec::new();
    let mut version = String::new();
    for (cached, cache) in CACHES {
        let Some(lab) = traffic::start(system, cache) else {
            return;
        };
        version = lab.sh("postconf -h mail_version");
        let mut total = Counts::new();
        for (place, (load, mails, recipients)) in LOADS.into_iter().enumerate() {
            let rounds: Vec<_> = (0..ROUNDS)
                .map(|round| {
                    let domain = format!("{round}-{place}");
                    [(); 2].map(|()| counts(&mails_at_once(&lab, &domain, mails, recipients)))
                })
                .collect();
            for (table, calls) in rounds.iter().flatten().flatten() {
                *total.entry(table.clone()).or_default() += calls;
            }
            rows.push((place, format!("{load:<30}{cached:<22}"), rounds));
        }
        assert_eq!(total, metered(&lab), "the backend, and the metrics");
    }
    rows.sort_by_key(|(place, ..)| *place);
    print_rows(version.trim(), &rows);
}

/// Sends the mails at once, each from another sender, and returns the calls until the last of them
/// is delivered.
fn mails_at_once(lab: &Lab, domain: &str, mails: usize, recipients: usize) -> Vec<String> {
    let recipients: Vec<_> = (0..recipients)
        .map(|number| format!("user{number}@{domain}.lab.test"))
        .collect();
    let sessions: Vec<_> = (0..mails).map(|_| Smtp::connect(lab)).collect();
    thread::scope(|scope| {
        for (number, smtp) in sessions.into_iter().enumerate() {
            let sender = format!("someone@{number}.{domain}.elsewhere.test");
            let recipients = &recipients;
            scope.spawn(move || traffic::send(smtp, &sender, recipients));
        }
    });
    traffic::calls(lab)
}

fn counts(calls: &[String]) -> Counts {
    let mut counts = Counts::new();
    for call in calls {
        let table = call.split(['/', '?']).nth(1).expect("a path");
        *counts.entry(table.to_owned()).or_default() += 1;
    }
    counts
}

/// What the metrics of the three programs say.
fn metered(lab: &Lab) -> Counts {
    let lines = lab.sh("for port in 9464 9465 9466; do
            exec 3<>/dev/tcp/127.0.0.1/$port
            printf 'GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&3
            timeout 20 cat <&3
        done | grep '^postgate_backend_calls_total'");
    let mut counts = Counts::new();
    for line in lines.lines() {
        let (_, rest) = line.split_once("table=\"").expect("a table");
        let (table, _) = rest.split_once('"').expect("its end");
        let (_, calls) = line.rsplit_once(' ').expect("a value");
        let calls: usize = calls.parse().expect("a number");
        *counts.entry(table.to_owned()).or_default() += calls;
    }
    counts
}

fn print_rows(version: &str, rows: &[(usize, String, Vec<[Counts; 2]>)]) {
    let columns: String = TABLES.map(|table| format!("{table:>11}")).concat();
    let heading = format!("\ncalls of a mail, Postfix {version}");
    println!("{heading:<53}{:>8}{columns}{:>8}", "all", "again");
    for (_, row, rounds) in rows {
        let all = |turn: usize| range(rounds.iter().map(|turns| turns[turn].values().sum()));
        let columns = TABLES.map(|table| {
            let of = |counts: &Counts| counts.get(table).copied().unwrap_or(0);
            format!("{:>11}", range(rounds.iter().map(|[first, _]| of(first))))
        });
        println!("{row}{:>8}{}{:>8}", all(0), columns.concat(), all(1));
    }
}

fn range(counts: impl Iterator<Item = usize> + Clone) -> String {
    match (counts.clone().min(), counts.max()) {
        (Some(least), Some(most)) if least < most => format!("{least}-{most}"),
        (_, most) => most.unwrap_or(0).to_string(),
    }
}
