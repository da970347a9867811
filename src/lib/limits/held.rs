//! Units that are reserved: they count as used until they are kept, released or expired.
//!
//! Each reservation has an id, so that nobody gives back the units of another, whatever happened
//! meanwhile: a store that was emptied, an account that was reset, a second try after a broken
//! connection. One that nobody ends, because its program was stopped or its store did not answer,
//! expires.

use std::time::Duration;

use super::frames::millis;

/// How long units stay reserved: longer than a program takes for a login.
pub const HELD_FOR: Duration = Duration::from_secs(15);

/// One reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub id: u64,
    /// When it expires, in milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// The units; 0 once they are charged. It is known for as long that they are, so that the same
    /// question again charges nothing.
    pub units: u64,
}

/// The reservations of an account, in no particular order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds(pub Vec<Held>);

impl Holds {
    /// Returns the units of all reservations.
    pub fn units(&self) -> u64 {
        let units = self.0.iter().map(|held| held.units);
        units.fold(0, u64::saturating_add)
    }

    /// Returns how long it takes until the last units have expired.
    pub fn rest(&self, now_ms: u64) -> Duration {
        let holding = self.0.iter().filter(|held| held.units > 0);
        let last = holding.map(|held| held.until_ms).max();
        Duration::from_millis(last.unwrap_or_default().saturating_sub(now_ms))
    }

    /// Returns how long they are known at most.
    pub fn lifetime_ms(&self) -> u64 {
        match self.0.is_empty() {
            true => 0,
            false => millis(HELD_FOR),
        }
    }

    /// Reserves units.
    pub fn add(&mut self, id: u64, units: u64, now_ms: u64) {
        self.0.push(Held {
            id,
            until_ms: now_ms.saturating_add(millis(HELD_FOR)),
            units,
        });
    }

    /// Ends a reservation whose units are charged, and returns whether they are not charged yet.
    pub fn keep(&mut self, id: u64, now_ms: u64) -> bool {
        let is_charged = self.0.iter().any(|held| held.id == id && held.units == 0);
        if !is_charged {
            self.end(id);
            self.add(id, 0, now_ms);
        }
        !is_charged
    }

    /// Ends a reservation, and returns whether it was there.
    pub fn end(&mut self, id: u64) -> bool {
        let before = self.0.len();
        self.0.retain(|held| held.id != id);
        self.0.len() < before
    }

    /// Drops reservations that have expired.
    pub fn settle(&mut self, now_ms: u64) {
        self.0.retain(|held| held.until_ms > now_ms);
        // Later than that it cannot be, unless the clock was set back.
        let latest = now_ms.saturating_add(millis(HELD_FOR));
        for held in &mut self.0 {
            held.until_ms = held.until_ms.min(latest);
        }
    }
}
