//! The limit of calls in flight: of one table, and of all tables together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The limit of the calls of one table, within that of the whole program.
#[derive(Debug)]
pub struct InFlightLimit {
    max: usize,
    of_table: Arc<Semaphore>,
    of_program: Arc<Semaphore>,
}

/// What one call holds for as long as any of its requests or answers uses a connection.
#[derive(Debug)]
pub struct InFlightPermits {
    _of_table: OwnedSemaphorePermit,
    _of_program: OwnedSemaphorePermit,
}

impl InFlightLimit {
    /// Makes the limit of a table.
    pub fn new(max: usize, of_program: Arc<Semaphore>) -> Self {
        Self {
            max,
            of_table: Arc::new(Semaphore::new(max)),
            of_program,
        }
    }

    /// Returns how many calls of the table are in flight.
    pub fn count(&self) -> usize {
        self.max.saturating_sub(self.of_table.available_permits())
    }

    /// Takes a call in if it is within both limits now, and no other waits.
    pub fn try_acquire(&self) -> Option<InFlightPermits> {
        Some(InFlightPermits {
            _of_table: Arc::clone(&self.of_table).try_acquire_owned().ok()?,
            _of_program: Arc::clone(&self.of_program).try_acquire_owned().ok()?,
        })
    }

    /// Waits until the call is within both limits.
    ///
    /// The table's comes first: the calls of a table at its own limit must not wait with a permit
    /// that a call of another table could use.
    pub async fn acquire(&self) -> Option<InFlightPermits> {
        Some(InFlightPermits {
            _of_table: Arc::clone(&self.of_table).acquire_owned().await.ok()?,
            _of_program: Arc::clone(&self.of_program).acquire_owned().await.ok()?,
        })
    }
}
