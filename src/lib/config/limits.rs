//! Limits: how much an account may use.

use std::time::Duration;

use super::template::{Part, Placeholder, Template};
use super::values::UNITS;
use crate::protocol::facts::Count;

/// One limit of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Its name in logs, metrics and `--limits`.
    pub name: String,
    /// Whose use is counted: the first of these whose placeholders all have a value.
    pub by: Vec<Template>,
    /// The characters that begin an extension, which is cut off the local part of an account.
    pub delimiter: Option<String>,
    /// Each window, and where its number comes from: at most four.
    pub rates: Vec<(Duration, RateSource)>,
    /// The numbers for when the call fails or finds nothing. With the windows of `rates` there are
    /// four at most.
    pub fallback: Option<Vec<(Duration, u64)>>,
    /// What is counted.
    pub count: Count,
    /// Whether what is refused is charged as well.
    pub charges_refused: bool,
    /// Accounts in lower case, or `@domain`, that are not counted.
    pub exempt: Vec<String>,
    /// The action for what does not fit, with the placeholders of `Exceeding`.
    pub on_exceeded: Template,
    /// Whether it only counts and logs.
    pub is_dry_run: bool,
}

/// Where the number of a rate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateSource {
    /// The file.
    Fixed(u64),
    /// This JSON Pointer into the answer of the table's target.
    Pointer(String),
}

impl Limit {
    /// Returns whether any of its numbers comes from the answer of a call.
    pub fn has_pointer(&self) -> bool {
        let mut sources = self.rates.iter().map(|(_, source)| source);
        sources.any(|source| matches!(source, RateSource::Pointer(_)))
    }

    /// Returns the action for a request that exceeds the limit.
    pub fn action(&self, exceeding: &Exceeding) -> String {
        let part = |part: &Part| match part {
            Part::Literal(text) => text.clone(),
            Part::Placeholder(Placeholder::Value(word)) => match word.as_str() {
                "name" => self.name.clone(),
                "limit" => exceeding.limit.to_string(),
                "used" => exceeding.used.to_string(),
                "window" => window_text(exceeding.window),
                _ => wait_text(exceeding.wait),
            },
            Part::Placeholder(_) => String::new(),
        };
        self.on_exceeded.parts.iter().map(part).collect()
    }
}

/// What the action for a request that does not fit can say.
#[derive(Clone, Copy, Debug)]
pub struct Exceeding {
    /// The most units in the window.
    pub limit: u64,
    /// The units that are used.
    pub used: u64,
    /// The length of the window.
    pub window: Duration,
    /// How long it takes until there is room.
    pub wait: Duration,
}

/// The largest number of a limit: more is none, and every store can count as far as this.
pub const MAX_NUMBER: u64 = 1_000_000_000_000_000;

/// Returns a window in the largest unit of which it is a multiple: "1h".
pub fn window_text(window: Duration) -> String {
    let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    let unit = UNITS.iter().find(|(_, unit)| millis.is_multiple_of(*unit));
    unit.map_or_else(String::new, |(name, unit)| {
        format!("{}{name}", millis / unit)
    })
}

/// Returns a time in one unit, rounded up: "48m". The unit is small enough that an hour and a
/// minute are not rounded to two hours.
pub fn wait_text(wait: Duration) -> String {
    let mut seconds = wait.as_secs();
    if wait.subsec_nanos() > 0 {
        seconds = seconds.saturating_add(1);
    }
    let (minutes, hours) = (seconds.div_ceil(60), seconds.div_ceil(3_600));
    if seconds < 100 {
        format!("{seconds}s")
    } else if minutes < 100 {
        format!("{minutes}m")
    } else if hours < 48 {
        format!("{hours}h")
    } else {
        format!("{}d", seconds.div_ceil(86_400))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::with_unit;

    #[test]
    fn a_window_is_shown_in_its_largest_unit() {
        for (text, expected) in [
            ("1m", "1m"),
            ("60s", "1m"),
            ("90s", "90s"),
            ("60001ms", "60001ms"),
            ("90m", "90m"),
            ("24h", "1d"),
            ("36h", "36h"),
            ("31d", "31d"),
        ] {
            let window = with_unit(text).unwrap();
            assert_eq!(window_text(window), expected, "{text}");
        }
    }

    #[test]
    fn a_time_is_rounded_up_to_one_unit() {
        for (millis, expected) in [
            (0, "0s"),
            (1, "1s"),
            (45_000, "45s"),
            (99_000, "99s"),
            (99_001, "2m"),
            (48 * 60_000, "48m"),
            (60 * 60_000 + 1, "61m"),
            (99 * 60_000, "99m"),
            (99 * 60_000 + 1, "2h"),
            (5 * 3_600_000, "5h"),
            (24 * 3_600_000 + 1, "25h"),
            (47 * 3_600_000, "47h"),
            (47 * 3_600_000 + 1, "2d"),
            (3 * 86_400_000, "3d"),
            (31 * 86_400_000 + 1, "32d"),
        ] {
            assert_eq!(
                wait_text(Duration::from_millis(millis)),
                expected,
                "{millis}"
            );
        }
    }
}
