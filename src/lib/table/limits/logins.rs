//! Logins whose refusals are counted: asked about while there is room for one more refusal.

use super::pending::Turn;
use super::{Limits, Touched, numbers};
use crate::limits::{Mode, Part, Units};
use crate::outcome::{Failure, Outcome, Reason};
use crate::request::Request;

impl Limits {
    /// Answers a login, if no account of it has reached its limit, and charges a refusal by the
    /// backend. The answer is an error if the backend was not asked.
    pub async fn login(
        &self,
        request: &Request,
        answer: impl Future<Output = Result<Outcome, Outcome>>,
        is_preview: bool,
    ) -> Outcome {
        let touched = match self.touched(request, is_preview) {
            Ok(touched) => touched,
            Err(failure) => return Outcome::Temporary(failure),
        };
        let turn = match self.turn(request, &touched, is_preview).await {
            Ok(turn) => turn,
            Err(limit) => {
                return Outcome::Temporary(Failure::new(Reason::LimitReached, limit));
            }
        };
        let answer = answer.await;
        if let Ok(Outcome::NotFound | Outcome::Refused(_)) = &answer
            && !is_preview
        {
            let ones = vec![1; touched.len()];
            self.ask(request, &touched, &ones, Mode::Charge).await;
        }
        // Not before the charge: those that wait have to see it.
        drop(turn);
        answer.unwrap_or_else(|outcome| outcome)
    }

    /// Waits until there is room for one more refusal in each limit, whatever becomes of the logins
    /// that are being asked about. Fails with the name of a limit that has none without them.
    async fn turn(
        &self,
        request: &Request,
        touched: &[Touched],
        is_preview: bool,
    ) -> Result<Turn<'_>, String> {
        let keys = touched.iter().map(|one| (one.at, one.account.name.clone()));
        let keys: Vec<_> = keys.collect();
        let ones = vec![1; touched.len()];
        let mode = if is_preview { Mode::Peek } else { Mode::Check };
        loop {
            let answered = self.pending.answered();
            tokio::pin!(answered);
            // From here on no answer is missed.
            answered.as_mut().enable();
            let deciding = self.pending.decide().await;
            let others = self.pending.counts(&keys);
            let all: Vec<_> = others.iter().map(|count| count.saturating_add(1)).collect();
            let has_others = others.iter().any(|count| *count > 0);
            if has_others
                && self.ask(request, touched, &all, Mode::Peek).await.is_some()
                && self
                    .ask(request, touched, &ones, Mode::Peek)
                    .await
                    .is_none()
            {
                drop(deciding);
                answered.await;
                continue;
            }
            return match self.ask(request, touched, &ones, mode).await {
                None => Ok(self.pending.add(keys)),
                Some(limit) => Err(limit),
            };
        }
    }

    /// Asks the store for room for so many refusals of each account; returns the name of the limit
    /// that has none.
    async fn ask(
        &self,
        request: &Request,
        touched: &[Touched],
        counts: &[u64],
        mode: Mode,
    ) -> Option<String> {
        let part = |(one, count): (&Touched, &u64)| -> Option<(usize, Part)> {
            let rates = numbers::rates(&self.limits[one.at], None).ok()?;
            Some((one.at, self.part(one, Units::Add(*count), rates)))
        };
        let parts = touched.iter().zip(counts).filter_map(part);
        let (places, parts): (Vec<_>, Vec<_>) = parts.unzip();
        let (at, _) = self.refusal(request, parts, &places, touched, mode).await?;
        Some(self.limits[at].name.clone())
    }
}
