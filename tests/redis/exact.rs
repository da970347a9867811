//! Exactly as many pass as may, whoever asks: several stores as on several hosts, each with several
//! connections and with many questions at once.

use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use postgate::limits::{Message, Mode, Part, Question, Rate, Units};
use tokio::runtime::Builder;

use crate::engines::engine_at;
use crate::server::Server;

const HOSTS: u64 = 4;
const QUESTIONS: u64 = 500;

#[test]
fn exactly_as_many_pass_as_may() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let url = server.url("");
    let hosts: Vec<_> = (0..HOSTS)
        .map(|host| {
            let url = url.clone();
            thread::spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(ask(&url, host))
            })
        })
        .collect();
    let passed = hosts.into_iter().map(|host| host.join().expect("it ends"));
    let passed: [u64; 2] = passed.fold([0, 0], |[a, b], [c, d]| [a + c, b + d]);
    // No message of three or four units more fits into 1,000 or 1,001.
    assert_eq!(passed, [333 * 3, 250 * 4]);
}

/// Asks for units of two accounts, and returns how many of each passed.
async fn ask(url: &str, host: u64) -> [u64; 2] {
    let engine = engine_at(url);
    let asked = (0..QUESTIONS).map(async |number| {
        let first = engine.decide(&question("a", 3, 1000, host, number)).await;
        let second = engine.decide(&question("b", 4, 1001, host, number)).await;
        [(first, 3), (second, 4)].map(|(decision, units)| {
            let passes = decision.expect("a decision").refusal.is_none();
            if passes { units } else { 0 }
        })
    });
    let passed = join_all(asked).await.into_iter();
    passed.fold([0, 0], |[a, b], [c, d]| [a + c, b + d])
}

/// A message of its own for each question.
fn question(account: &str, units: u64, most: u64, host: u64, number: u64) -> Question {
    let part = |limit: &str, most| Part {
        limit: limit.into(),
        account: account.to_owned(),
        rates: vec![Rate {
            window: Duration::from_secs(3600),
            most: Some(most),
        }],
        units: Units::UpTo(units),
        charges_refused: false,
        is_dry_run: false,
    };
    Question {
        table: "policy.outgoing".into(),
        message: Some(Message {
            id: format!("{account}.{host}.{number}"),
            repeat: None,
        }),
        parts: vec![part("wide", 2000), part("narrow", most)],
        mode: Mode::Decide,
    }
}
