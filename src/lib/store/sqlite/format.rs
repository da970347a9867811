//! The states of accounts and messages as bytes.
//!
//! The first byte is the version; the state of an account with reserved units has one of its own, with
//! these units before the windows. Numbers are LEB128; the units of a window are runs of frames that
//! follow each other, so that a full window takes little more than a byte a frame. Any other bytes,
//! as of a disk that fails, are no state.

use std::fmt::Write as _;
use std::time::Duration;

use crate::limits::Exceeded;
use crate::limits::decide::{Account, Charge, Known, Window};
use crate::limits::frames::{Frames, millis};
use crate::limits::held::Held;

/// The version of both formats.
const VERSION: u8 = 1;

/// The version of an account with reserved units.
const WITH_HELD: u8 = 2;

/// Returns the state of an account as bytes.
pub fn from_account(account: &Account) -> Vec<u8> {
    let frames = account
        .windows
        .iter()
        .map(|w| w.frames.0.len())
        .sum::<usize>();
    let mut out = Writer(Vec::with_capacity(32 * account.windows.len() + 2 * frames));
    if account.held.0.is_empty() {
        out.0.push(VERSION);
    } else {
        out.0.push(WITH_HELD);
        out.count(account.held.0.len());
        for held in &account.held.0 {
            out.number(held.id);
            out.number(held.until_ms);
            out.number(held.units);
        }
    }
    for window in &account.windows {
        out.number(millis(window.length));
        out.optional(window.most);
        out.number(window.news_ms);
        let follows = |a: &(u64, u64), b: &(u64, u64)| a.0 + 1 == b.0;
        let runs = window.frames.0.chunk_by(follows);
        out.count(runs.clone().count());
        let mut next = 0;
        for run in runs {
            let Some((first, _)) = run.first() else {
                continue;
            };
            out.number(first - next);
            out.count(run.len());
            for (frame, units) in run {
                out.number(*units);
                next = frame + 1;
            }
        }
    }
    out.0
}

/// Returns the account that these bytes are the state of.
pub fn to_account(bytes: &[u8]) -> Option<Account> {
    let (version, rest) = bytes.split_first()?;
    let mut input = Reader(rest);
    let mut account = Account::default();
    match *version {
        VERSION => {}
        WITH_HELD => {
            for _ in 0..input.number()? {
                account.held.0.push(Held {
                    id: input.number()?,
                    until_ms: input.number()?,
                    units: input.number()?,
                });
            }
        }
        _ => return None,
    }
    while !input.0.is_empty() {
        let length = input.milliseconds()?;
        let (most, news_ms) = (input.optional()?, input.number()?);
        let mut frames = Vec::new();
        let mut next = 0_u64;
        for _ in 0..input.number()? {
            next = next.checked_add(input.number()?)?;
            for _ in 0..input.number()? {
                frames.push((next, input.number()?));
                next = next.checked_add(1)?;
            }
        }
        account.windows.push(Window {
            length,
            most,
            news_ms,
            frames: Frames(frames),
        });
    }
    Some(account)
}

/// Returns the state of a message as bytes.
pub fn from_known(known: &Known) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(128));
    out.0.push(VERSION);
    out.number(known.seen_ms);
    match &known.last {
        None => out.number(0),
        Some((digest, None)) => {
            out.number(1);
            out.0.extend(digest.to_le_bytes());
        }
        Some((digest, Some((limit, why)))) => {
            out.number(2);
            out.0.extend(digest.to_le_bytes());
            out.text(limit);
            let times = [millis(why.window), why.most, why.used];
            times.into_iter().for_each(|number| out.number(number));
            out.number(u64::try_from(why.wait.as_millis()).unwrap_or(u64::MAX));
            out.number(u64::from(why.is_news));
        }
    }
    for charge in &known.charges {
        out.text(&charge.limit);
        out.text(&charge.account);
        out.number(charge.passed);
        out.number(charge.refused);
    }
    out.0
}

/// Returns the message that these bytes are the state of.
pub fn to_known(bytes: &[u8]) -> Option<Known> {
    let mut input = Reader::new(bytes)?;
    let seen_ms = input.number()?;
    let last = match input.number()? {
        0 => None,
        1 => Some((input.digest()?, None)),
        2 => {
            let (digest, limit) = (input.digest()?, input.text()?);
            let why = Exceeded {
                window: input.milliseconds()?,
                most: input.number()?,
                used: input.number()?,
                wait: Duration::from_millis(input.number()?),
                is_news: input.number()? != 0,
            };
            Some((digest, Some((limit, why))))
        }
        _ => return None,
    };
    let mut charges = Vec::new();
    while !input.0.is_empty() {
        charges.push(Charge {
            limit: input.text()?,
            account: input.text()?,
            passed: input.number()?,
            refused: input.number()?,
        });
    }
    Some(Known {
        seen_ms,
        last,
        charges,
    })
}

/// Returns the use of an account for people: `1h=3/200 1d=57/1000`.
pub fn summary(account: &Account) -> String {
    let mut text = String::with_capacity(16 * account.windows.len());
    for window in &account.windows {
        let blank = if text.is_empty() { "" } else { " " };
        let (count, unit) = in_units(millis(window.length));
        // Writing to a string does not fail.
        let _ = write!(text, "{blank}{count}{unit}={}", window.frames.used());
        if let Some(most) = window.most {
            let _ = write!(text, "/{most}");
        }
    }
    text
}

/// Returns a length in the largest unit that it is a whole number of.
fn in_units(ms: u64) -> (u64, &'static str) {
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
    ];
    let unit = units.into_iter().find(|(unit, _)| ms.is_multiple_of(*unit));
    unit.map_or((ms, "ms"), |(unit, name)| (ms / unit, name))
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    /// Zero is none. So the largest number becomes the one below it, which is as good as no limit.
    fn optional(&mut self, number: Option<u64>) {
        self.number(number.map_or(0, |number| number.saturating_add(1)));
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend(text.as_bytes());
    }
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn new(bytes: &'b [u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION).then_some(Self(rest))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            // The last byte has room for one bit.
            if bits.leading_zeros() < shift {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn optional(&mut self) -> Option<Option<u64>> {
        Some(self.number()?.checked_sub(1))
    }

    fn milliseconds(&mut self) -> Option<Duration> {
        let ms = self.number()?;
        (ms > 0).then_some(Duration::from_millis(ms))
    }

    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn digest(&mut self) -> Option<u128> {
        let bytes = self.take(16)?.try_into().ok()?;
        Some(u128::from_le_bytes(bytes))
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let bytes = self.take(length)?;
        Some(str::from_utf8(bytes).ok()?.to_owned())
    }
}
