//! The script says the same as `limits::decide` of every question of a long history.

use std::time::Duration;

use fastrand::Rng;
use postgate::limits::memory::Memory;
use postgate::limits::{Message, Mode, Part, Question, Rate, Units, Usage};

use crate::engines::{Clocked, engine};
use crate::server::Server;

const TABLES: [&str; 2] = ["policy.outgoing", "sasl.a}b{c %7D:*"];
const LIMITS: [&str; 3] = ["login", "net:[a-z]", "l%3A*"];
const ACCOUNTS: [&str; 4] = ["a@example.org", "", "{b}:*?[c]\\", "\u{e4}\n %"];
const MESSAGES: [&str; 4] = ["1", "2}{", "3:\u{0}", "4"];
const WINDOWS: [u64; 6] = [
    60_000,
    61_001,
    3_600_000,
    86_400_000,
    86_399_999,
    2_678_400_000,
];

/// How many histories are played: one for each two hundred of `POSTGATE_FUZZ_RUNS`.
fn seeds() -> u64 {
    let runs = std::env::var("POSTGATE_FUZZ_RUNS");
    let runs: u64 = runs.map_or(20_000, |text| text.parse().expect("a number"));
    runs.div_ceil(1_000)
}

#[tokio::test]
async fn the_script_decides_as_the_library_does() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let seed: u64 =
        std::env::var("POSTGATE_FUZZ_SEED").map_or(1, |text| text.parse().expect("a number"));
    let mut seen = Seen::default();
    for seed in (seed..).take(usize::try_from(seeds()).expect("a number")) {
        server.command("FLUSHALL");
        play(&server, Rng::with_seed(seed), seed, &mut seen).await;
    }
    seen.check();
}

#[tokio::test]
async fn units_are_counted_exactly_up_to_the_53rd_power_of_two() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let engine = engine(&server);
    let most = 1 << 53;
    for (units, used) in [(most, None), (most - 1, None), (1, None), (1, Some(most))] {
        let question = Question {
            table: "policy.outgoing".into(),
            message: None,
            parts: vec![Part {
                limit: format!("{}", units == most).into(),
                account: "a".to_owned(),
                rates: vec![Rate {
                    window: Duration::from_secs(60),
                    most: Some(most),
                }],
                units: Units::Add(units),
                charges_refused: false,
                is_dry_run: false,
            }],
            mode: Mode::Decide,
        };
        let decision = engine.decide(&question).await.expect("a decision");
        let refusal = decision.refusal.map(|(_, exceeded)| exceeded.used);
        assert_eq!(refusal, used, "{units}");
    }
}

/// What the histories have had in them: a test of something that never happens says nothing.
#[derive(Debug, Default)]
struct Seen {
    passed: usize,
    refused: usize,
    repeated: usize,
    repeated_refusals: usize,
    news: usize,
    dry_runs: usize,
    never_fits: usize,
    uses: usize,
    ended: usize,
}

impl Seen {
    fn check(&self) {
        let Self {
            passed,
            refused,
            repeated,
            repeated_refusals,
            ..
        } = *self;
        let Self {
            news,
            dry_runs,
            never_fits,
            uses,
            ended,
            ..
        } = *self;
        let all = [
            passed,
            refused,
            repeated,
            repeated_refusals,
            news,
            dry_runs,
            never_fits,
            uses,
            ended,
        ];
        assert!(all.iter().all(|count| *count > 100), "{self:?}");
    }
}

async fn play(server: &Server, mut rng: Rng, seed: u64, seen: &mut Seen) {
    let mut clocked = Clocked::new(server);
    let mut memory = Memory::default();
    let mut now = 1_790_000_000_000 + rng.u64(..10_000_000_000);
    // Most histories count small numbers, some of them numbers at the edge.
    let scale = *rng.choice(&[1, 1, 1, 1_000_000, 1 << 45]).expect("one");
    let step = *rng.choice(&[100, 20_000, 3_000_000]).expect("one");
    let mut question = next_question(&mut rng, scale);
    let mut reserved: Vec<Question> = Vec::new();
    for number in 0..250 {
        now = match rng.u8(..40) {
            0 => now - rng.u64(..step * 20),
            1 => now + rng.u64(..step * 200),
            // To the millisecond at which a window, its frame or a message ends.
            2 => now + *rng.choice(&WINDOWS).expect("one") / rng.choice(&[1, 60]).expect("one"),
            3 => now + 3_600_000 + rng.u64(..2),
            _ => now + rng.u64(..step),
        };
        // Often the same again.
        if rng.u8(..5) > 0 {
            question = next_question(&mut rng, scale);
        }
        if !reserved.is_empty() && rng.u8(..8) == 0 {
            let mut ended = reserved.swap_remove(rng.usize(..reserved.len()));
            let Mode::Reserve(id) = ended.mode else {
                panic!("a reservation");
            };
            ended.mode = match rng.bool() {
                true => Mode::Keep(id),
                false => Mode::Release(id),
            };
            let wanted = memory.decide(&ended, now);
            let found = clocked.decide(&ended, now).await;
            assert_eq!(found, Ok(wanted), "seed {seed}, {number}: {ended:?}");
            seen.ended += 1;
        }
        let wanted = memory.decide(&question, now);
        let found = clocked.decide(&question, now).await;
        assert_eq!(
            found,
            Ok(wanted.clone()),
            "seed {seed}, {number}: {question:?} at {now}"
        );
        if matches!(question.mode, Mode::Reserve(_)) && wanted.refusal.is_none() {
            reserved.push(question.clone());
        }
        seen.dry_runs += wanted
            .parts
            .iter()
            .zip(&question.parts)
            .filter(|(result, part)| result.is_err() && part.is_dry_run)
            .count();
        for exceeded in wanted.parts.iter().filter_map(|result| result.err()) {
            seen.news += usize::from(exceeded.is_news);
            seen.never_fits += usize::from(exceeded.wait == exceeded.window);
        }
        match (wanted.parts.is_empty(), &wanted.refusal) {
            (false, None) => seen.passed += 1,
            (false, Some(_)) => seen.refused += 1,
            (true, None) => seen.repeated += 1,
            (true, Some(_)) => seen.repeated_refusals += 1,
        }
        if number % 20 == 0 {
            for table in TABLES {
                for account in [None, Some(*rng.choice(&ACCOUNTS).expect("one"))] {
                    let wanted = sorted(memory.usage(table, account, now));
                    let found = clocked.usage(table, account, now).await;
                    seen.uses += wanted.len();
                    assert_eq!(
                        found.map(sorted),
                        Ok(wanted),
                        "seed {seed}, {number}: {now}"
                    );
                }
            }
        }
        if rng.u8(..100) == 0 {
            let (table, account) = (TABLES[0], *rng.choice(&ACCOUNTS).expect("one"));
            let wanted = memory.reset(table, account);
            assert_eq!(
                clocked.engine.reset(table, account).await,
                Ok(wanted),
                "seed {seed}"
            );
        }
    }
}

fn next_question(rng: &mut Rng, scale: u64) -> Question {
    let mode = match rng.u8(..12) {
        0 => Mode::Peek,
        1 => Mode::Check,
        2 => Mode::Reserve(rng.u64(..1 << 53)),
        _ => Mode::Decide,
    };
    let has_message = !matches!(mode, Mode::Reserve(_)) && rng.u8(..5) > 0;
    let message = has_message.then(|| Message {
        id: (*rng.choice(&MESSAGES).expect("one")).to_owned(),
        repeat: (rng.u8(..3) > 0).then(|| u128::MAX - rng.u128(..3)),
    });
    let mut limits: Vec<_> = LIMITS.to_vec();
    rng.shuffle(&mut limits);
    limits.truncate(rng.usize(1..=LIMITS.len()));
    let parts: Vec<_> = limits
        .into_iter()
        .map(|limit| part(rng, limit, scale))
        .collect();
    Question {
        table: (*rng.choice(&TABLES).expect("one")).into(),
        message,
        parts,
        mode,
    }
}

fn part(rng: &mut Rng, limit: &str, scale: u64) -> Part {
    let units = (rng.u64(..6) * scale).saturating_sub(rng.u64(..=u64::from(scale > 1)));
    let mut windows = WINDOWS.to_vec();
    rng.shuffle(&mut windows);
    let most = |rng: &mut Rng| (rng.u8(..5) > 0).then(|| rng.u64(..30) * scale + rng.u64(..2));
    Part {
        limit: limit.into(),
        account: (*rng.choice(&ACCOUNTS).expect("one")).to_owned(),
        rates: windows
            .into_iter()
            .take(rng.usize(1..=4))
            .map(|window| Rate {
                window: Duration::from_millis(window),
                most: most(rng),
            })
            .collect(),
        units: match rng.bool() {
            true => Units::Add(units),
            false => Units::UpTo(units),
        },
        charges_refused: rng.u8(..3) == 0,
        is_dry_run: rng.u8(..4) == 0,
    }
}

fn sorted(mut usage: Vec<Usage>) -> Vec<Usage> {
    let key = |one: &Usage| (one.limit.clone(), one.account.clone(), one.window);
    usage.sort_by_key(key);
    usage
}
