//! Numbers and times as a person reads them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::html::Html;

/// Returns a number in groups of three digits.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns a count and its unit.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// Returns the time that requests took, which is infinite over the last bound of the histogram.
pub(super) fn seconds(seconds: Option<f64>) -> String {
    match seconds {
        None => "\u{2013}".to_owned(),
        Some(seconds) if seconds.is_infinite() => "over 30 s".to_owned(),
        Some(seconds) if seconds < 0.009_95 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) if seconds < 0.999_5 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

/// Returns a length of time, in its two largest units.
pub(super) fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} {} h", counted(days, "day", "days"), hours % 24),
    }
}

/// The time of the page, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) wall: SystemTime,
    pub(super) instant: Instant,
}

impl Now {
    /// Adds a moment, and how long ago it was.
    pub(super) fn moment(self, html: &mut Html, moment: Instant) {
        let ago = self.instant.saturating_duration_since(moment);
        self.write(html, ago);
    }

    /// Adds a moment of the wall's clock.
    pub(super) fn wall_moment(self, html: &mut Html, moment: SystemTime) {
        let ago = self.wall.duration_since(moment);
        self.write(html, ago.unwrap_or_default());
    }

    fn write(self, html: &mut Html, ago: Duration) {
        let moment = self.wall.checked_sub(ago).unwrap_or(UNIX_EPOCH);
        time(html, moment);
        html.raw(" <small>(")
            .text(&length(ago))
            .raw(" ago)</small>");
    }
}

/// Adds a time.
pub(super) fn time(html: &mut Html, moment: SystemTime) {
    let [date, time] = utc(moment);
    html.raw("<time datetime=\"")
        .text(&date)
        .raw("T")
        .text(&time);
    html.raw("Z\">").text(&date).raw(" ").text(&time);
    html.raw(" UTC</time>");
}

/// Returns the date and the time of day in UTC, as ISO 8601 writes them.
fn utc(moment: SystemTime) -> [String; 2] {
    let seconds = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, of_day) = (seconds.as_secs() / 86_400, seconds.as_secs() % 86_400);
    // Years begin in March here, so that the leap day is the last one of a year; 719,468 days before
    // 1970 a cycle of 400 such years begins (Hinnant, "chrono-Compatible Low-Level Date
    // Algorithms").
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..=9 => (era * 400 + year, month + 3),
        _ => (era * 400 + year + 1, month - 9),
    };
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    [
        format!("{year}-{month:02}-{day:02}"),
        format!("{hour:02}:{minute:02}:{second:02}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_groups() {
        for (given, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(number(given), expected);
        }
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        for (given, expected) in [
            (None, "\u{2013}"),
            (Some(0.000_42), "0.4 ms"),
            (Some(0.009_949), "9.9 ms"),
            (Some(0.009_96), "10 ms"),
            (Some(0.999_4), "999 ms"),
            (Some(0.999_6), "1.0 s"),
            (Some(29.96), "30.0 s"),
            (Some(f64::INFINITY), "over 30 s"),
        ] {
            assert_eq!(seconds(given), expected);
        }
        for (given, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_599, "59 min"),
            (3_600, "1 h 0 min"),
            (86_400 + 7_199, "1 day 1 h"),
            (20 * 86_400, "20 days 0 h"),
        ] {
            assert_eq!(length(Duration::from_secs(given)), expected);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (given, expected) in [
            (0, ["1970-01-01", "00:00:00"]),
            (951_782_399, ["2000-02-28", "23:59:59"]),
            (951_782_400, ["2000-02-29", "00:00:00"]),
            (951_868_800, ["2000-03-01", "00:00:00"]),
            (1_709_164_800, ["2024-02-29", "00:00:00"]),
            (1_735_689_599, ["2024-12-31", "23:59:59"]),
            (1_735_689_600, ["2025-01-01", "00:00:00"]),
            (4_107_542_400, ["2100-03-01", "00:00:00"]),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(given)), expected);
        }
    }
}
