//! A model of limits in single units with their times. It knows nothing of frames: it says what
//! every answer has to keep to, however the units are counted.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use postgate::limits::{Decision, Exceeded, Message, Mode, Part, Question, Units, Usage};

use crate::support::HOUR;

/// How long units stay reserved, in milliseconds.
const HELD: u64 = 15_000;

/// Units that were charged together.
struct Charged {
    units: u64,
    /// When they were charged, at the earliest and at the latest: a clock that is set back makes
    /// them charged now, but only if the account is looked at, and for good only if it is written.
    early: u64,
    late: u64,
    /// Whether there was a time at which they had left the window. They may have been dropped then,
    /// even if the clock is set back later.
    may_be_gone: bool,
}

/// One window of an account.
#[derive(Default)]
struct Count {
    charged: Vec<Charged>,
    /// When a refusal was news, and whether that may be forgotten.
    news: Option<(u64, bool)>,
}

/// Units that are reserved.
struct Held {
    id: u64,
    units: u64,
    /// When they were reserved, at the earliest and at the latest, as of units that were charged.
    early: u64,
    late: u64,
    may_be_gone: bool,
}

/// The reservations of an account.
#[derive(Default)]
struct Holds(Vec<Held>);

impl Holds {
    /// The fewest and the most units that are reserved.
    fn units(&self, now: u64) -> RangeInclusive<u64> {
        let units = |of: &dyn Fn(&Held) -> bool| -> u64 {
            let held = self.0.iter().filter(|held| of(held));
            held.map(|held| held.units).sum()
        };
        let certain = units(&|held| !held.may_be_gone && held.early + HELD > now);
        certain..=units(&|held| held.late + HELD > now)
    }

    fn pass_time(&mut self, now: u64) {
        for held in &mut self.0 {
            held.may_be_gone |= held.early + HELD <= now;
        }
    }

    /// The account has been looked at, or written.
    fn touch(&mut self, now: u64, is_written: bool) {
        for held in &mut self.0 {
            held.early = held.early.min(now);
            if is_written {
                held.late = held.late.min(now);
            }
        }
        if is_written {
            self.0.retain(|held| held.late + HELD > now);
        }
    }
}

/// What is known of a message.
#[derive(Default)]
struct Sent {
    seen: u64,
    may_be_gone: bool,
    last: Option<(u128, Option<String>)>,
    /// By limit and account: the units that passed, and those that were charged all the same.
    charges: HashMap<(String, String), (u64, u64)>,
}

/// All that has happened.
#[derive(Default)]
pub(crate) struct Model {
    counts: HashMap<(String, String), HashMap<u64, Count>>,
    holds: HashMap<(String, String), Holds>,
    messages: HashMap<String, Sent>,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("a short time")
}

impl Count {
    fn pass_time(&mut self, window: u64, now: u64) {
        for charged in &mut self.charged {
            charged.may_be_gone |= charged.early + window <= now;
        }
        if let Some((at, may_be_gone)) = &mut self.news {
            *may_be_gone |= *at + window <= now;
        }
    }

    /// The account has been looked at, or written.
    fn touch(&mut self, window: u64, now: u64, is_written: bool) {
        for charged in &mut self.charged {
            charged.early = charged.early.min(now);
            if is_written {
                charged.late = charged.late.min(now);
            }
        }
        if is_written {
            self.charged.retain(|charged| stays(charged, window, now));
        }
    }

    /// The fewest units that must be counted.
    fn least(&self, window: u64, now: u64) -> u64 {
        let certain = self.charged.iter().filter(|c| !c.may_be_gone);
        sum(certain.filter(|c| c.early + window > now))
    }

    /// The most units that may be counted.
    fn most(&self, window: u64, now: u64) -> u64 {
        sum(self.charged.iter().filter(|c| stays(c, window, now)))
    }

    /// How long it takes at least until so many units are free.
    fn wait(&self, window: u64, now: u64, units: u64, most: u64, holds: &Holds) -> u64 {
        if units > most {
            return window;
        }
        let fits = |at: &u64| self.least(window, *at) + holds.units(*at).start() + units <= most;
        let frees = self.charged.iter().map(|c| now.max(c.early + window));
        let frees = frees.chain(holds.0.iter().map(|h| now.max(h.early + HELD)));
        let first = frees.chain([now]).filter(fits).min();
        first.expect("a time at which everything is free") - now
    }
}

/// Whether units may still be counted: not longer than a sixtieth of the window and a millisecond
/// after they have left it.
fn stays(charged: &Charged, window: u64, now: u64) -> bool {
    60 * now.saturating_sub(charged.late.min(now) + 1) < 61 * window
}

fn sum<'c>(charged: impl Iterator<Item = &'c Charged>) -> u64 {
    charged.map(|c| c.units).sum()
}

impl Model {
    /// Whether nobody can know if this message is still known.
    pub(crate) fn is_uncertain(&self, message: &str, now: u64) -> bool {
        let sent = self.messages.get(message);
        sent.is_some_and(|sent| sent.may_be_gone && now.saturating_sub(sent.seen) <= millis(HOUR))
    }

    /// What was reserved under an id is charged or free.
    pub(crate) fn end(&mut self, question: &Question, id: u64, now: u64, decision: &Decision) {
        assert_eq!(decision.refusal, None);
        self.pass_time(now);
        let is_kept = matches!(question.mode, Mode::Keep(_));
        for (part, result) in question.parts.iter().zip(&decision.parts) {
            let key = (part.limit.to_string(), part.account.clone());
            let holds = self.holds.entry(key.clone()).or_default();
            let windows = self.counts.entry(key).or_default();
            let found = holds.0.iter().position(|held| held.id == id);
            // Whether the account is written is not known where the reservation may be gone.
            let is_written = is_kept || found.is_some_and(|at| !holds.0[at].may_be_gone);
            holds.touch(now, is_written);
            for (window, count) in &mut *windows {
                count.touch(*window, now, is_written);
            }
            // One that has expired is as good as ended, but counts again if the clock is set back.
            holds.0.retain(|held| held.id != id || !is_written);
            assert!(result.is_ok() || (is_kept && part.is_dry_run), "{result:?}");
            if is_kept {
                let Units::Add(units) = part.units else {
                    panic!("units of a login are added");
                };
                if part.is_dry_run {
                    let none = Holds::default();
                    check_result(windows, &none, part, now, units, *result, true);
                }
                add_units(windows, part, units, now);
            }
        }
    }

    pub(crate) fn reset(&mut self, account: &str) {
        self.counts.retain(|(_, of), _| of != account);
        self.holds.retain(|(_, of), _| of != account);
    }

    /// Checks what is shown of an account.
    pub(crate) fn check_usage(&mut self, account: &str, now: u64, shown: &[Usage]) {
        self.pass_time(now);
        for ((limit, of), windows) in &self.counts {
            for (window, count) in windows.iter().filter(|_| of == account) {
                let is_it = |u: &&Usage| u.limit == *limit && millis(u.window) == *window;
                let used = shown.iter().find(is_it).map_or(0, |u| u.used);
                let range = count.least(*window, now)..=count.most(*window, now);
                assert!(
                    range.contains(&used),
                    "{limit} {window}: {used} of {range:?}"
                );
            }
        }
    }

    /// Checks an answer, and enters what it means.
    pub(crate) fn check(&mut self, question: &Question, now: u64, decision: &Decision) {
        self.pass_time(now);
        let is_charging = question.mode == Mode::Decide;
        let mut forgotten = None;
        if let Some(message) = &question.message {
            let sent = self.messages.get(&message.id);
            if sent.is_some_and(|sent| now.saturating_sub(sent.seen) > millis(HOUR)) {
                forgotten = self.messages.remove(&message.id);
            }
            if let Some(refused_by) = self.repeated(message, question) {
                assert_eq!(decision.parts, [], "a repetition");
                assert_eq!(decision.refusal.map(|(at, _)| at), refused_by);
                assert!(decision.refusal.is_none_or(|(_, why)| !why.is_news));
                if is_charging && let Some(sent) = self.messages.get_mut(&message.id) {
                    (sent.seen, sent.may_be_gone) = (now, false);
                }
                return;
            }
        }
        assert_eq!(decision.parts.len(), question.parts.len());
        let speaks = decision.parts.iter().zip(&question.parts);
        let speaks = speaks.map(|(result, part)| result.is_err() && !part.is_dry_run);
        let speaks = speaks
            .collect::<Vec<_>>()
            .into_iter()
            .position(|speaks| speaks);
        let expected = speaks.map(|at| (at, decision.parts[at].expect_err("a refusal")));
        assert_eq!(decision.refusal, expected);
        for (part, result) in question.parts.iter().zip(&decision.parts) {
            self.check_part(question, part, now, *result, decision.refusal.is_some());
        }
        let Some(message) = &question.message else {
            return;
        };
        if is_charging && (message.repeat.is_some() || self.messages.contains_key(&message.id)) {
            let sent = self.messages.entry(message.id.clone()).or_default();
            (sent.seen, sent.may_be_gone) = (now, false);
            let refused_by = speaks.map(|at| question.parts[at].limit.to_string());
            sent.last = message.repeat.map(|digest| (digest, refused_by));
        } else if let Some(sent) = forgotten {
            // Known again if the clock is set back.
            self.messages.insert(message.id.clone(), sent);
        }
    }

    /// Which limit refuses a repetition, if this is one.
    fn repeated(&self, message: &Message, question: &Question) -> Option<Option<usize>> {
        let (digest, refused_by) = self.messages.get(&message.id)?.last.as_ref()?;
        if Some(*digest) != message.repeat {
            return None;
        }
        let Some(limit) = refused_by else {
            return Some(None);
        };
        let at = question.parts.iter().position(|p| *p.limit == **limit)?;
        Some(Some(at))
    }

    fn check_part(
        &mut self,
        question: &Question,
        part: &Part,
        now: u64,
        result: Result<(), Exceeded>,
        is_refused: bool,
    ) {
        let key = (part.limit.to_string(), part.account.clone());
        let message = question.message.as_ref();
        let sent = message.and_then(|message| self.messages.get(&message.id));
        let charge = sent.and_then(|sent| sent.charges.get(&key));
        let (passed, paid) = charge.copied().unwrap_or_default();
        let (lacks, pays) = match part.units {
            Units::Add(units) => (units, units),
            Units::UpTo(units) => {
                let lacks = units.saturating_sub(passed);
                (lacks, lacks.saturating_sub(paid))
            }
        };
        if lacks == 0 {
            assert_eq!(result, Ok(()), "a message that needs no more");
            return;
        }
        let windows = self.counts.entry(key.clone()).or_default();
        for (window, count) in &mut *windows {
            count.touch(*window, now, false);
        }
        let is_noted = match question.mode {
            Mode::Peek | Mode::Reserve(_) | Mode::Keep(_) | Mode::Release(_) => false,
            Mode::Check | Mode::Decide => true,
        };
        if matches!(question.mode, Mode::Reserve(_)) && part.is_dry_run {
            assert_eq!(result, Ok(()), "a limit that only counts");
            return;
        }
        let holds = self.holds.entry(key.clone()).or_default();
        holds.touch(now, false);
        let none = Holds::default();
        let counted = if part.is_dry_run { &none } else { &*holds };
        let is_news = check_result(windows, counted, part, now, pays, result, is_noted);
        let is_charging = question.mode == Mode::Decide;
        let is_charged = is_charging && (!is_refused || part.charges_refused);
        let reserves = match question.mode {
            Mode::Reserve(id) if !is_refused && !part.is_dry_run => Some(id),
            _ => None,
        };
        if is_news || (is_charged && pays > 0) || reserves.is_some() {
            holds.touch(now, true);
            for (window, count) in &mut *windows {
                count.touch(*window, now, true);
            }
        }
        if is_charged {
            add_units(windows, part, pays, now);
        }
        if let Some(id) = reserves {
            holds.0.push(Held {
                id,
                units: pays,
                early: now,
                late: now,
                may_be_gone: false,
            });
        }
        if let Some(message) = message
            && is_charged
        {
            let sent = self.messages.entry(message.id.clone()).or_default();
            let charge = sent.charges.entry(key).or_default();
            match (is_refused, part.units) {
                (false, Units::Add(units)) => charge.0 += units,
                // What was paid before has passed as well.
                (false, Units::UpTo(_)) => *charge = (passed + lacks, paid - (lacks - pays)),
                (true, _) => charge.1 += pays,
            }
        }
    }

    fn pass_time(&mut self, now: u64) {
        for windows in self.counts.values_mut() {
            for (window, count) in windows {
                count.pass_time(*window, now);
            }
        }
        for holds in self.holds.values_mut() {
            holds.pass_time(now);
        }
        for sent in self.messages.values_mut() {
            sent.may_be_gone |= now.saturating_sub(sent.seen) > millis(HOUR);
        }
    }
}

fn add_units(windows: &mut HashMap<u64, Count>, part: &Part, units: u64, now: u64) {
    for rate in part.rates.iter().filter(|_| units > 0) {
        let count = windows.entry(millis(rate.window)).or_default();
        count.charged.push(Charged {
            units,
            early: now,
            late: now,
            may_be_gone: false,
        });
    }
}

/// Checks the result of one limit, and returns whether it is news.
fn check_result(
    windows: &mut HashMap<u64, Count>,
    holds: &Holds,
    part: &Part,
    now: u64,
    pays: u64,
    result: Result<(), Exceeded>,
    is_noted: bool,
) -> bool {
    let limited = part.rates.iter().filter_map(|rate| {
        let most = rate.most?;
        Some((millis(rate.window), most))
    });
    let limited: HashMap<_, _> = limited.collect();
    for window in limited.keys() {
        windows.entry(*window).or_default();
    }
    let (held, held_at_most) = holds.units(now).into_inner();
    let Err(exceeded) = result else {
        for (window, most) in limited {
            let least = windows[&window].least(window, now) + held;
            assert!(
                least + pays <= most,
                "over {most} in {window}: {least} and {pays}"
            );
        }
        return false;
    };
    let window = millis(exceeded.window);
    let most = limited[&window];
    assert_eq!(exceeded.most, most);
    let count = &windows[&window];
    let used = count.least(window, now) + held..=count.most(window, now) + held_at_most;
    assert!(used.contains(&exceeded.used), "{exceeded:?}: {used:?}");
    assert!(
        used.end() + pays > most,
        "{exceeded:?}, but there is room: {used:?}"
    );
    let wait = millis(exceeded.wait);
    for (window, most) in &limited {
        let count = &windows[window];
        let least = count.wait(*window, now, pays, *most, holds);
        assert!(wait >= least, "{exceeded:?}: {window} takes {least}");
    }
    let may_be_too_early = count.most(window, now + wait - 1) + pays > most;
    let may_be_released = held_at_most > 0 && wait <= HELD;
    assert!(
        may_be_too_early || may_be_released || wait == window,
        "{exceeded:?} waits too long"
    );
    let count = windows.get_mut(&window).expect("a window");
    let is_old = |at: u64| (at..at + window).contains(&now);
    match count.news {
        Some((at, false)) if is_old(at) => assert!(!exceeded.is_news, "old: {exceeded:?}"),
        Some((at, true)) if is_old(at) => {}
        _ => assert_eq!(exceeded.is_news, is_noted, "{exceeded:?}"),
    }
    if exceeded.is_news {
        count.news = Some((now, false));
    }
    exceeded.is_news
}
