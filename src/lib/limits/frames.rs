//! The units of one window, counted in frames of a sixtieth of the window.
//!
//! A unit is counted with its frame, and the frame until the last unit that it could hold has left
//! the window. So no window ever holds more than was counted, and a unit is free again at most a
//! sixtieth of the window late.

use std::time::Duration;

/// The frames in a window. One more is counted: the oldest is partly outside.
pub const FRAMES: u64 = 60;

/// Returns the number of the frame at a time, both since the Unix epoch.
pub fn frame_at(now_ms: u64, window: Duration) -> u64 {
    now_ms.saturating_mul(FRAMES) / millis(window)
}

/// Returns when a frame begins.
fn start_of(frame: u64, window: Duration) -> u64 {
    frame.saturating_mul(millis(window)).div_ceil(FRAMES)
}

/// Returns a window in milliseconds.
pub fn millis(window: Duration) -> u64 {
    u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The units of one window by the number of their frame, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames(pub Vec<(u64, u64)>);

impl Frames {
    /// Drops what has left the window, and counts what lies in the future as used in this frame:
    /// the clock was set back.
    pub fn settle(&mut self, frame: u64) {
        let oldest = frame.saturating_sub(FRAMES);
        let mut future = 0_u64;
        self.0.retain(|&(at, units)| {
            if at > frame {
                future = future.saturating_add(units);
            }
            (oldest..=frame).contains(&at)
        });
        self.add(frame, future);
    }

    /// Counts units in a frame, which is not older than the last.
    pub fn add(&mut self, frame: u64, units: u64) {
        match self.0.last_mut() {
            _ if units == 0 => {}
            Some((at, count)) if *at == frame => *count = count.saturating_add(units),
            _ => self.0.push((frame, units)),
        }
    }

    /// Returns the units of all frames.
    pub fn used(&self) -> u64 {
        let units = self.0.iter().map(|(_, units)| *units);
        units.fold(0, u64::saturating_add)
    }

    /// Returns how long it takes until so many further units fit; the whole window if they never
    /// do.
    pub fn wait(&self, now_ms: u64, window: Duration, most: u64, units: u64) -> Duration {
        let mut used = self.used();
        let fits = |used: u64| used.saturating_add(units) <= most;
        if fits(used) {
            return Duration::ZERO;
        }
        for (frame, freed) in &self.0 {
            used = used.saturating_sub(*freed);
            if fits(used) {
                let free_at = start_of(frame + FRAMES + 1, window);
                return Duration::from_millis(free_at.saturating_sub(now_ms));
            }
        }
        window
    }
}
