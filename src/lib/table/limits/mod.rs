//! The limits of one table: whether the accounts of a request have room, and what is said if not.
//!
//! `account` finds whose use a request is, and `numbers` how much that account may use. All limits
//! of a request are one question to the store. `logins` counts logins that are refused, and
//! `pending` has those under way.

pub mod account;
mod logins;
pub mod numbers;
pub mod pending;
mod shown;

use std::sync::Arc;

use tracing::warn;

use crate::config::{self, Exceeding, Limit, wait_text, window_text};
use crate::limits::{Exceeded, Message, Mode, Part, Question, Rate, Units};
use crate::observe::log::printable;
use crate::observe::meter::LimitMeter;
use crate::observe::metrics::Metrics;
use crate::observe::throttle::Throttle;
use crate::outcome::{Failure, Outcome};
use crate::protocol::facts::{Counting, Needs};
use crate::protocol::policy::action::lets_pass;
use crate::protocol::policy::rules::PolicyActions;
use crate::request::Request;
use crate::store::Store;
use crate::table::Asked;
use crate::table::calls::Calls;
use account::{Account, bounded};
use numbers::Group;
use pending::Pending;

/// What the limits of all tables of a program share.
#[derive(Debug)]
pub struct Counters {
    /// Where the use of limits is kept.
    pub store: Arc<Store>,
    /// The warnings about accounts that have reached a limit.
    reached: Throttle,
    /// The logins under way, which outlive a reload.
    pending: Arc<Pending>,
}

impl Counters {
    /// Makes the counters of a program that keeps them in this store.
    pub fn new(store: Arc<Store>) -> Self {
        /// How many accounts a log names in ten seconds, so that many stolen ones do not fill it.
        const MOST: usize = 10;
        Self {
            store,
            reached: Throttle::new(MOST),
            pending: Arc::default(),
        }
    }
}

/// The limits of one table.
#[derive(Debug)]
pub struct Limits {
    /// The name of the table in the log.
    name: String,
    /// The program and the table, as the store has them.
    table: Arc<str>,
    counting: &'static Counting,
    limits: Vec<Limit>,
    /// The name and the counters of each limit.
    meters: Vec<(Arc<str>, LimitMeter)>,
    actions: PolicyActions,
    counters: Arc<Counters>,
    /// The warnings about numbers that are unknown, where no other line says so.
    unknown: Throttle,
}

/// One limit that a request touches.
#[derive(Debug)]
struct Touched {
    /// The place of the limit in the table.
    at: usize,
    account: Account,
    /// What the request needs, if the limit counts in this state of the message.
    units: Option<Units>,
}

/// The limits of a request, as far as their numbers are known.
#[derive(Debug, Default)]
struct Known {
    /// The places of the limits whose numbers are known, and what the store is asked of each.
    places: Vec<usize>,
    parts: Vec<Part>,
    /// The others: those that use their fallback, those that are left out, and those of them that
    /// refuse nobody.
    with_fallback: Unknown,
    uncounted: Unknown,
    uncounted_dry: Unknown,
}

/// Limits whose numbers are unknown.
#[derive(Debug, Default)]
struct Unknown {
    places: Vec<usize>,
    cause: Option<Outcome>,
}

impl Unknown {
    /// Adds a limit. Of several causes, a failure counts more than "not found", which may let the
    /// mail pass.
    fn add(&mut self, at: usize, outcome: Outcome) {
        self.places.push(at);
        let is_weaker = match &self.cause {
            None => true,
            Some(cause) => cause.failure().is_none() && outcome.failure().is_some(),
        };
        if is_weaker {
            self.cause = Some(outcome);
        }
    }
}

/// Returns the name of a table in the store.
pub fn table_name(table: &config::Table) -> String {
    format!("{}.{}", table.protocol.name, table.name)
}

impl Limits {
    /// Makes the limits of a table, if it has any.
    pub fn new(table: &config::Table, counters: &Arc<Counters>, metrics: &Metrics) -> Option<Self> {
        let counting = table.protocol.counting?;
        let limits = table.endpoint.limits.clone();
        if limits.is_empty() {
            return None;
        }
        let meter = |limit: &Limit| {
            let name = limit.name.as_str();
            (Arc::from(name), metrics.limit_meter(&table.name, name))
        };
        Some(Self {
            name: table.name.clone(),
            table: table_name(table).into(),
            counting,
            meters: limits.iter().map(meter).collect(),
            limits,
            actions: table.endpoint.actions.clone(),
            counters: Arc::clone(counters),
            unknown: Throttle::new(1),
        })
    }

    /// Returns their names.
    pub fn limit_names(&self) -> Vec<String> {
        self.limits.iter().map(|limit| limit.name.clone()).collect()
    }

    /// Returns what the limits share with those of other tables.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Answers a request: with the action of a limit that has no room, with why a number is unknown,
    /// or with the action that lets the request pass. A preview charges and records nothing.
    pub async fn answer(
        &self,
        request: &Request,
        asked: Asked,
        calls: &Calls,
        is_preview: bool,
    ) -> Outcome {
        let touched = match self.touched(request, is_preview) {
            Ok(touched) => touched,
            Err(failure) => return Outcome::Temporary(failure),
        };
        let passed = || Outcome::Found(self.counting.passed.to_owned());
        if touched.iter().all(|one| one.units.is_none()) {
            return passed();
        }
        let mut known = self.with_numbers(&touched, asked, calls).await;
        // What is said unless a limit refuses the request.
        let said = self.without_refusal(&known).unwrap_or_else(passed);
        let mode = match self.actions.fallback(&said) {
            _ if is_preview => Mode::Peek,
            // What is refused for another reason is not charged.
            Some(reply) if !lets_pass(reply) => Mode::Check,
            _ => Mode::Decide,
        };
        let parts = std::mem::take(&mut known.parts);
        let refusal = self
            .decide(request, parts, &known.places, &touched, mode)
            .await;
        let outcome = refusal.map_or(said, Outcome::Found);
        if !is_preview {
            self.record_unknown(&known, &outcome);
        }
        outcome
    }

    /// Returns the limits that count this request for an account of it.
    fn touched(&self, request: &Request, is_preview: bool) -> Result<Vec<Touched>, Failure> {
        let mut touched = Vec::with_capacity(self.limits.len());
        for (at, limit) in self.limits.iter().enumerate() {
            let Some(account) = Account::of(request, limit) else {
                shown::uncounted(limit, "the request has no account for it");
                continue;
            };
            let needs = (self.counting.needs)(request, limit.count);
            if account.is_exempt(limit) {
                shown::uncounted(limit, "its account is exempt");
                if matches!(needs, Ok(Some(_))) && !is_preview {
                    self.meters[at].1.exempt.inc();
                }
                continue;
            }
            let units = needs?.map(|needs| match needs {
                Needs::More(units) => Units::Add(units),
                Needs::InAll(units) => Units::UpTo(units),
            });
            if units.is_none() {
                shown::uncounted(limit, "this state is not counted, or has no instance");
            }
            touched.push(Touched { at, account, units });
        }
        Ok(touched)
    }

    /// Finds the numbers of each limit, by a call for each account that needs one.
    async fn with_numbers(&self, touched: &[Touched], asked: Asked, calls: &Calls) -> Known {
        let groups = self.groups(touched);
        let documents = numbers::fetch(&groups, &self.limits, calls, asked).await;
        let document = |at: usize| {
            let mut answered = groups.iter().zip(&documents);
            answered.find(|(group, _)| group.limits.contains(&at))
        };
        let mut known = Known::default();
        for one in touched {
            let (at, limit) = (one.at, &self.limits[one.at]);
            let Some(units) = one.units else {
                continue;
            };
            let rates = match document(at) {
                None => numbers::rates(limit, None).map_err(Outcome::Temporary),
                Some((_, Ok(document))) => {
                    numbers::rates(limit, Some(document)).map_err(Outcome::Temporary)
                }
                Some((_, Err(outcome))) => Err(outcome.clone()),
            };
            let rates = match (rates, numbers::fallback(limit)) {
                (Ok(rates), _) => rates,
                (Err(outcome), Some(rates)) => {
                    known.with_fallback.add(at, outcome);
                    rates
                }
                (Err(outcome), None) => {
                    let unknown = match limit.is_dry_run {
                        true => &mut known.uncounted_dry,
                        false => &mut known.uncounted,
                    };
                    unknown.add(at, outcome);
                    continue;
                }
            };
            known.places.push(at);
            known.parts.push(self.part(one, units, rates));
        }
        known
    }

    /// Returns the accounts that a call has to be made for, each with all its limits: those that do
    /// not count in this state are asked for as well, so that the answer can be used again in the
    /// next.
    fn groups<'t>(&self, touched: &'t [Touched]) -> Vec<Group<'t>> {
        let mut groups: Vec<(Group<'t>, bool)> = Vec::new();
        for one in touched
            .iter()
            .filter(|one| self.limits[one.at].has_pointer())
        {
            let is_same = |(group, _): &&mut (Group<'t>, bool)| *group.account == one.account;
            let is_needed = one.units.is_some();
            match groups.iter_mut().find(is_same) {
                Some((group, any_needed)) => {
                    group.limits.push(one.at);
                    *any_needed |= is_needed;
                }
                None => {
                    let group = Group {
                        account: &one.account,
                        limits: vec![one.at],
                    };
                    groups.push((group, is_needed));
                }
            }
        }
        let needed = groups.into_iter().filter(|(_, is_needed)| *is_needed);
        needed.map(|(group, _)| group).collect()
    }

    fn part(&self, one: &Touched, units: Units, rates: Vec<Rate>) -> Part {
        let limit = &self.limits[one.at];
        Part {
            limit: Arc::clone(&self.meters[one.at].0),
            account: one.account.name.clone(),
            rates,
            units,
            charges_refused: limit.charges_refused,
            is_dry_run: limit.is_dry_run,
        }
    }

    /// Returns the outcome of a request whose numbers are unknown, if there are any that it needs.
    fn without_refusal(&self, known: &Known) -> Option<Outcome> {
        let mut outcome = known.uncounted.cause.clone()?;
        if let Outcome::Temporary(failure) | Outcome::Permanent(failure) = &mut outcome {
            let colon = if failure.detail.is_empty() { "" } else { "; " };
            let names = self.names(&known.uncounted);
            failure.detail = format!("{}{colon}not counted: {names}", failure.detail).into();
        }
        Some(outcome)
    }

    /// Asks the store, and returns the action of the limit that refuses the request.
    async fn decide(
        &self,
        request: &Request,
        parts: Vec<Part>,
        places: &[usize],
        touched: &[Touched],
        mode: Mode,
    ) -> Option<String> {
        let (at, why) = self.refusal(request, parts, places, touched, mode).await?;
        Some(self.limits[at].action(&Exceeding {
            limit: why.most,
            used: why.used,
            window: why.window,
            wait: why.wait,
        }))
    }

    /// Asks the store, and returns the place of the limit that refuses the request, and why.
    async fn refusal(
        &self,
        request: &Request,
        parts: Vec<Part>,
        places: &[usize],
        touched: &[Touched],
        mode: Mode,
    ) -> Option<(usize, Exceeded)> {
        if parts.is_empty() {
            return None;
        }
        let message = (self.counting.message)(request).map(|message| Message {
            id: bounded(message.id),
            repeat: message.repeat,
        });
        let question = Question {
            table: Arc::clone(&self.table),
            message,
            parts,
            mode,
        };
        let accounts = shown::accounts(&question.parts);
        let decision = self.counters.store.decide(question).await;
        shown::decision(&accounts, &decision);
        if mode != Mode::Peek {
            for (at, result) in places.iter().zip(&decision.parts) {
                self.record(*at, touched, result.err());
            }
        }
        let (part, why) = decision.refusal?;
        Some((*places.get(part)?, why))
    }

    /// Counts a decision, and logs that an account has reached its limit.
    fn record(&self, at: usize, touched: &[Touched], exceeded: Option<Exceeded>) {
        let meter = &self.meters[at].1;
        let Some(why) = exceeded else {
            meter.passed.inc();
            return;
        };
        meter.exceeded.inc();
        let one = touched.iter().find(|one| one.at == at);
        let (Some(one), true) = (one, why.is_news) else {
            return;
        };
        let Some(suppressed) = self.counters.reached.pass() else {
            return;
        };
        let (table, limit) = (self.name.as_str(), &self.limits[at]);
        let account = printable(one.account.name.as_bytes());
        let fate = if limit.is_dry_run {
            ", and is not refused (dry-run)"
        } else {
            ""
        };
        let others = match suppressed {
            0 => String::new(),
            n => format!(" ({n} more accounts have reached a limit)"),
        };
        warn!(
            table,
            limit = limit.name,
            account,
            "{table}: {account} has reached its limit \"{}\": {} of {} in {}, room again in \
             {}{fate}{others}",
            limit.name,
            why.used,
            why.most,
            window_text(why.window),
            wait_text(why.wait),
        );
    }

    /// Counts the limits that were left out, and logs that numbers are unknown, unless the record of
    /// the request says so.
    fn record_unknown(&self, known: &Known, outcome: &Outcome) {
        let uncounted = [&known.uncounted, &known.uncounted_dry];
        for at in uncounted.iter().flat_map(|unknown| &unknown.places) {
            self.meters[*at].1.uncounted.inc();
        }
        let fallback = &known.with_fallback;
        let left_out = uncounted
            .into_iter()
            .find(|unknown| unknown.cause.is_some());
        let (cause, effect) = match (left_out, &fallback.cause) {
            (Some(unknown), _) => (
                unknown.cause.as_ref().unwrap_or(&Outcome::NotFound),
                format!("not counted: {}", self.names(unknown)),
            ),
            // An account that the backend does not know has these numbers for good.
            (None, Some(Outcome::NotFound) | None) => return,
            (None, Some(cause)) => (cause, format!("fallback of {}", self.names(fallback))),
        };
        if outcome.failure().is_some() {
            return;
        }
        let Some(suppressed) = self.unknown.pass() else {
            return;
        };
        let reason = match cause.failure() {
            Some(failure) => failure.reason.to_string(),
            None => "backend knows no such account".to_owned(),
        };
        let others = match suppressed {
            0 => String::new(),
            n => format!(" ({n} more like this)"),
        };
        let table = self.name.as_str();
        warn!(table, reason, "{table}: {reason}: {effect}{others}");
    }

    fn names(&self, unknown: &Unknown) -> String {
        let places = unknown.places.iter();
        let names: Vec<_> = places.map(|at| self.limits[*at].name.as_str()).collect();
        names.join(", ")
    }
}
