//! The states of accounts and messages as bytes.

use std::convert::Infallible;
use std::time::Duration;

use fastrand::Rng;
use postgate::limits::decide::{Account, AccountKey, Charge, Known, Ledger, Window, decide};
use postgate::limits::frames::Frames;
use postgate::limits::held::{Held, Holds};
use postgate::limits::{Exceeded, Message, Mode, Units};
use postgate::store::sqlite::format::{from_account, from_known, summary, to_account, to_known};

use crate::support::{asks, runs, seed};

const WINDOWS: [u64; 4] = [60_000, 90_500, 3_600_000, 31 * 86_400_000];

/// A number of any length.
fn any(rng: &mut Rng) -> u64 {
    rng.u64(..) >> rng.u32(..64)
}

fn account(rng: &mut Rng) -> Account {
    let windows = (0..rng.usize(..4)).map(|_| {
        let mut frame = rng.u64(..1 << 40);
        let frames = (0..rng.usize(..=61)).map(|_| {
            frame += 1 + rng.choice([0, 0, 0, 1, 30]).expect("a gap");
            (frame, any(rng).max(1))
        });
        let frames = Frames(frames.collect());
        Window {
            length: Duration::from_millis(rng.choice(WINDOWS).expect("a window")),
            most: rng.bool().then(|| any(rng).min(u64::MAX - 1)),
            news_ms: any(rng),
            frames,
        }
    });
    let windows = windows.collect();
    let held = (0..rng.usize(..4)).map(|_| Held {
        id: any(rng),
        until_ms: any(rng),
        units: any(rng),
    });
    Account {
        windows,
        held: Holds(held.collect()),
    }
}

fn text(rng: &mut Rng) -> String {
    let letter = |rng: &mut Rng| rng.choice(['a', 'é', '@', '\0']).expect("a letter");
    (0..rng.usize(..200)).map(|_| letter(rng)).collect()
}

fn known(rng: &mut Rng) -> Known {
    let refusal = |rng: &mut Rng| {
        let why = Exceeded {
            window: Duration::from_millis(any(rng).max(1)),
            most: any(rng),
            used: any(rng),
            wait: Duration::from_millis(any(rng)),
            is_news: rng.bool(),
        };
        (text(rng), why)
    };
    let charges = (0..rng.usize(..3)).map(|_| Charge {
        limit: text(rng),
        account: text(rng),
        passed: any(rng),
        refused: any(rng),
    });
    Known {
        charges: charges.collect(),
        seen_ms: any(rng),
        last: rng
            .bool()
            .then(|| (any(rng).into(), rng.bool().then(|| refusal(rng)))),
    }
}

#[test]
fn every_state_comes_back_as_it_was() {
    let mut rng = Rng::with_seed(seed());
    for _ in 0..runs() / 10 {
        let state = account(&mut rng);
        assert_eq!(to_account(&from_account(&state)), Some(state));
        let state = known(&mut rng);
        assert_eq!(to_known(&from_known(&state)), Some(state));
    }
    assert_eq!(to_account(&[]), None);
    assert_eq!(to_known(&[1]), None);
}

/// The states of one account and one message.
struct States(Account, Known);

impl Ledger for States {
    type Error = Infallible;

    fn account(&mut self, _: &AccountKey<'_>) -> Result<Account, Infallible> {
        Ok(self.0.clone())
    }

    fn set_account(&mut self, _: &AccountKey<'_>, account: &Account) -> Result<(), Infallible> {
        self.0.clone_from(account);
        Ok(())
    }

    fn message(&mut self, _: &str, _: &str) -> Result<Option<Known>, Infallible> {
        Ok(Some(self.1.clone()))
    }

    fn set_message(&mut self, _: &str, _: &str, known: &Known) -> Result<(), Infallible> {
        self.1.clone_from(known);
        Ok(())
    }
}

/// A version from the future, bytes that are gone or changed, or none of ours at all.
fn damage(rng: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    match rng.u8(..4) {
        0 => bytes.truncate(rng.usize(..=bytes.len())),
        1 => bytes = (0..rng.usize(..60)).map(|_| rng.u8(..)).collect(),
        _ => {
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
        }
    }
    if let Some(version) = bytes.first_mut()
        && rng.u8(..8) > 0
    {
        *version = rng.u8(1..3);
    }
    bytes
}

#[test]
fn a_damaged_state_is_none_or_one_that_can_be_used() {
    let mut rng = Rng::with_seed(seed());
    let mut used = 0;
    for _ in 0..runs() {
        let bytes = from_account(&account(&mut rng));
        let account = to_account(&damage(&mut rng, bytes));
        let bytes = from_known(&known(&mut rng));
        let known = to_known(&damage(&mut rng, bytes));
        used += usize::from(account.is_some()) + usize::from(known.is_some());
        let mut states = States(account.unwrap_or_default(), known.unwrap_or_default());
        let now = 1_700_000_000_000;
        states.0.clone().usage("login", "a", now);
        let mut question = asks("a", 10);
        question.parts[0].units = Units::UpTo(any(&mut rng));
        question.parts[0].charges_refused = true;
        question.message = Some(Message {
            id: "m".to_owned(),
            repeat: rng.bool().then(|| any(&mut rng).into()),
        });
        for mode in [
            Mode::Peek,
            Mode::Check,
            Mode::Decide,
            Mode::Reserve(1),
            Mode::Keep(1),
            Mode::Release(2),
        ] {
            question.mode = mode;
            let Ok(_) = decide(&mut states, &question, now);
        }
        assert_eq!(to_account(&from_account(&states.0)), Some(states.0));
        assert_eq!(to_known(&from_known(&states.1)), Some(states.1));
    }
    assert!(used > 0, "every state was damaged beyond use");
}

#[test]
fn people_can_read_the_use_of_an_account() {
    let window = |seconds, most, units| Window {
        length: Duration::from_secs(seconds),
        most,
        news_ms: 0,
        frames: Frames(vec![(1, units), (2, 1)]),
    };
    for (windows, expected) in [
        (vec![], ""),
        (
            vec![window(3600, Some(200), 2), window(86_400, Some(1000), 56)],
            "1h=3/200 1d=57/1000",
        ),
        (vec![window(5400, None, 6)], "90m=7"),
        (vec![window(90, Some(1), 1)], "90s=2/1"),
    ] {
        let held = Holds::default();
        assert_eq!(summary(&Account { windows, held }), expected);
    }
}
