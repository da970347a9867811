//! Logins whose refusals are counted: asked about while there is room for one more refusal.
//!
//! A login reserves a unit of each limit before its call, in the store, so that no number of
//! connections, reloads or hosts gets more refusals than a limit has. A refusal charges the units, and
//! any other outcome releases them.

use std::sync::Arc;

use super::pending::{Key, Turn, Wait};
use super::{Limits, Touched, numbers};
use crate::limits::{Decision, Mode, Part, Units};
use crate::outcome::{Failure, Outcome, Reason};
use crate::request::Request;
use crate::store::reserved::Reserved;
use crate::table::cache::CacheKey;

/// What becomes of a login.
enum Begun {
    /// It has room for a refusal, and is asked about; with the places of its limits.
    Asks(Turn, Reserved, Vec<usize>),
    /// The same login was asked about at the same time, and this was its outcome.
    Answered(Outcome),
    /// This limit has no room.
    Refused(String),
}

impl Limits {
    /// Answers a login, if no account of it has reached its limit. A refusal by the backend is
    /// charged. `call` is all that its call carries.
    pub async fn login(
        &self,
        request: &Request,
        call: &CacheKey,
        answer: impl Future<Output = Outcome>,
        is_preview: bool,
    ) -> Outcome {
        let touched = match self.touched(request, is_preview) {
            Ok(touched) => touched,
            Err(failure) => return Outcome::Temporary(failure),
        };
        let refused = |limit| Outcome::Temporary(Failure::new(Reason::LimitReached, limit));
        if touched.is_empty() {
            return answer.await;
        }
        if is_preview {
            return match self.ask(request, &touched, Mode::Peek).await {
                Some(at) => refused(self.name_of(&touched, at)),
                None => answer.await,
            };
        }
        match self.begin(request, &touched, call).await {
            Begun::Refused(limit) => refused(limit),
            Begun::Answered(outcome) => outcome,
            Begun::Asks(turn, reserved, places) => {
                let outcome = answer.await;
                let counted = match outcome {
                    Outcome::NotFound | Outcome::Refused(_) => reserved.keep().await,
                    _ => {
                        reserved.release().await;
                        None
                    }
                };
                self.record_all(&places, &touched, counted.as_ref());
                // Not before the store has it: those that wait have to see it.
                turn.end(&outcome);
                outcome
            }
        }
    }

    /// Reserves a unit of each limit. Where there is none, but others of this process may release
    /// theirs, this waits.
    async fn begin(&self, request: &Request, touched: &[Touched], call: &CacheKey) -> Begun {
        // Logins that have no room themselves are waited for once: more of them would keep each
        // other waiting.
        let mut for_trying = true;
        loop {
            let keys = touched.iter().map(|one| self.key(one)).collect();
            let mut turn = self.counters.pending.begin(keys, Arc::clone(call));
            let at = match self.reserve(touched).await {
                Ok((reserved, places)) => {
                    turn.ask();
                    return Begun::Asks(turn, reserved, places);
                }
                Err(at) => at,
            };
            match turn.refused(at, for_trying) {
                Some(Wait::Room(queued)) => queued.turn().await,
                Some(Wait::Same(mut same)) => {
                    let said = same.wait_for(Option::is_some).await;
                    match said.ok().and_then(|outcome| outcome.clone()) {
                        // The next would be a refusal too many.
                        None | Some(Outcome::NotFound | Outcome::Refused(_)) => {}
                        Some(outcome) => return Begun::Answered(outcome),
                    }
                }
                None => {
                    if let Some(at) = self.ask(request, touched, Mode::Check).await {
                        return Begun::Refused(self.name_of(touched, at));
                    }
                }
            }
            for_trying = false;
        }
    }

    /// Reserves a unit of each limit, and returns it with the places of the limits, or which account
    /// has none.
    async fn reserve(&self, touched: &[Touched]) -> Result<(Reserved, Vec<usize>), usize> {
        let (places, parts) = self.ones(touched);
        let table = Arc::clone(&self.table);
        let (decision, reserved) = self.counters.store.reserve(table, parts).await;
        let at = decision.refusal.and_then(|(part, _)| {
            let place = places.get(part)?;
            touched.iter().position(|one| one.at == *place)
        });
        match reserved {
            Some(reserved) => Ok((reserved, places)),
            None => Err(at.unwrap_or_default()),
        }
    }

    /// Counts that a login has passed its limits; those that only count may have said otherwise.
    fn record_all(&self, places: &[usize], touched: &[Touched], counted: Option<&Decision>) {
        for (part, place) in places.iter().enumerate() {
            let result = counted.and_then(|decision| decision.parts.get(part)?.err());
            self.record(*place, touched, result);
        }
    }

    /// Asks the store for room for a refusal of each account; returns which has none.
    async fn ask(&self, request: &Request, touched: &[Touched], mode: Mode) -> Option<usize> {
        let (places, parts) = self.ones(touched);
        let (place, _) = self.refusal(request, parts, &places, touched, mode).await?;
        touched.iter().position(|one| one.at == place)
    }

    /// Returns one unit of each account, with the places of their limits.
    fn ones(&self, touched: &[Touched]) -> (Vec<usize>, Vec<Part>) {
        let part = |one: &Touched| -> Option<(usize, Part)> {
            let rates = numbers::rates(&self.limits[one.at], None).ok()?;
            Some((one.at, self.part(one, Units::Add(1), rates)))
        };
        touched.iter().filter_map(part).unzip()
    }

    fn key(&self, one: &Touched) -> Key {
        let limit = Arc::clone(&self.meters[one.at].0);
        (Arc::clone(&self.table), limit, one.account.name.clone())
    }

    fn name_of(&self, touched: &[Touched], at: usize) -> String {
        self.limits[touched[at].at].name.clone()
    }
}
