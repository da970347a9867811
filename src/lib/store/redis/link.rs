//! The connections to a Redis, one for each thread that serves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::connect::{Connector, Live};
use super::failure::Failure;
use crate::config::RedisUrl;
use crate::serve::workers::PerWorker;
use crate::store::error::StoreError;

/// The connections to a Redis. Each is made by the first question that needs it, and made anew
/// after any failure.
#[derive(Debug)]
pub(super) struct Link {
    connector: Connector,
    /// One for each thread, so that no answer wakes another thread. Held while connecting: others
    /// wait for this connection and make none.
    slots: PerWorker<Mutex<Slot>>,
    timeout: Duration,
}

#[derive(Debug, Default)]
struct Slot {
    live: Option<Arc<Live>>,
    /// The last attempt to connect, if it failed: when, and why.
    failed: Option<(Instant, Failure)>,
}

impl Link {
    pub(super) fn new(url: &RedisUrl, timeout: Duration) -> Result<Self, StoreError> {
        Ok(Self {
            connector: Connector::new(url, timeout)?,
            slots: PerWorker::default(),
            timeout,
        })
    }

    /// Runs commands on a connection, within the timeout.
    ///
    /// Where they may be repeated, a connection that breaks under them is replaced once: that a
    /// Redis was restarted is noticed too late where its end comes with the question.
    pub(super) async fn run<T, F>(
        &self,
        may_repeat: bool,
        mut commands: impl FnMut(Arc<Live>) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let (live, is_new) = self.live(started, deadline).await?;
        match self.attempt(live, deadline, &mut commands).await {
            Err(Failure::Broken(_)) if may_repeat && !is_new => {
                let (live, _) = self.live(started, deadline).await?;
                Ok(self.attempt(live, deadline, &mut commands).await?)
            }
            result => Ok(result?),
        }
    }

    /// Runs commands on a connection, which is given up if they fail.
    async fn attempt<T, F>(
        &self,
        live: Arc<Live>,
        deadline: Instant,
        commands: &mut impl FnMut(Arc<Live>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let result = timeout_at(deadline, commands(Arc::clone(&live))).await;
        let result = result.unwrap_or_else(|_| Err(self.timed_out()));
        if result.is_err() {
            self.forget(&live);
        }
        result
    }

    /// Returns the connection of this thread, and whether it was made for this question.
    async fn live(
        &self,
        started: Instant,
        deadline: Instant,
    ) -> Result<(Arc<Live>, bool), Failure> {
        let slot = timeout_at(deadline, self.slots.local().lock()).await;
        let mut slot = slot.map_err(|_| self.timed_out())?;
        if let Some(live) = slot.live.as_ref().filter(|live| live.is_open()) {
            return Ok((Arc::clone(live), false));
        }
        slot.live = None;
        // Those who have waited for an attempt share its failure.
        if let Some((at, failure)) = &slot.failed
            && started <= *at
        {
            return Err(failure.clone());
        }
        // Boxed because it is rare: every request of every program would have room for it.
        let connecting = Box::pin(self.connector.connect());
        let connected = timeout_at(deadline, connecting).await;
        match connected.unwrap_or_else(|_| Err(self.timed_out())) {
            Ok(live) => {
                let live = Arc::new(live);
                *slot = Slot {
                    live: Some(Arc::clone(&live)),
                    failed: None,
                };
                Ok((live, true))
            }
            Err(failure) => {
                // A Redis that hangs up during the login has not done anything.
                let failure = match failure {
                    Failure::Broken(text) => Failure::Other(text),
                    failure => failure,
                };
                slot.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// Gives up a connection, unless it has been replaced already. Others that wait for an answer
    /// on it may still get one.
    fn forget(&self, live: &Arc<Live>) {
        // Whoever holds the lock is replacing it.
        let Ok(mut slot) = self.slots.local().try_lock() else {
            return;
        };
        if slot.live.as_ref().is_some_and(|is| Arc::ptr_eq(is, live)) {
            slot.live = None;
        }
    }

    fn timed_out(&self) -> Failure {
        Failure::Other(format!("no answer within {:?}", self.timeout))
    }
}
