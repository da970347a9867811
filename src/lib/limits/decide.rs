//! Judges all limits of one request together.

use std::time::Duration;

use super::frames::{Frames, frame_at, millis};
use super::held::Holds;
use super::{Decision, Exceeded, Message, Mode, Part, Question, Rate, Units, Usage};

/// How long a message is known after its last request.
pub const MESSAGE_LIFETIME: Duration = Duration::from_secs(3600);

/// Keeps the states of accounts and messages.
pub trait Ledger {
    /// Why a state cannot be read or written.
    type Error;

    /// Returns the state of an account of a limit; by default an empty one.
    fn account(&mut self, key: &AccountKey<'_>) -> Result<Account, Self::Error>;

    /// Replaces the state of an account. An empty one need not be kept.
    fn set_account(&mut self, key: &AccountKey<'_>, account: &Account) -> Result<(), Self::Error>;

    /// Returns the state of a message, if it is known.
    fn message(&mut self, table: &str, id: &str) -> Result<Option<Known>, Self::Error>;

    /// Replaces the state of a message.
    fn set_message(&mut self, table: &str, id: &str, known: &Known) -> Result<(), Self::Error>;
}

/// The name of an account of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccountKey<'k> {
    /// The program and the table, as in `policy.outgoing`.
    pub table: &'k str,
    /// The limit.
    pub limit: &'k str,
    /// The account.
    pub account: &'k str,
}

/// What an account has used of one limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Its windows, in no particular order.
    pub windows: Vec<Window>,
    /// The units that are reserved in all of them.
    pub held: Holds,
}

/// What an account has used of one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The length.
    pub length: Duration,
    /// The most units, as of the last decision.
    pub most: Option<u64>,
    /// When a refusal was last news, in milliseconds since the Unix epoch; 0: never.
    pub news_ms: u64,
    /// The units.
    pub frames: Frames,
}

/// What is known of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// When its last request came, in milliseconds since the Unix epoch.
    pub seen_ms: u64,
    /// The last request that may be repeated, and its refusal: the name of the limit, and why.
    pub last: Option<(u128, Option<(String, Exceeded)>)>,
    /// What it has been charged.
    pub charges: Vec<Charge>,
}

/// What a message has been charged with one account of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The limit.
    pub limit: String,
    /// The account.
    pub account: String,
    /// The units that passed.
    pub passed: u64,
    /// The units that were charged although they were refused.
    pub refused: u64,
}

impl Part {
    /// Returns the name of its account.
    fn key<'k>(&'k self, table: &'k str) -> AccountKey<'k> {
        AccountKey {
            table,
            limit: &self.limit,
            account: &self.account,
        }
    }
}

impl Window {
    /// Returns until when a refusal is no news.
    fn quiet_until(&self) -> u64 {
        self.news_ms.saturating_add(millis(self.length))
    }
}

impl Account {
    /// Drops what has left its window, at this time, and windows with nothing in them: those that
    /// a reload has removed would be kept for as long as the account sends.
    fn settle(&mut self, now_ms: u64) {
        for window in &mut self.windows {
            window.frames.settle(frame_at(now_ms, window.length));
        }
        let windows = &mut self.windows;
        windows.retain(|w| !w.frames.0.is_empty() || now_ms < w.quiet_until());
        self.held.settle(now_ms);
    }

    /// Returns whether nothing is known of the account.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.held.0.is_empty()
    }

    /// Returns the window of this length, made if there is none.
    fn window(&mut self, length: Duration) -> &mut Window {
        let at = self.windows.iter().position(|w| w.length == length);
        let at = at.unwrap_or_else(|| {
            self.windows.push(Window {
                length,
                most: None,
                news_ms: 0,
                frames: Frames::default(),
            });
            self.windows.len() - 1
        });
        &mut self.windows[at]
    }

    /// Charges units in the windows of a part.
    fn charge(&mut self, part: &Part, units: u64, now_ms: u64) {
        for rate in &part.rates {
            let window = self.window(rate.window);
            window.most = rate.most;
            window.frames.add(frame_at(now_ms, rate.window), units);
        }
    }

    /// Returns when the last of its units has left its window or its reservation, in milliseconds since the Unix
    /// epoch. After that the account need not be kept.
    pub fn expires_ms(&self, now_ms: u64) -> u64 {
        let longest = self.windows.iter().map(|w| millis(w.length)).max();
        // A frame more than the window, for the oldest frame that is partly outside.
        let longest = longest.unwrap_or_default();
        let longest = longest.saturating_add(longest / 60 + 1);
        now_ms.saturating_add(longest.max(self.held.lifetime_ms()))
    }

    /// Returns the use of each window at this time, without what is reserved.
    pub fn usage(mut self, limit: &str, account: &str, now_ms: u64) -> Vec<Usage> {
        self.settle(now_ms);
        let windows = self.windows.into_iter().filter(|w| !w.frames.0.is_empty());
        windows
            .map(|w| Usage {
                limit: limit.to_owned(),
                account: account.to_owned(),
                window: w.length,
                used: w.frames.used(),
                most: w.most,
                free_in: w.most.map_or(Duration::ZERO, |most| {
                    w.frames.wait(now_ms, w.length, most, 1)
                }),
            })
            .collect()
    }
}

/// Returns whether a message is still known.
pub fn is_known(known: &Known, now_ms: u64) -> bool {
    // What lies in the future has just been seen: the clock was set back.
    now_ms.saturating_sub(known.seen_ms) <= millis(MESSAGE_LIFETIME)
}

/// Answers a question, at a time in milliseconds since the Unix epoch.
pub fn decide<L: Ledger>(
    ledger: &mut L,
    question: &Question,
    now_ms: u64,
) -> Result<Decision, L::Error> {
    let table = &*question.table;
    if let Mode::Keep(id) | Mode::Release(id) = question.mode {
        return end(ledger, question, id, now_ms);
    }
    let mut known = match &question.message {
        Some(message) => ledger.message(table, &message.id)?,
        None => None,
    };
    known.take_if(|known| !is_known(known, now_ms));
    let is_charging = question.mode == Mode::Decide;
    if let (Some(known), Some(message)) = (&mut known, &question.message)
        && let Some(decision) = repetition(known, message, &question.parts)
    {
        if is_charging {
            known.seen_ms = now_ms;
            ledger.set_message(table, &message.id, known)?;
        }
        return Ok(decision);
    }
    let was_known = known.is_some();
    let mut known = known.unwrap_or_default();
    let mut judged = Vec::with_capacity(question.parts.len());
    for part in &question.parts {
        judged.push(Judged::new(ledger, question, part, &known, now_ms)?);
    }
    let refusal = refusal(&judged);
    for one in &mut judged {
        one.conclude(question.mode, refusal.is_some(), now_ms);
        if one.has_changed {
            ledger.set_account(&one.part.key(table), &one.account)?;
        }
    }
    // To conclude may change whether a refusal is news.
    let refusal = refusal.and_then(|at| Some((at, judged[at].exceeded?)));
    if let Some(message) = &question.message
        && is_charging
    {
        for one in &judged {
            one.note(&mut known);
        }
        let refused_by = refusal.map(|(at, why)| (question.parts[at].limit.to_string(), why));
        known.last = message.repeat.map(|digest| (digest, refused_by));
        known.seen_ms = now_ms;
        // A message without a charge is as good as unknown.
        if was_known || known.last.is_some() || !known.charges.is_empty() {
            ledger.set_message(table, &message.id, &known)?;
        }
    }
    Ok(Decision {
        parts: judged
            .iter()
            .map(|one| one.exceeded.map_or(Ok(()), Err))
            .collect(),
        refusal,
    })
}

/// Keeps or releases what is reserved under an id.
fn end<L: Ledger>(
    ledger: &mut L,
    question: &Question,
    id: u64,
    now_ms: u64,
) -> Result<Decision, L::Error> {
    let mut parts = Vec::with_capacity(question.parts.len());
    for part in &question.parts {
        let key = part.key(&question.table);
        let mut judged = Judged::of(part);
        judged.account = ledger.account(&key)?;
        judged.account.settle(now_ms);
        judged.end(question.mode, id, now_ms);
        if judged.has_changed {
            ledger.set_account(&key, &judged.account)?;
        }
        parts.push(judged.exceeded.map_or(Ok(()), Err));
    }
    Ok(Decision {
        parts,
        refusal: None,
    })
}

/// Returns the answer to the last request of a message, if this is the same request again.
fn repetition(known: &Known, message: &Message, parts: &[Part]) -> Option<Decision> {
    let (digest, refusal) = known.last.as_ref()?;
    (Some(*digest) == message.repeat).then_some(())?;
    let refusal = match refusal {
        None => None,
        Some((limit, why)) => {
            // A limit that a reload has removed cannot have refused this request.
            let at = parts.iter().position(|part| *part.limit == **limit)?;
            let is_news = false;
            Some((at, Exceeded { is_news, ..*why }))
        }
    };
    Some(Decision {
        parts: Vec::new(),
        refusal,
    })
}

/// Returns the first part that refuses the request.
fn refusal(judged: &[Judged<'_>]) -> Option<usize> {
    let refuses = |one: &Judged<'_>| !one.part.is_dry_run && one.exceeded.is_some();
    judged.iter().position(refuses)
}

/// A part, judged by itself.
struct Judged<'p> {
    part: &'p Part,
    account: Account,
    /// The units that the message lacks, and those of them that are to be charged.
    lacks: u64,
    pays: u64,
    exceeded: Option<Exceeded>,
    /// Whether all units passed, and whether they were charged.
    has_passed: bool,
    is_charged: bool,
    has_changed: bool,
}

impl<'p> Judged<'p> {
    /// Returns a part that needs its units.
    fn of(part: &'p Part) -> Self {
        let (Units::Add(units) | Units::UpTo(units)) = part.units;
        Self {
            part,
            account: Account::default(),
            lacks: units,
            pays: units,
            exceeded: None,
            has_passed: false,
            is_charged: false,
            has_changed: false,
        }
    }

    fn new<L: Ledger>(
        ledger: &mut L,
        question: &Question,
        part: &'p Part,
        known: &Known,
        now_ms: u64,
    ) -> Result<Self, L::Error> {
        let charge = known.charge(part);
        let (passed, refused) = charge.map_or((0, 0), |charge| (charge.passed, charge.refused));
        let mut judged = Self::of(part);
        if let Units::UpTo(units) = part.units {
            judged.lacks = units.saturating_sub(passed);
            // What was refused and charged is paid, and still may not pass.
            judged.pays = judged.lacks.saturating_sub(refused);
        }
        // A message that needs no more passes, even where the limit has been lowered since.
        if judged.lacks > 0 {
            judged.account = ledger.account(&part.key(&question.table))?;
            judged.account.settle(now_ms);
            if let Mode::Reserve(id) = question.mode {
                // The same question again, whose first answer was lost.
                judged.account.held.end(id);
            }
            // Nobody waits for a limit that only counts: it is judged by what is kept.
            if !matches!(question.mode, Mode::Reserve(_)) || !part.is_dry_run {
                judged.exceeded = judged.judge(now_ms);
            }
        }
        Ok(judged)
    }

    /// Returns the window without room that lasts longest, if there is one.
    fn judge(&mut self, now_ms: u64) -> Option<Exceeded> {
        let mut worst: Option<Exceeded> = None;
        // A limit that refuses nobody need not wait for what becomes of reserved units.
        let (held, held_for) = match self.part.is_dry_run {
            true => (0, Duration::ZERO),
            false => (self.account.held.units(), self.account.held.rest(now_ms)),
        };
        for &Rate { window, most } in &self.part.rates {
            let state = self.account.window(window);
            state.most = most;
            let Some(most) = most else {
                continue;
            };
            let used = state.frames.used().saturating_add(held);
            if used.saturating_add(self.pays) <= most {
                continue;
            }
            // Too long by what is released before it expires.
            let wait = state.frames.wait(now_ms, window, most, self.pays);
            let wait = wait.max(held_for);
            let is_news = !(state.news_ms..state.quiet_until()).contains(&now_ms);
            if worst.is_none_or(|worst| wait > worst.wait) {
                worst = Some(Exceeded {
                    window,
                    most,
                    used,
                    wait,
                    is_news,
                });
            }
        }
        worst
    }

    /// Charges the account or reserves its units, as the fate of the request demands.
    fn conclude(&mut self, mode: Mode, is_refused: bool, now_ms: u64) {
        if self.lacks == 0 {
            return;
        }
        let is_charging = mode == Mode::Decide;
        let is_noted = match mode {
            Mode::Check | Mode::Decide => true,
            Mode::Peek | Mode::Reserve(_) | Mode::Keep(_) | Mode::Release(_) => false,
        };
        self.has_passed = is_charging && !is_refused;
        self.is_charged = is_charging && (!is_refused || self.part.charges_refused);
        if self.is_charged {
            self.account.charge(self.part, self.pays, now_ms);
        }
        self.note_news(is_noted, now_ms);
        self.has_changed |= self.is_charged && self.pays > 0;
        if let Mode::Reserve(id) = mode
            && !is_refused
            && !self.part.is_dry_run
        {
            self.account.held.add(id, self.pays, now_ms);
            // Windows that were only looked at need not be kept.
            self.account.settle(now_ms);
            self.has_changed = true;
        }
    }

    /// Notes that the account has reached its limit, or that this is no news.
    fn note_news(&mut self, is_noted: bool, now_ms: u64) {
        match &mut self.exceeded {
            Some(exceeded) if exceeded.is_news && is_noted => {
                self.account.window(exceeded.window).news_ms = now_ms;
                self.has_changed = true;
            }
            Some(exceeded) => exceeded.is_news = false,
            None => {}
        }
    }

    /// Ends a reservation.
    fn end(&mut self, mode: Mode, id: u64, now_ms: u64) {
        if !matches!(mode, Mode::Keep(_)) {
            self.has_changed = self.account.held.end(id);
        } else if self.account.held.keep(id, now_ms) && self.pays > 0 {
            if self.part.is_dry_run {
                self.exceeded = self.judge(now_ms);
                self.note_news(true, now_ms);
            }
            self.account.charge(self.part, self.pays, now_ms);
            self.has_changed = true;
        }
    }

    /// Notes the charge in the state of the message.
    fn note(&self, known: &mut Known) {
        if !self.has_passed && !self.is_charged {
            return;
        }
        let (part, pays) = (self.part, self.pays);
        let charge = known.charge_mut(part);
        match (self.has_passed, part.units) {
            (true, Units::Add(units)) => charge.passed = charge.passed.saturating_add(units),
            (true, Units::UpTo(_)) => {
                charge.passed = charge.passed.saturating_add(self.lacks);
                charge.refused -= self.lacks - pays;
            }
            (false, _) => charge.refused = charge.refused.saturating_add(pays),
        }
    }
}

impl Known {
    fn charge(&self, part: &Part) -> Option<&Charge> {
        let mut charges = self.charges.iter();
        charges.find(|c| c.limit == *part.limit && c.account == part.account)
    }

    fn charge_mut(&mut self, part: &Part) -> &mut Charge {
        let is_it = |c: &Charge| c.limit == *part.limit && c.account == part.account;
        let at = self.charges.iter().position(is_it);
        let at = at.unwrap_or_else(|| {
            self.charges.push(Charge {
                limit: part.limit.to_string(),
                account: part.account.clone(),
                passed: 0,
                refused: 0,
            });
            self.charges.len() - 1
        });
        &mut self.charges[at]
    }
}
