//! A model of the cache in plain tables: each request predicts its answer from them, and each
//! call, its end and every emptying is entered there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use postgate::config;
use postgate::http::freshness::{Fetched, Lifetime};
use postgate::outcome::{Failure, Outcome, Reason};
use postgate::table::cache::{Cache, CacheKey};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const KEYS: usize = 4;
const ASKERS: usize = 8;
const QUESTIONS: usize = 60;

/// How many histories are played: one for each hundred of `POSTGATE_FUZZ_RUNS`.
pub(crate) fn seeds() -> u64 {
    let runs = std::env::var("POSTGATE_FUZZ_RUNS");
    let runs: u64 = runs.map_or(20_000, |text| text.parse().expect("a number"));
    runs.div_ceil(100)
}

/// An answer that is kept.
#[derive(Clone)]
struct Entry {
    outcome: Outcome,
    renew_at: Option<Instant>,
    fresh_until: Instant,
    stale_until: Instant,
}

/// A call under way.
struct InFlight {
    key: usize,
    waiting: usize,
    /// Renews ahead, so nobody has to wait for it.
    is_ahead: bool,
    began: Instant,
}

impl InFlight {
    fn is_wanted(&self) -> bool {
        self.waiting > 0 || self.is_ahead
    }
}

struct Tables {
    settings: config::Cache,
    rng: Rng,
    /// How often everything was thrown away.
    emptied: usize,
    calls: usize,
    kept: [Option<Entry>; KEYS],
    /// The call that a request joins.
    current: [Option<usize>; KEYS],
    in_flight: HashMap<usize, InFlight>,
    results: HashMap<usize, (Outcome, Instant)>,
    said: HashMap<&'static str, usize>,
}

type World = Arc<Mutex<Tables>>;

fn lock(world: &World) -> MutexGuard<'_, Tables> {
    world.lock().expect("a model that has not failed")
}

/// What an request expects.
enum Expected {
    /// At once, from what is kept, with this call made besides if there is one.
    Entry(Outcome, Option<usize>),
    /// What this call brings; made now, or before.
    Call(usize, bool),
}

impl Tables {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let optional = |rng: &mut Rng, most| rng.bool().then(|| some_time(rng, most));
        let settings = config::Cache {
            ttl: if rng.u8(..5) == 0 {
                Duration::ZERO
            } else {
                some_time(&mut rng, 100)
            },
            negative_ttl: if rng.u8(..5) == 0 {
                Duration::ZERO
            } else {
                some_time(&mut rng, 50)
            },
            stale_if_error: optional(&mut rng, 100),
            refresh_ahead: optional(&mut rng, 60),
            honour_http: rng.bool(),
            max_entries: 10_000,
            max_bytes: 16 << 20,
            is_shared: false,
            by: Vec::new(),
        };
        Self {
            settings,
            rng,
            emptied: 0,
            calls: 0,
            kept: [const { None }; KEYS],
            current: [None; KEYS],
            in_flight: HashMap::new(),
            results: HashMap::new(),
            said: HashMap::new(),
        }
    }

    fn predict(&mut self, key: usize) -> Expected {
        let now = Instant::now();
        let fresh = self.kept[key].clone().filter(|kept| now < kept.fresh_until);
        if let Some(kept) = fresh {
            let is_due = kept.renew_at.is_some_and(|at| now >= at) && self.current[key].is_none();
            let call = is_due.then(|| self.take_off(key, true));
            self.note(if is_due { "renewed ahead" } else { "kept" });
            return Expected::Entry(kept.outcome, call);
        }
        let (call, is_new) = match self.current[key] {
            Some(call) => (call, false),
            None => (self.take_off(key, false), true),
        };
        self.note(if is_new { "called" } else { "joined" });
        self.in_flight.get_mut(&call).expect("a call").waiting += 1;
        Expected::Call(call, is_new)
    }

    /// A request gives up. No other request joins a call that none waits for.
    fn give_up(&mut self, call: usize) {
        let Some(flight) = self.in_flight.get_mut(&call) else {
            return;
        };
        flight.waiting -= 1;
        if !flight.is_wanted() && self.current[flight.key] == Some(call) {
            self.current[flight.key] = None;
        }
    }

    fn take_off(&mut self, key: usize, is_ahead: bool) -> usize {
        let is_open = |flight: &&InFlight| flight.key == key && flight.is_wanted();
        let in_flight = self.in_flight.values().filter(is_open);
        assert!(
            in_flight.count() <= self.emptied,
            "two calls for one question"
        );
        self.calls += 1;
        self.current[key] = Some(self.calls);
        let flight = InFlight {
            key,
            waiting: 0,
            is_ahead,
            began: Instant::now(),
        };
        self.in_flight.insert(self.calls, flight);
        self.calls
    }

    /// A call has brought this.
    fn land(&mut self, call: usize, answered: &Fetched) {
        let flight = self.in_flight.remove(&call).expect("a call");
        assert!(flight.is_wanted(), "a call lands for nobody");
        let now = Instant::now();
        self.results.insert(call, (answered.outcome.clone(), now));
        if self.current[flight.key] != Some(call) {
            return;
        }
        self.current[flight.key] = None;
        let default = match answered.outcome {
            Outcome::Found(_) => self.settings.ttl,
            Outcome::NotFound | Outcome::Refused(_) => self.settings.negative_ttl,
            Outcome::Done | Outcome::Temporary(_) | Outcome::Permanent(_) => return,
        };
        let said = if self.settings.honour_http {
            answered.lifetime
        } else {
            Lifetime::default()
        };
        let lifetime = said.fresh.unwrap_or(default);
        let stale = match answered.outcome {
            Outcome::Found(_) => said.stale.or(self.settings.stale_if_error),
            _ => None,
        };
        if lifetime.is_zero() {
            self.kept[flight.key] = None;
            return;
        }
        let fresh_until = flight.began + lifetime;
        let ahead = |ahead: Duration| fresh_until - ahead.min(lifetime / 2);
        self.kept[flight.key] = Some(Entry {
            outcome: answered.outcome.clone(),
            renew_at: self.settings.refresh_ahead.map(ahead),
            fresh_until,
            stale_until: fresh_until + stale.unwrap_or_default(),
        });
    }

    /// A call was dropped before it had brought anything.
    fn crash(&mut self, call: usize) {
        let flight = self.in_flight.remove(&call).expect("a call");
        assert_eq!(flight.waiting, 0, "a call ended while somebody waited");
        assert!(!flight.is_ahead, "a renewal ended before its end");
        if self.current[flight.key] == Some(call) {
            self.current[flight.key] = None;
        }
        self.note("given up");
    }

    /// What a call is going to bring, and when.
    fn plan(&mut self, call: usize) -> (Duration, Fetched) {
        let outcome = match self.rng.u8(..10) {
            0..5 => Outcome::Found(format!("value {call}")),
            5..7 => Outcome::NotFound,
            7 => {
                let reason = Reason::Answered(400);
                Outcome::Permanent(Failure::new(reason, format!("call {call}")))
            }
            _ => {
                let reason = Reason::Unreachable;
                Outcome::Temporary(Failure::new(reason, format!("call {call}")))
            }
        };
        let mut some_word = || match self.rng.u8(..4) {
            0 => Some(Duration::ZERO),
            1 => Some(some_time(&mut self.rng, 150)),
            _ => None,
        };
        let lifetime = Lifetime {
            fresh: some_word(),
            stale: some_word(),
        };
        let takes = match self.rng.u8(..3) {
            0 => Duration::ZERO,
            _ => some_time(&mut self.rng, 40),
        };
        (takes, Fetched::new(outcome, lifetime))
    }

    fn note(&mut self, what: &'static str) {
        *self.said.entry(what).or_default() += 1;
    }
}

fn some_time(rng: &mut Rng, most: u64) -> Duration {
    Duration::from_millis(rng.u64(1..=most))
}

/// A call as long as it lives.
struct Call {
    world: World,
    number: usize,
    has_ended: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        // A model that has failed already is not asked again.
        if !self.has_ended
            && let Ok(mut tables) = self.world.lock()
        {
            tables.crash(self.number);
        }
    }
}

async fn call(world: World, number: usize) -> Fetched {
    let (takes, answered) = lock(&world).plan(number);
    let mut call = Call {
        world,
        number,
        has_ended: false,
    };
    // A zero is due at once, without a turn of the clock.
    if !takes.is_zero() {
        sleep(takes).await;
    }
    lock(&call.world).land(number, &answered);
    call.has_ended = true;
    answered
}

/// Plays one history.
pub(crate) async fn play(seed: u64) {
    let tables = Tables::new(seed);
    let cache = Arc::new(Cache::new(tables.settings.clone()));
    let world = Arc::new(Mutex::new(tables));
    let mut askers = JoinSet::new();
    for number in 0..ASKERS {
        let rng = Rng::with_seed(seed * 1_000 + number as u64);
        askers.spawn(ask_on(Arc::clone(&cache), Arc::clone(&world), rng));
    }
    let emptying = empty_on(&cache, &world, Rng::with_seed(seed * 1_000 + 999));
    let all = async {
        while let Some(asker) = askers.join_next().await {
            asker.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    };
    // Time is paused: it goes on at once when all wait for nothing.
    let asked = async {
        tokio::select! {
            () = all => {}
            () = emptying => {}
        }
    };
    let hour = Duration::from_secs(3600);
    let is_over = timeout(hour, asked).await.is_ok();
    assert!(is_over, "seed {seed}: somebody waits in vain");
    // Renewals nobody waited for come to their end as well.
    sleep(hour).await;
    let tables = lock(&world);
    assert!(tables.in_flight.is_empty(), "seed {seed}: calls are left");
    let answers: usize = ["kept", "renewed ahead", "called", "joined"]
        .iter()
        .filter_map(|what| tables.said.get(what))
        .sum();
    assert_eq!(answers, ASKERS * QUESTIONS, "seed {seed}");
}

async fn empty_on(cache: &Cache, world: &World, mut rng: Rng) {
    loop {
        sleep(some_time(&mut rng, 400)).await;
        let mut tables = lock(world);
        tables.emptied += 1;
        tables.current = [None; KEYS];
        let kept = std::mem::take(&mut tables.kept);
        drop(tables);
        let count = kept.iter().flatten().count();
        assert_eq!(cache.clear(), count, "what was thrown away");
        assert!(cache.is_empty());
    }
}

async fn ask_on(cache: Arc<Cache>, world: World, mut rng: Rng) {
    for _ in 0..QUESTIONS {
        if rng.bool() {
            sleep(some_time(&mut rng, 30)).await;
        }
        let key = rng.usize(..KEYS);
        let given_up_after = (rng.u8(..4) == 0).then(|| some_time(&mut rng, 30));
        ask(&cache, &world, key, given_up_after).await;
        let kept = lock(&world).kept.iter().flatten().count();
        assert_eq!(cache.len(), kept, "what is kept");
    }
}

async fn ask(cache: &Arc<Cache>, world: &World, key: usize, given_up_after: Option<Duration>) {
    let asked_at = Instant::now();
    let (prediction, kept, emptied) = {
        let mut tables = lock(world);
        let kept = tables.kept[key].clone();
        (tables.predict(key), kept, tables.emptied)
    };
    let may_call = match &prediction {
        Expected::Entry(_, call) => *call,
        Expected::Call(call, is_new) => is_new.then_some(*call),
    };
    let was_made = Arc::new(Mutex::new(false));
    let make = || {
        let number = may_call.expect("no call is due here");
        *was_made.lock().expect("a lock") = true;
        call(Arc::clone(world), number)
    };
    let question: CacheKey = key.to_le_bytes().as_slice().into();
    let outcome = {
        let mut answering = std::pin::pin!(cache.answer(&question, make));
        let outcome = match given_up_after {
            None => Some(answering.await),
            Some(given_up_after) => tokio::select! {
                biased;
                outcome = &mut answering => Some(outcome),
                () = sleep(given_up_after) => None,
            },
        };
        if let Expected::Call(call, _) = prediction {
            lock(world).give_up(call);
        }
        outcome
    };
    assert_eq!(
        *was_made.lock().expect("a lock"),
        may_call.is_some(),
        "a call was due"
    );
    let Some(outcome) = outcome else {
        let Expected::Call(call, _) = prediction else {
            panic!("what is kept was waited for");
        };
        // It is ended by the loop.
        tokio::task::yield_now().await;
        let is_right = lock(world)
            .in_flight
            .get(&call)
            .is_none_or(InFlight::is_wanted);
        assert!(is_right, "a call goes on for nobody");
        return;
    };
    let now = Instant::now();
    match prediction {
        Expected::Entry(expected, _) => {
            assert_eq!(outcome, expected, "what is kept");
            assert_eq!(now, asked_at, "what is kept was waited for");
        }
        Expected::Call(call, _) => {
            let mut tables = lock(world);
            let (results, at) = tables
                .results
                .get(&call)
                .expect("the end of a call")
                .clone();
            assert_eq!(now, at, "an answer came late");
            let stale = kept
                .filter(|kept| matches!(results, Outcome::Temporary(_)) && now < kept.stale_until);
            // Whether an older answer outlives an emptying is another test's.
            if tables.emptied == emptied
                && let Some(stale) = stale
            {
                tables.note("stale");
                assert_eq!(outcome, stale.outcome, "an old answer");
            } else if tables.emptied == emptied || outcome == results {
                assert_eq!(outcome, results, "what the call has brought");
            } else {
                let stale = stale.map(|kept| kept.outcome);
                assert_eq!(Some(outcome), stale, "what the call has brought");
            }
        }
    }
}
