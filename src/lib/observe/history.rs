//! How the counters of the tables grew in the last minute and in the last hour.
//!
//! A task reads the counters once in [`TICK`], so that a request costs nothing more. What it keeps
//! of a table is bounded, and there is nothing of a table without requests.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, interval_at};

use super::meter::{Counts, Meter};
use super::metrics::Metrics;
use crate::sync::Mutex;

/// The interval between two looks at the counters.
pub const TICK: Duration = Duration::from_secs(10);

/// The looks in a minute, and the minutes in an hour.
const TICKS: usize = 6;
const MINUTES: usize = 60;

/// The recent growth of all counters.
#[derive(Debug)]
pub struct History {
    /// When it began.
    pub started: Instant,
    tracks: Mutex<Tracks>,
}

#[derive(Debug, Default)]
struct Tracks {
    /// How many looks there have been.
    ticks: usize,
    /// Grows with the configuration only: its keys are names of tables, and of their limits.
    requests: HashMap<Box<str>, Box<Track<{ Counts::LEN }>>>,
    limits: HashMap<(Box<str>, Box<str>), Track<1>>,
}

/// The growth of some counters.
#[derive(Clone, Debug)]
struct Track<const N: usize> {
    /// Their values at the last look.
    last: [u64; N],
    /// How they grew between the last looks, in a ring.
    ticks: [[u32; N]; TICKS],
    /// How they grew in the last minutes, in a ring. The current one is not over.
    minutes: [[u32; N]; MINUTES],
}

/// What was counted in each of three windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Windows<T> {
    /// The last 60 to 70 seconds: the last looks, and what came after them.
    pub minute: T,
    /// The last hour, at most a minute less.
    pub hour: T,
    /// All of the time.
    pub start: T,
}

/// What was counted of a table.
#[derive(Clone, Debug)]
pub struct Recent {
    /// The requests in the windows.
    pub windows: Windows<Counts>,
    /// The requests of each minute of the last hour, the oldest first.
    pub minutes: Vec<Counts>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            tracks: Mutex::default(),
        }
    }
}

impl History {
    /// Looks at the counters at every tick. Never returns.
    pub async fn keep(&self, metrics: &Metrics) -> ! {
        // A look that is late is made up for: their number is the time.
        let mut ticks = interval_at(self.started + TICK, TICK);
        loop {
            ticks.tick().await;
            self.tick(metrics);
        }
    }

    /// Looks at the counters.
    pub fn tick(&self, metrics: &Metrics) {
        let tracks = &mut *self.tracks.lock();
        let at = tracks.ticks;
        tracks.ticks += 1;
        for meter in metrics.meters() {
            let table = meter.table();
            let requests = meter.requests();
            if let Some(track) = tracks.requests.get_mut(table) {
                // Most tables have no request in ten seconds, and reading a histogram costs more.
                let is_busy = Counts(track.last).requests() != requests;
                track.tick(
                    at,
                    if is_busy {
                        meter.counts().0
                    } else {
                        track.last
                    },
                );
            } else if requests.iter().any(|count| *count > 0) {
                let mut track = Box::new(Track::new());
                track.tick(at, meter.counts().0);
                tracks.requests.insert(table.into(), track);
            }
            for (limit, counters) in meter.limits() {
                let key = (table.into(), limit.into());
                let track = tracks.limits.entry(key).or_insert_with(Track::new);
                track.tick(at, [counters.exceeded.get()]);
            }
        }
    }

    /// Returns what has been counted of a table.
    pub fn of(&self, meter: &Meter) -> Recent {
        let now = meter.counts();
        let tracks = self.tracks.lock();
        let unknown = Track::new();
        let track = tracks.requests.get(meter.table());
        let track = track.map_or(&unknown, |track| track);
        let mut minutes = track.in_order(tracks.ticks);
        let current = minutes.last_mut().expect("an hour has minutes");
        *current = sum([*current, grown(now.0, track.last)]);
        Recent {
            windows: track.windows(now.0).map(Counts),
            minutes: minutes.map(Counts).into(),
        }
    }

    /// Returns how often a limit of a table has had no room.
    pub fn exceeded(&self, meter: &Meter, limit: &str, now: u64) -> Windows<u64> {
        let tracks = self.tracks.lock();
        let unknown = Track::new();
        let track = tracks.limits.get(&(meter.table().into(), limit.into()));
        let windows = track.unwrap_or(&unknown).windows([now]);
        windows.map(|[count]| count)
    }
}

impl<T> Windows<T> {
    fn map<U>(self, f: impl Fn(T) -> U) -> Windows<U> {
        Windows {
            minute: f(self.minute),
            hour: f(self.hour),
            start: f(self.start),
        }
    }

    /// Returns the windows in their order, the shortest first.
    pub fn in_order(self) -> [T; 3] {
        [self.minute, self.hour, self.start]
    }
}

impl<const N: usize> Track<N> {
    fn new() -> Self {
        Self {
            last: [0; N],
            ticks: [[0; N]; TICKS],
            minutes: [[0; N]; MINUTES],
        }
    }

    fn tick(&mut self, at: usize, now: [u64; N]) {
        let grown = grown(now, self.last).map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        self.last = now;
        self.ticks[at % TICKS] = grown;
        let minute = &mut self.minutes[at / TICKS % MINUTES];
        if at.is_multiple_of(TICKS) {
            *minute = [0; N];
        }
        for (count, grown) in minute.iter_mut().zip(grown) {
            *count = count.saturating_add(grown);
        }
    }

    fn windows(&self, now: [u64; N]) -> Windows<[u64; N]> {
        let since = grown(now, self.last);
        let wide = |slots: &[[u32; N]]| {
            let slots = slots.iter().map(|slot| slot.map(u64::from));
            sum(slots.chain([since]))
        };
        Windows {
            minute: wide(&self.ticks),
            hour: wide(&self.minutes),
            start: now,
        }
    }

    /// Returns the minutes, the current one last.
    fn in_order(&self, ticks: usize) -> [[u64; N]; MINUTES] {
        let current = ticks.saturating_sub(1) / TICKS;
        std::array::from_fn(|at| self.minutes[(current + 1 + at) % MINUTES].map(u64::from))
    }
}

/// Returns by how much counters have grown. One that has been reset has not.
fn grown<const N: usize>(now: [u64; N], before: [u64; N]) -> [u64; N] {
    std::array::from_fn(|at| now[at].saturating_sub(before[at]))
}

fn sum<const N: usize>(counts: impl IntoIterator<Item = [u64; N]>) -> [u64; N] {
    let mut sums = [0_u64; N];
    for counts in counts {
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum = sum.saturating_add(count);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Outcome, Reason};
    use crate::protocol::Protocol as _;
    use crate::protocol::socketmap::Socketmap;

    fn ask(meter: &Meter, count: usize) {
        for _ in 0..count {
            meter.request(&Outcome::NotFound, Duration::from_millis(1));
        }
    }

    fn all(recent: &Recent) -> [u64; 3] {
        recent.windows.in_order().map(|counts| counts.all())
    }

    #[test]
    fn what_is_counted_leaves_the_minute_and_then_the_hour() {
        let metrics = Metrics::new(Socketmap::FACTS).unwrap();
        let (history, meter) = (History::default(), metrics.meter("t"));
        let ticks = |count: usize| (0..count).for_each(|_| history.tick(&metrics));
        ticks(7);
        ask(&meter, 5);
        assert_eq!(all(&history.of(&meter)), [5, 5, 5]);
        // Up to 70 seconds, with the tick that saw them.
        ticks(6);
        ask(&meter, 2);
        assert_eq!(all(&history.of(&meter)), [7, 7, 7]);
        ticks(1);
        assert_eq!(all(&history.of(&meter)), [2, 7, 7]);
        ticks(6);
        assert_eq!(all(&history.of(&meter)), [0, 7, 7]);
        // The requests were in the second and in the third minute of the ring.
        ticks(6 * 60 - 14);
        assert_eq!(all(&history.of(&meter)), [0, 7, 7]);
        ticks(1);
        assert_eq!(all(&history.of(&meter)), [0, 2, 7]);
        ticks(5);
        assert_eq!(all(&history.of(&meter)), [0, 2, 7]);
        ticks(1);
        assert_eq!(all(&history.of(&meter)), [0, 0, 7]);
        ask(&meter, 1);
        assert_eq!(all(&history.of(&meter)), [1, 1, 8]);
    }

    #[test]
    fn minutes_are_in_their_order_and_the_current_one_grows() {
        let metrics = Metrics::new(Socketmap::FACTS).unwrap();
        let (history, meter) = (History::default(), metrics.meter("t"));
        let minutes = |of: fn(&Counts) -> u64| {
            let minutes = history.of(&meter).minutes;
            assert_eq!(minutes.len(), MINUTES);
            minutes.iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(minutes(Counts::all), [0; MINUTES]);
        for minute in 1..=130 {
            ask(&meter, minute);
            (0..TICKS).for_each(|_| history.tick(&metrics));
        }
        assert_eq!(minutes(Counts::all), (71..=130).collect::<Vec<_>>());
        meter.request(
            &Outcome::Temporary(Reason::Busy.into()),
            Duration::from_secs(60),
        );
        assert_eq!(minutes(Counts::all)[58..], [129, 131]);
        history.tick(&metrics);
        assert_eq!(minutes(Counts::all)[58..], [130, 1]);
        assert_eq!(minutes(Counts::failed)[58..], [0, 1]);
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let metrics = Metrics::new(Socketmap::FACTS).unwrap();
        let (history, meter) = (History::default(), metrics.meter("t"));
        let quantile = |share| history.of(&meter).windows.hour.quantile(share);
        assert_eq!(quantile(0.5), None);
        let ask = |milliseconds| {
            meter.request(&Outcome::NotFound, Duration::from_millis(milliseconds));
        };
        (0..4).for_each(|_| ask(2));
        // Half of the way from 1 ms to 2.5 ms.
        assert_eq!(quantile(0.5), Some(0.001 + 0.0015 / 2.0));
        (0..4).for_each(|_| ask(60_000));
        assert_eq!(quantile(0.5), Some(0.0025));
        assert_eq!(quantile(0.99), Some(f64::INFINITY));
    }

    #[test]
    fn a_limit_is_counted_and_what_has_nothing_takes_no_memory() {
        let metrics = Metrics::new(Socketmap::FACTS).unwrap();
        let (history, meter) = (History::default(), metrics.meter("t"));
        let limit = metrics.limit_meter("t", "l");
        let reached = || {
            history
                .exceeded(&meter, "l", limit.exceeded.get())
                .in_order()
        };
        assert_eq!(reached(), [0, 0, 0]);
        limit.exceeded.inc_by(3);
        history.tick(&metrics);
        limit.exceeded.inc();
        assert_eq!(reached(), [4, 4, 4]);
        (0..TICKS).for_each(|_| history.tick(&metrics));
        assert_eq!(reached(), [1, 4, 4]);
        assert!(history.tracks.lock().requests.is_empty());
        // A thousand busy tables are a few megabytes.
        assert!(size_of::<Track<{ Counts::LEN }>>() < 6_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_counters_are_looked_at_once_in_a_tick() {
        let metrics = Metrics::new(Socketmap::FACTS).unwrap();
        let history = History::default();
        let kept = tokio::time::timeout(TICK * 5 / 2, history.keep(&metrics));
        assert!(kept.await.is_err());
        assert_eq!(history.tracks.lock().ticks, 2);
    }
}
