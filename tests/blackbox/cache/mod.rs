//! Answers that are kept, and calls that are shared: against a model of what may be said at every
//! moment, and in the programs.

mod model;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{
    Arc, Barrier, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use std::task::Poll;
use std::time::Duration;

use crate::support::{
    backend::{Act, Backend, Gate, Script, json, plain, response, status},
    peer::{framed, question},
    program::{ALL, Binary, LOOKUPS},
    same, soon,
    tables::{echo, echo_of, echoed, failed, found, key_of, not_found, serve_tcp, table},
};
use postgate::config;
use postgate::http::freshness::{Fetched, Lifetime, lifetime};
use postgate::outcome::{Outcome, Reason};
use postgate::request::{Attributes, Request};
use postgate::table::cache::{Cache, CacheKey};
use rustix::process::Signal;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{advance, sleep};

fn settings() -> config::Cache {
    config::Cache {
        ttl: Duration::from_secs(60),
        negative_ttl: Duration::from_secs(10),
        stale_if_error: None,
        refresh_ahead: None,
        honour_http: false,
        max_entries: 10_000,
        max_bytes: 16 << 20,
        by: Vec::new(),
    }
}

fn cache(settings: config::Cache) -> Arc<Cache> {
    Arc::new(Cache::new(settings))
}

fn asks(key: &str) -> CacheKey {
    key.as_bytes().into()
}

fn value(text: impl Into<String>) -> Fetched {
    Outcome::Found(text.into()).into()
}

fn failure() -> Fetched {
    Outcome::Temporary(Reason::Unreachable.into()).into()
}

/// Asks, and tells how often the backend was asked.
async fn ask(cache: &Arc<Cache>, key: &str, answer: Fetched) -> (Outcome, usize) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let call = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async move { answer }
    };
    let outcome = cache.answer(&asks(key), call).await;
    // A call that nobody waits for runs in between.
    tokio::task::yield_now().await;
    (outcome, calls.load(Ordering::Relaxed))
}

fn is_value(text: &str) -> Outcome {
    Outcome::Found(text.to_owned())
}

#[tokio::test(start_paused = true)]
async fn whatever_is_asked_and_whenever_only_what_may_be_said_is_said() {
    for seed in 0..model::seeds() {
        model::play(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_and_a_not_found_end_at_their_own_times() {
    let cache = cache(settings());
    assert_eq!(ask(&cache, "a", value("1")).await, (is_value("1"), 1));
    let nothing = || Fetched::from(Outcome::NotFound);
    assert_eq!(ask(&cache, "b", nothing()).await, (Outcome::NotFound, 1));
    advance(Duration::from_millis(9_999)).await;
    assert_eq!(ask(&cache, "b", value("2")).await, (Outcome::NotFound, 0));
    advance(Duration::from_millis(1)).await;
    assert_eq!(ask(&cache, "b", value("2")).await, (is_value("2"), 1));
    advance(Duration::from_millis(49_999)).await;
    assert_eq!(ask(&cache, "a", nothing()).await, (is_value("1"), 0));
    advance(Duration::from_millis(1)).await;
    assert_eq!(ask(&cache, "a", nothing()).await, (Outcome::NotFound, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_as_old_as_its_question() {
    let cache = cache(settings());
    let slow = || async {
        sleep(Duration::from_secs(50)).await;
        value("1")
    };
    assert_eq!(cache.answer(&asks("a"), slow).await, is_value("1"));
    advance(Duration::from_secs(9)).await;
    assert_eq!(ask(&cache, "a", value("2")).await, (is_value("1"), 0));
    advance(Duration::from_secs(1)).await;
    assert_eq!(ask(&cache, "a", value("2")).await, (is_value("2"), 1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_never_kept() {
    let cache = cache(settings());
    let permanent = || Fetched::from(Outcome::Permanent(Reason::Answered(400).into()));
    for bad in [failure(), permanent()] {
        for _ in 0..3 {
            assert_eq!(
                ask(&cache, "a", bad.clone()).await,
                (bad.outcome.clone(), 1)
            );
        }
        assert!(cache.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_to_be_kept_takes_the_older_answer_with_it() {
    let mut settings = settings();
    settings.negative_ttl = Duration::ZERO;
    settings.stale_if_error = Some(Duration::from_secs(600));
    let cache = cache(settings);
    assert_eq!(ask(&cache, "a", value("1")).await.1, 1);
    advance(Duration::from_secs(60)).await;
    let nothing = Fetched::from(Outcome::NotFound);
    assert_eq!(ask(&cache, "a", nothing).await, (Outcome::NotFound, 1));
    // The value was wrong by then, and is not said in place of a failure either.
    assert_eq!(ask(&cache, "a", failure()).await, (failure().outcome, 1));
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_is_said_only_while_asking_fails_and_only_so_long() {
    let mut settings = settings();
    settings.stale_if_error = Some(Duration::from_secs(30));
    settings.honour_http = true;
    let cache = cache(settings);
    assert_eq!(ask(&cache, "a", value("1")).await.1, 1);
    advance(Duration::from_secs(60)).await;
    assert_eq!(ask(&cache, "a", failure()).await, (is_value("1"), 1));
    assert_eq!(ask(&cache, "a", value("2")).await, (is_value("2"), 1));
    advance(Duration::from_millis(89_999)).await;
    assert_eq!(ask(&cache, "a", failure()).await, (is_value("2"), 1));
    // It is as old as it is when it is said, not as when it was asked for.
    let slow_failure = || async {
        sleep(Duration::from_millis(1)).await;
        failure()
    };
    let outcome = cache.answer(&asks("a"), slow_failure).await;
    assert_eq!(outcome, failure().outcome);
    // Who is told that a setting is wrong has to know it.
    let permanent = Outcome::Permanent(Reason::Answered(400).into());
    assert_eq!(ask(&cache, "b", value("3")).await.1, 1);
    advance(Duration::from_secs(60)).await;
    let told = ask(&cache, "b", permanent.clone().into()).await;
    assert_eq!(told, (permanent, 1));
    // A failure is never said as "not found", whoever allows old answers.
    let nothing = Fetched {
        lifetime: Lifetime {
            fresh: None,
            stale: Some(Duration::from_secs(600)),
        },
        ..Outcome::NotFound.into()
    };
    assert_eq!(ask(&cache, "c", nothing).await, (Outcome::NotFound, 1));
    advance(Duration::from_secs(10)).await;
    assert_eq!(ask(&cache, "c", failure()).await, (failure().outcome, 1));
}

#[tokio::test(start_paused = true)]
async fn equal_questions_in_flight_share_one_call_and_its_failure_too() {
    for answer in [value("1"), Outcome::NotFound.into(), failure()] {
        let cache = cache(settings());
        let calls = Arc::new(AtomicUsize::new(0));
        let mut askers = JoinSet::new();
        for number in 0..100 {
            let (cache, calls, answer) = (Arc::clone(&cache), Arc::clone(&calls), answer.clone());
            askers.spawn(async move {
                sleep(Duration::from_millis(number)).await;
                let call = || async move {
                    calls.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(200)).await;
                    answer
                };
                cache.answer(&asks("a"), call).await
            });
        }
        let outcomes = askers.join_all().await;
        assert_eq!(outcomes, vec![answer.outcome; 100]);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}

/// A call that tells when it is dropped before its end.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_on_while_anybody_waits_for_it_and_ends_with_the_last() {
    let cache = cache(settings());
    let ended = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let mut askers = Vec::new();
    let ask_at_gate = |key: &'static str| {
        let (cache, ended, gate) = (Arc::clone(&cache), Arc::clone(&ended), Arc::clone(&gate));
        tokio::spawn(async move {
            let call = || async move {
                let _dropped = Dropped(ended);
                gate.acquire().await.expect("a gate").forget();
                value("1")
            };
            cache.answer(&asks(key), call).await
        })
    };
    for _ in 0..3 {
        askers.push(ask_at_gate("a"));
        tokio::task::yield_now().await;
    }
    // The one that made the call is the first to go away.
    for asker in askers.drain(..2) {
        asker.abort();
        assert!(asker.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(ended.load(Ordering::Relaxed), 0);
    }
    gate.add_permits(1);
    let last = askers.pop().expect("an asker");
    assert_eq!(last.await.expect("an answer"), is_value("1"));
    assert_eq!(ended.load(Ordering::Relaxed), 1);

    let lonely = ask_at_gate("b");
    tokio::task::yield_now().await;
    lonely.abort();
    assert!(lonely.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(ended.load(Ordering::Relaxed), 2, "nobody waits for it");
    // Whoever asks next is not left with what is gone.
    assert_eq!(ask(&cache, "b", value("2")).await, (is_value("2"), 1));
}

/// Runs this in threads with a loop each, as the programs do, and waits for all of them.
fn in_threads<F: Future<Output = ()>>(count: usize, work: impl Fn() -> F + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let runtime = Builder::new_current_thread().build();
                runtime.expect("a loop").block_on(work());
            });
        }
    });
}

const THREADS: usize = 4;

#[test]
fn threads_that_ask_the_same_at_once_share_one_call() {
    const ROUNDS: usize = 2_000;
    let cache = cache(settings());
    let calls: Vec<_> = (0..ROUNDS).map(|_| AtomicUsize::new(0)).collect();
    let calls = Arc::new(calls);
    let start = Barrier::new(THREADS);
    in_threads(THREADS, || async {
        for round in 0..ROUNDS {
            let calls = Arc::clone(&calls);
            start.wait();
            let call = move || async move {
                calls[round].fetch_add(1, Ordering::Relaxed);
                value("1")
            };
            let outcome = cache.answer(&asks(&round.to_string()), call).await;
            assert_eq!(outcome, is_value("1"));
        }
    });
    for (round, calls) in calls.iter().enumerate() {
        assert_eq!(calls.load(Ordering::Relaxed), 1, "round {round}");
    }
}

#[test]
fn an_answer_that_comes_as_its_asker_goes_is_told_to_those_who_stay() {
    let cache = cache(settings());
    let [is_polled, has_joined] = [(); 2].map(|()| Arc::new(Barrier::new(2)));
    let polls = Arc::new(AtomicUsize::new(0));
    let call = poll_fn({
        let (is_polled, has_joined) = (Arc::clone(&is_polled), Arc::clone(&has_joined));
        let polls = Arc::clone(&polls);
        move |context| {
            if polls.fetch_add(1, Ordering::Relaxed) > 0 {
                return Poll::Ready(value("1"));
            }
            // While this looks for the answer another thread brings it, and a third one joins.
            let waker = context.waker().clone();
            let bringing = std::thread::spawn(move || waker.wake());
            bringing.join().expect("a waker");
            is_polled.wait();
            has_joined.wait();
            Poll::Pending
        }
    });
    let runtime = || {
        let runtime = Builder::new_current_thread().enable_time().build();
        runtime.expect("a loop")
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let staying = scope.spawn(|| {
            let cache = Arc::clone(&cache);
            // In a task of its own it looks again only when it is told to.
            let joining = async move {
                is_polled.wait();
                let question = asks("a");
                let no_call = || async { panic!("there is one already") };
                let mut answer = pin!(cache.answer(&question, no_call));
                let mut is_first = true;
                poll_fn(|context| {
                    let polled = answer.as_mut().poll(context);
                    if std::mem::take(&mut is_first) {
                        has_joined.wait();
                    }
                    polled
                })
                .await
            };
            let told =
                runtime().block_on(async { soon("the answer", tokio::spawn(joining)).await });
            told.expect("no fault")
        });
        scope.spawn(|| {
            let cache = Arc::clone(&cache);
            runtime().block_on(async {
                let question = asks("a");
                let until_it_is_asked = async {
                    while polls.load(Ordering::Relaxed) == 0 {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! {
                    biased;
                    _ = cache.answer(&question, || call) => {}
                    () = until_it_is_asked => {}
                }
                while !is_over.load(Ordering::Relaxed) {
                    tokio::task::yield_now().await;
                }
            });
        });
        let _over = Over(&is_over);
        assert_eq!(staying.join().expect("an answer"), is_value("1"));
    });
}

#[test]
fn what_one_thread_throws_away_is_not_brought_back_by_another() {
    const ROUNDS: usize = 8_000;
    let cache = cache(settings());
    let version = Arc::new(AtomicUsize::new(0));
    let ask = async || {
        let version = Arc::clone(&version);
        let call = || async move {
            let seen = version.load(Ordering::Relaxed);
            tokio::task::yield_now().await;
            value(seen.to_string())
        };
        match cache.answer(&asks("a"), call).await {
            Outcome::Found(seen) => seen.parse::<usize>().expect("a version"),
            other => panic!("{other:?}"),
        }
    };
    let threads = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    in_threads(THREADS, || async {
        if threads.fetch_add(1, Ordering::Relaxed) > 0 {
            while !is_over.load(Ordering::Relaxed) {
                ask().await;
            }
            return;
        }
        let _over = Over(&is_over);
        for _ in 0..ROUNDS {
            // Twice, so that the second time falls into calls that the first one has brought about.
            for _ in 0..2 {
                version.fetch_add(1, Ordering::Relaxed);
                cache.clear();
                for _ in 0..fastrand::usize(..2_000) {
                    std::hint::spin_loop();
                }
            }
            assert_eq!(ask().await, version.load(Ordering::Relaxed));
        }
    });
}

/// Says that it is over, also if a check fails.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_in_a_call_costs_those_who_wait_for_it_and_nobody_else() {
    let cache = cache(settings());
    let faulty = {
        let cache = Arc::clone(&cache);
        tokio::spawn(async move {
            let call = || async {
                tokio::task::yield_now().await;
                panic!("a fault of this test's");
            };
            cache.answer(&asks("a"), call).await
        })
    };
    assert!(faulty.await.is_err_and(|error| error.is_panic()));
    assert_eq!(ask(&cache, "a", value("1")).await, (is_value("1"), 1));
    assert_eq!(ask(&cache, "b", value("2")).await, (is_value("2"), 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_a_call_during_which_everything_was_thrown_away() {
    let cache = cache(settings());
    assert_eq!(ask(&cache, "b", value("0")).await.1, 1);
    let gate = Arc::new(Semaphore::new(0));
    let asker = {
        let (cache, gate) = (Arc::clone(&cache), Arc::clone(&gate));
        tokio::spawn(async move {
            let call = || async move {
                gate.acquire().await.expect("a gate").forget();
                value("1")
            };
            cache.answer(&asks("a"), call).await
        })
    };
    tokio::task::yield_now().await;
    assert_eq!(cache.clear(), 1);
    assert!(cache.is_empty());
    // Who asks from here on gets an answer from here on.
    assert_eq!(ask(&cache, "a", value("2")).await, (is_value("2"), 1));
    gate.add_permits(1);
    assert_eq!(asker.await.expect("an answer"), is_value("1"));
    assert_eq!(ask(&cache, "a", value("3")).await, (is_value("2"), 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_thrown_away_is_not_said_in_place_of_a_failure() {
    let mut settings = settings();
    settings.stale_if_error = Some(Duration::from_secs(600));
    let cache = cache(settings);
    assert_eq!(ask(&cache, "a", value("1")).await.1, 1);
    advance(Duration::from_secs(60)).await;
    let clear = {
        let cache = Arc::clone(&cache);
        || async move {
            assert_eq!(cache.clear(), 1);
            failure()
        }
    };
    let outcome = cache.answer(&asks("a"), clear).await;
    assert_eq!(outcome, failure().outcome);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_renewed_ahead_of_its_end_by_one_call() {
    let mut settings = settings();
    settings.refresh_ahead = Some(Duration::from_secs(10));
    let cache = cache(settings);
    assert_eq!(ask(&cache, "a", value("1")).await.1, 1);
    advance(Duration::from_millis(49_999)).await;
    assert_eq!(ask(&cache, "a", value("2")).await, (is_value("1"), 0));
    advance(Duration::from_millis(1)).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let renew = || {
        let calls = Arc::clone(&calls);
        || async move {
            calls.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_secs(5)).await;
            value("2")
        }
    };
    for _ in 0..100 {
        // Nobody waits for it.
        assert_eq!(cache.answer(&asks("a"), renew()).await, is_value("1"));
        tokio::task::yield_now().await;
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    sleep(Duration::from_millis(5_001)).await;
    assert_eq!(ask(&cache, "a", value("3")).await, (is_value("2"), 0));
    // A renewal that fails takes nothing away, and the next question tries again.
    advance(Duration::from_millis(44_999)).await;
    assert_eq!(ask(&cache, "a", failure()).await, (is_value("2"), 1));
    assert_eq!(ask(&cache, "a", value("3")).await, (is_value("2"), 1));
    assert_eq!(ask(&cache, "a", value("4")).await, (is_value("3"), 0));
}

#[tokio::test(start_paused = true)]
async fn there_are_never_more_answers_than_allowed_and_nearly_as_many() {
    let mut wrong = crate::support::Wrong::default();
    for most in [1, 2, 3, 7, 100, 1_000] {
        let mut settings = settings();
        settings.max_entries = most;
        let cache = cache(settings);
        let mut kept = 0;
        for number in 0..3 * most {
            let key = format!("key{number}");
            let (outcome, _) = ask(&cache, &key, value(&key)).await;
            assert_eq!(outcome, is_value(&key));
            assert!(cache.len() <= most, "{} of {most}", cache.len());
            kept = kept.max(cache.len());
        }
        wrong.require(&format!("of {most}"), kept * 10 >= most * 9, || {
            format!("only {kept} are ever kept")
        });
        // What is still there is what it was.
        for number in 0..3 * most {
            let key = format!("key{number}");
            let (outcome, calls) = ask(&cache, &key, value("else")).await;
            let expected = if calls == 0 { key } else { "else".to_owned() };
            assert_eq!(outcome, is_value(&expected));
        }
    }
    wrong.none();
}

#[tokio::test(start_paused = true)]
async fn answers_never_take_more_bytes_than_allowed() {
    let mut settings = settings();
    settings.max_bytes = 1 << 20;
    let cache = cache(settings);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut kept = 0;
    for round in [100, 1_000, 10_000, 100_000, 10] {
        for number in 0..300 {
            let key = format!("key{number} of {round}");
            let text = "a".repeat(round + rng.usize(..round));
            ask(&cache, &key, value(&text)).await;
        }
        let seen = |number| cache.len() * number;
        assert!(seen(10) <= 1 << 20, "{} answers", cache.len());
        if round == 100_000 {
            assert!(seen(round) <= 1 << 20, "{} answers", cache.len());
            kept = cache.len();
        }
    }
    assert!(kept > 0, "nothing was kept");
}

#[tokio::test(start_paused = true)]
async fn an_answer_larger_than_everything_is_said_and_not_kept() {
    let mut settings = settings();
    settings.max_bytes = 10_000;
    settings.max_entries = 10;
    settings.stale_if_error = Some(Duration::from_secs(600));
    let cache = cache(settings);
    assert_eq!(ask(&cache, "other", value("1")).await.1, 1);
    assert_eq!(ask(&cache, "a", value("1")).await.1, 1);
    advance(Duration::from_secs(60)).await;
    let large = "a".repeat(10_001);
    for _ in 0..2 {
        let (outcome, calls) = ask(&cache, "a", value(&large)).await;
        assert_eq!((outcome, calls), (is_value(&large), 1));
    }
    // Nor is the older one, which is wrong by now.
    assert_eq!(ask(&cache, "a", failure()).await, (failure().outcome, 1));
    assert_eq!(ask(&cache, "other", failure()).await.0, is_value("1"));
}

#[test]
fn questions_differ_where_anything_differs() {
    let mut by_two = settings();
    by_two.by = vec!["sender".to_owned(), "recipient".to_owned()];
    let cache = Cache::new(by_two);
    let lookup = |map: Option<&'static str>, key: &'static str| {
        let request = Request::Lookup {
            map: map.map(Into::into),
            key: key.into(),
        };
        cache.key(&request)
    };
    let policy = |attributes: &[(&'static str, &'static str)]| {
        let pairs = attributes.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        cache.key(&Request::Policy(Attributes(pairs.collect())))
    };
    let different = [
        lookup(None, "abc"),
        lookup(Some("a"), "bc"),
        lookup(Some("ab"), "c"),
        lookup(Some("abc"), ""),
        lookup(Some("a"), "BC"),
        lookup(None, "abc\0"),
    ];
    for (i, one) in different.iter().enumerate() {
        for (j, other) in different.iter().enumerate() {
            assert_eq!(one == other, i == j, "{i} and {j}");
        }
    }
    let whole = policy(&[("sender", "a"), ("recipient", "b")]);
    for equal in [
        policy(&[("recipient", "b"), ("sender", "a")]),
        policy(&[("size", "1"), ("sender", "a"), ("recipient", "b")]),
        policy(&[("sender", "a"), ("recipient", "b"), ("sender", "c")]),
    ] {
        assert_eq!(equal, whole);
    }
    for other in [
        policy(&[("sender", "b"), ("recipient", "a")]),
        policy(&[("sender", "ab"), ("recipient", "")]),
        policy(&[("sender", ""), ("recipient", "ab")]),
        policy(&[("sender", "A"), ("recipient", "b")]),
        policy(&[]),
    ] {
        assert_ne!(other, whole);
    }
    // What was not sent is empty, as it is in every placeholder.
    assert_eq!(policy(&[]), policy(&[("sender", ""), ("recipient", "")]));
}

#[test]
fn the_backends_word_on_lifetimes_is_understood() {
    const DATE: &str = "date: Thu, 01 Jan 2026 00:00:00 GMT";
    const LATER: &str = "expires: Thu, 01 Jan 2026 00:01:00 GMT";
    let mut wrong = crate::support::Wrong::default();
    for (headers, expected) in [
        (&[][..], None),
        (&["cache-control: max-age=60"], Some(60)),
        (&["cache-control: max-age=\"60\""], Some(60)),
        (&["cache-control: MAX-AGE=60"], Some(60)),
        (&["cache-control: public , Max-Age = 60"], Some(60)),
        (&["cache-control: max-age=0"], Some(0)),
        (&["cache-control: max-age=60, no-store"], Some(0)),
        (&["cache-control: No-Store, max-age=60"], Some(0)),
        (&["cache-control: no-cache"], Some(0)),
        (&["cache-control: no-cache=\"x\", max-age=60"], Some(0)),
        (&["cache-control: private, max-age=60"], Some(0)),
        (&["cache-control: s-maxage=5, max-age=60"], Some(5)),
        (&["cache-control: max-age=60, s-maxage=5"], Some(5)),
        (&["cache-control: s-maxage=, max-age=60"], Some(0)),
        (&["cache-control: max-age"], None),
        (&["cache-control: max-age="], Some(0)),
        (&["cache-control: max-age=-1"], Some(0)),
        (&["cache-control: max-age=1.5"], Some(0)),
        (&["cache-control: max-age=abc"], Some(0)),
        (&["cache-control: x-max-age=60"], None),
        (&["cache-control: must-revalidate"], None),
        (&["cache-control: "], None),
        // What is longer than a day is a day, however much longer.
        (&["cache-control: max-age=86400"], Some(86_400)),
        (&["cache-control: max-age=86401"], Some(86_400)),
        (
            &["cache-control: max-age=99999999999999999999999"],
            Some(86_400),
        ),
        (&["cache-control: max-age=60", "age: 20"], Some(40)),
        (&["cache-control: max-age=60", "age: 60"], Some(0)),
        (
            &["cache-control: max-age=60", "age: 1000000000000"],
            Some(0),
        ),
        (&["cache-control: max-age=60", "age: x"], Some(60)),
        (&["age: 5"], None),
        (&[DATE, LATER], Some(60)),
        (&[DATE, LATER, "age: 20"], Some(40)),
        (&[DATE, LATER, "cache-control: max-age=5"], Some(5)),
        (&[DATE, LATER, "cache-control: public"], Some(60)),
        (&[DATE, LATER, "cache-control: no-store"], Some(0)),
        (&[DATE, "expires: Wed, 31 Dec 2025 23:59:59 GMT"], Some(0)),
        (&[DATE, "expires: Thu, 01 Jan 2026 00:00:00 GMT"], Some(0)),
        (&[DATE, "expires: 0"], Some(0)),
        (&[DATE, "expires: never"], Some(0)),
        (&[DATE, "expires: "], Some(0)),
        // RFC 9110, section 5.6.7: the two older forms of a date.
        (
            &[DATE, "expires: Thursday, 01-Jan-26 00:01:00 GMT"],
            Some(60),
        ),
        (&[DATE, "expires: Thu Jan  1 00:01:00 2026"], Some(60)),
        // A day is the most here, too.
        (
            &[DATE, "expires: Fri, 01 Jan 2027 00:00:00 GMT"],
            Some(86_400),
        ),
        (
            &[DATE, "expires: Fri, 31 Dec 9999 23:59:59 GMT"],
            Some(86_400),
        ),
        (&[DATE], None),
        // Without a date of the backend's own time counts, and this is long over.
        (&["expires: Sat, 01 Jan 2000 00:00:00 GMT"], Some(0)),
    ] {
        let header = |wanted: &str| {
            let pairs = headers.iter().filter_map(|line| line.split_once(": "));
            let mut values = pairs.filter(|(name, _)| *name == wanted);
            values.next().map(|(_, value)| value)
        };
        let seen = lifetime(header).fresh.map(|fresh| fresh.as_secs());
        let text = || format!("expected {expected:?}, seen {seen:?}");
        wrong.require(&headers.join("; "), seen == expected, text);
    }
    wrong.none();
}

#[test]
fn the_backends_word_on_old_answers_is_understood() {
    let mut wrong = crate::support::Wrong::default();
    for (control, expected) in [
        ("", None),
        ("max-age=60", None),
        ("max-age=60, must-revalidate", Some(0)),
        ("Must-Revalidate", Some(0)),
        ("max-age=60, proxy-revalidate", Some(0)),
        // RFC 9111, section 5.2.2.10: it says proxy-revalidate, too.
        ("s-maxage=60", Some(0)),
        ("max-age=60, stale-if-error=600", Some(600)),
        ("Stale-If-Error = \"600\"", Some(600)),
        ("stale-if-error=600, must-revalidate", Some(0)),
        ("stale-if-error=", Some(0)),
        ("stale-if-error=x", Some(0)),
        ("stale-if-error", None),
        ("stale-while-revalidate=600", None),
        ("stale-if-error=99999999999999999999999", Some(86_400)),
    ] {
        let header = |wanted: &str| (wanted == "cache-control").then_some(control);
        let seen = lifetime(header).stale.map(|stale| stale.as_secs());
        let text = || format!("expected {expected:?}, seen {seen:?}");
        wrong.require(control, seen == expected, text);
    }
    wrong.none();
}

/// The endpoint's keys with this cache; policy asks by recipient.
fn keys(binary: Binary, members: &str) -> String {
    let by = match binary {
        Binary::Policy => ", by = [\"recipient\"]",
        Binary::TcpLookup | Binary::Socketmap => "",
    };
    format!("cache = {{ {members}{by} }}")
}

const FOR_LONG: &str = "ttl = \"1h\", negative-ttl = \"1h\"";

/// A backend that echoes each key, does not know `nobody`, and fails for `ill`.
fn mixed(binary: Binary) -> Backend {
    Backend::new(move |request| match key_of(binary, request).as_str() {
        "nobody" => status(204),
        "ill" => status(503),
        key => echo_of(binary, key),
    })
}

#[tokio::test]
async fn what_is_kept_is_not_asked_again_until_sigusr1() {
    for binary in ALL {
        let backend = mixed(binary);
        let config = table(binary, &backend.url("/"), &keys(binary, FOR_LONG));
        let program = serve_tcp(binary, config).await;
        let mut peer = program.peer().await;
        let ill = failed(binary, "backend answered 503");
        let rows = [
            ("joe", echoed(binary, "joe")),
            ("nobody", not_found(binary)),
        ];
        for count in [2, 4] {
            for _ in 0..5 {
                for (key, expected) in &rows {
                    let reply = peer.ask(question(binary, "t", key)).await;
                    same(key, &reply, expected);
                }
                // On another connection, too.
                let mut other = program.peer().await;
                let reply = other.ask(question(binary, "t", "joe")).await;
                same("another connection", &reply, &echoed(binary, "joe"));
            }
            assert_eq!(backend.count(), count, "{binary:?}");
            program.signal(Signal::USR1);
            let emptied = |lines: &[String]| {
                let what = "cache: emptied of 2 answers";
                lines.iter().filter(|line| line.contains(what)).count() == count / 2
            };
            program.stderr.until("an emptied cache", emptied).await;
        }
        for count in [5, 6, 7] {
            let reply = peer.ask(question(binary, "t", "ill")).await;
            same("a failure", &reply, &ill);
            assert_eq!(backend.count(), count, "{binary:?}: a failure is kept");
        }
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_said_is_a_failure_and_not_kept() {
    let mut wrong = crate::support::Wrong::default();
    for (binary, what, bad) in [
        (Binary::Policy, "a permission", plain("OK")),
        (Binary::Policy, "no action", plain("It works")),
        (Binary::Policy, "a long action", plain("a".repeat(600))),
        (Binary::Socketmap, "a line feed", json(r#""a\nb""#)),
        (Binary::Socketmap, "a NUL", json(r#""a\u0000b""#)),
        (
            Binary::TcpLookup,
            "a long value",
            json(format!("\"{}\"", "a".repeat(5_000))),
        ),
    ] {
        let backend = Backend::in_turn([bad, echo_of(binary, "joe")]);
        let config = table(binary, &backend.url("/"), &keys(binary, FOR_LONG));
        let program = serve_tcp(binary, config).await;
        let mut peer = program.peer().await;
        let mut replies = Vec::new();
        for _ in 0..2 {
            replies.push(peer.ask(question(binary, "t", "joe")).await);
        }
        let reason = match binary {
            Binary::Policy => "backend answer not understood",
            Binary::TcpLookup | Binary::Socketmap => "value cannot be sent",
        };
        wrong.compare(what, &replies[0], &failed(binary, reason));
        wrong.compare(what, &replies[1], &echoed(binary, "joe"));
    }
    wrong.none();
}

#[tokio::test]
async fn without_a_cache_every_question_is_asked() {
    for binary in ALL {
        let backend = mixed(binary);
        let program = serve_tcp(binary, table(binary, &backend.url("/"), "")).await;
        let mut peer = program.peer().await;
        for count in 1..=5 {
            let reply = peer.ask(question(binary, "t", "joe")).await;
            same(binary.name(), &reply, &echoed(binary, "joe"));
            assert_eq!(backend.count(), count, "{binary:?}");
        }
        program.signal(Signal::USR1);
        program.logged("cache: emptied of 0 answers").await;
        let reply = peer.ask(question(binary, "t", "joe")).await;
        same(binary.name(), &reply, &echoed(binary, "joe"));
    }
}

#[tokio::test]
async fn a_lifetime_of_false_keeps_nothing_of_that_kind() {
    for binary in ALL {
        for (members, again) in [
            ("ttl = false", ["joe", "nobody", "joe"]),
            ("negative-ttl = false", ["nobody", "joe", "nobody"]),
        ] {
            let backend = mixed(binary);
            let config = table(binary, &backend.url("/"), &keys(binary, members));
            let program = serve_tcp(binary, config).await;
            let mut peer = program.peer().await;
            for key in again {
                peer.ask(question(binary, "t", key)).await;
            }
            assert_eq!(backend.count(), 3, "{binary:?}: {members}");
        }
    }
}

#[tokio::test]
async fn a_reload_keeps_the_answers_of_an_endpoint_that_stays_as_it_is() {
    for binary in ALL {
        let backend = mixed(binary);
        let kept = keys(binary, FOR_LONG);
        let config = |more: &str, rest: &str| {
            table(binary, &backend.url("/"), &format!("{kept}\n{more}")) + rest
        };
        let program = serve_tcp(binary, config("", "")).await;
        let mut peer = program.peer().await;
        let mut reloads = 1;
        for (what, more, rest, count) in [
            ("at first", "", "", 1),
            ("the same file", "", "", 1),
            ("another section", "", "[log]\nlevel = \"debug\"\n", 1),
            ("a changed endpoint", "retries = 0", "", 2),
            ("as before", "retries = 0", "", 2),
            ("back again", "", "", 3),
        ] {
            program.rewrite(&config(more, rest));
            program.signal(Signal::HUP);
            reloads += 1;
            program.told("READY=1", reloads).await;
            for _ in 0..3 {
                let reply = peer.ask(question(binary, "t", "joe")).await;
                same(what, &reply, &echoed(binary, "joe"));
            }
            assert_eq!(backend.count(), count, "{binary:?}: {what}");
        }
    }
}

/// A backend that waits at a gate before each answer but that of `warm`.
fn gated(binary: Binary, gate: &Gate, script: &Script) -> Backend {
    let (gate, script) = (gate.clone(), script.clone());
    Backend::new(move |request| {
        if key_of(binary, request) == "warm" {
            return echo_of(binary, "warm");
        }
        let mut acts = vec![Act::Wait(gate.clone())];
        acts.extend(script.clone());
        acts
    })
}

#[tokio::test]
async fn a_hundred_equal_questions_at_once_are_one_call() {
    for binary in ALL {
        for (script, expected) in [
            (echo_of(binary, "joe"), echoed(binary, "joe")),
            (status(204), not_found(binary)),
            (status(503), failed(binary, "backend answered 503")),
        ] {
            let gate = Gate::shut();
            let backend = gated(binary, &gate, &script);
            let long = format!("{}\nrequest-timeout = \"80s\"", keys(binary, FOR_LONG));
            let program = serve_tcp(binary, table(binary, &backend.url("/"), &long)).await;
            let mut peers = Vec::new();
            for _ in 0..100 {
                let mut peer = program.peer().await;
                peer.ask(question(binary, "t", "warm")).await;
                peers.push(peer);
            }
            for peer in &mut peers {
                peer.send(question(binary, "t", "joe")).await;
            }
            backend.asked(2).await;
            // Where two threads serve_tcp, each has one of these: what was sent before has arrived too.
            for mut other in program.peers::<2>().await {
                for _ in 0..3 {
                    other.ask(question(binary, "t", "warm")).await;
                }
            }
            gate.pass(100);
            for peer in &mut peers {
                same(binary.name(), &peer.reply().await, &expected);
            }
            assert_eq!(backend.count(), 2, "{binary:?}");
        }
    }
}

#[tokio::test]
async fn a_shared_call_outlives_the_peer_that_made_it_and_ends_with_the_last() {
    for binary in ALL {
        let gate = Gate::shut();
        let mut script = echo_of(binary, "joe");
        let backend = gated(binary, &gate, &script);
        let long = format!("{}\nrequest-timeout = \"80s\"", keys(binary, FOR_LONG));
        let program = serve_tcp(binary, table(binary, &backend.url("/"), &long)).await;
        // Where two threads serve_tcp, they take turns: each of the first two has a neighbour, whose
        // answer shows that what was sent before has been noticed.
        let [mut first, mut second, mut of_first, mut of_second] = program.peers().await;
        first.send(question(binary, "t", "joe")).await;
        backend.asked(1).await;
        second.send(question(binary, "t", "joe")).await;
        of_second.ask(question(binary, "t", "warm")).await;
        first.reset();
        of_first.ask(question(binary, "t", "warm")).await;
        gate.pass(1);
        same(binary.name(), &second.reply().await, &echoed(binary, "joe"));
        assert_eq!(backend.count(), 2, "{binary:?}: joe and warm");

        script = vec![Act::Hang];
        backend.set(script);
        let mut third = program.peer().await;
        third.send(question(binary, "t", "jim")).await;
        backend.asked(3).await;
        second.send(question(binary, "t", "jim")).await;
        of_second.ask(question(binary, "t", "warm")).await;
        third.reset();
        second.reset();
        backend.left(1).await;
        assert_eq!(backend.count(), 3, "{binary:?}: asked again for nobody");
    }
}

#[tokio::test]
async fn old_answers_are_said_while_the_backend_is_ill_where_the_operator_allows_it() {
    for binary in ALL {
        for is_allowed in [true, false] {
            let backend = Backend::in_turn([echo_of(binary, "joe"), status(503)]);
            let stale = if is_allowed {
                "ttl = \"1ms\", stale-if-error = \"1h\""
            } else {
                "ttl = \"1ms\""
            };
            let config = table(binary, &backend.url("/"), &keys(binary, stale));
            let program = serve_tcp(binary, config).await;
            let mut peer = program.peer().await;
            let reply = peer.ask(question(binary, "t", "joe")).await;
            same(binary.name(), &reply, &echoed(binary, "joe"));
            let ill = failed(binary, "backend answered 503");
            // The answer is good for a millisecond, and then the backend is asked again.
            while backend.count() < 4 {
                let before = backend.count();
                let reply = peer.ask(question(binary, "t", "joe")).await;
                let was_asked = backend.count() > before;
                let expected = match (was_asked, is_allowed) {
                    (true, false) => &ill,
                    _ => &echoed(binary, "joe"),
                };
                same(binary.name(), &reply, expected);
            }
        }
    }
}

#[tokio::test]
async fn tables_and_maps_do_not_share_their_answers() {
    let backend = Backend::new(|request| {
        let query = request.query();
        let text = |at: usize| String::from_utf8_lossy(&query[at].1).into_owned();
        json(format!("\"{} of {}\"", text(1), text(0)))
    });
    let binary = Binary::Socketmap;
    let any = format!(
        "[socketmap.\"*\"]\ntarget = \"{}\"\ncache = {{ {FOR_LONG} }}\n",
        backend.url("/")
    );
    let own = table(binary, &backend.url("/"), &keys(binary, FOR_LONG));
    let program = serve_tcp(binary, own + &any).await;
    let mut peer = program.peer().await;
    for _ in 0..3 {
        for map in ["t", "a", "b", "ab"] {
            for key in ["k", "bk"] {
                let reply = peer.ask(question(binary, map, key)).await;
                same(map, &reply, &found(binary, &format!("{key} of {map}")));
            }
        }
    }
    assert_eq!(backend.count(), 8);
}

#[tokio::test]
async fn keys_that_are_made_equal_share_their_answer() {
    for binary in LOOKUPS {
        let backend = echo(binary);
        let made = "normalise = { lowercase = true, delimiter = \"+\" }";
        let both = format!("{}\n{made}", keys(binary, FOR_LONG));
        let program = serve_tcp(binary, table(binary, &backend.url("/"), &both)).await;
        let mut peer = program.peer().await;
        for key in ["Joe+x@A.example", "joe@a.example", "JOE+y+z@a.EXAMPLE"] {
            let reply = peer.ask(question(binary, "t", key)).await;
            same(key, &reply, &echoed(binary, "joe@a.example"));
        }
        assert_eq!(backend.count(), 1, "{binary:?}");
    }
}

#[tokio::test]
async fn a_policy_question_is_what_the_operator_says_it_is() {
    let backend = Backend::new(|request| {
        let form = request.form();
        let value = |wanted: &[u8]| {
            let found = form.iter().find(|(name, _)| name == wanted);
            let value = found.map(|(_, value)| value.as_slice());
            String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
        };
        plain(format!(
            "REJECT {}>{}",
            value(b"sender"),
            value(b"recipient")
        ))
    });
    let by = format!("cache = {{ {FOR_LONG}, by = [\"sender\", \"recipient\"] }}");
    let binary = Binary::Policy;
    let program = serve_tcp(binary, table(binary, &backend.url("/"), &by)).await;
    let mut peer = program.peer().await;
    for (block, expected, count) in [
        ("sender=a\nrecipient=b\n", "a>b", 1),
        (
            "sender=a\nrecipient=b\nclient_address=192.0.2.1\n",
            "a>b",
            1,
        ),
        ("recipient=b\nsize=5\nsender=a\nqueue_id=X\n", "a>b", 1),
        ("sender=a\nrecipient=c\n", "a>c", 2),
        ("sender=b\nrecipient=a\n", "b>a", 3),
        ("sender=A\nrecipient=b\n", "A>b", 4),
        ("sender=\nrecipient=b\n", ">b", 5),
        ("recipient=b\n", ">b", 5),
        ("sender=ab\nrecipient=\n", "ab>", 6),
        ("sender=\nrecipient=ab\n", ">ab", 7),
        ("sender=a\nrecipient=b\n", "a>b", 7),
    ] {
        let reply = peer.ask(format!("{block}\n")).await;
        let expected = framed(binary, format!("REJECT {expected}"));
        same(block, &reply, &expected);
        assert_eq!(backend.count(), count, "{block}");
    }
}

#[tokio::test]
async fn the_backends_own_word_is_honoured_where_the_operator_wants_it() {
    let binary = Binary::Socketmap;
    let rows: [(&[(&str, &str)], bool); 7] = [
        (&[("Cache-Control", "max-age=3600")], true),
        (&[("Cache-Control", "no-store")], false),
        (&[("Cache-Control", "max-age=0")], false),
        (&[("Expires", "0")], false),
        (&[], true),
        // Several lines of one header are one list (RFC 9110, section 5.3).
        (
            &[
                ("Cache-Control", "no-store"),
                ("Cache-Control", "max-age=60"),
            ],
            false,
        ),
        (
            &[
                ("Cache-Control", "max-age=60"),
                ("Cache-Control", "no-store"),
            ],
            false,
        ),
    ];
    let mut wrong = crate::support::Wrong::default();
    for (headers, is_kept) in rows {
        for is_honoured in [true, false] {
            let mut all = vec![("Content-Type", "application/json")];
            all.extend(headers);
            let backend = Backend::always(response(200, &all, "\"joe\""));
            let members = format!("{FOR_LONG}, honour-http = {is_honoured}");
            let config = table(binary, &backend.url("/"), &keys(binary, &members));
            let program = serve_tcp(binary, config).await;
            let mut peer = program.peer().await;
            for _ in 0..2 {
                let reply = peer.ask(question(binary, "t", "joe")).await;
                same("joe", &reply, &found(binary, "joe"));
            }
            let expected = if is_kept || !is_honoured { 1 } else { 2 };
            let seen = backend.count();
            wrong.require(
                &format!("{headers:?}, honoured: {is_honoured}"),
                seen == expected,
                || format!("asked {seen} times, not {expected}"),
            );
        }
    }
    wrong.none();
}

#[tokio::test]
async fn an_answer_is_renewed_before_its_end_without_anybody_waiting() {
    for binary in ALL {
        let gate = Gate::shut();
        let backend = {
            let gate = gate.clone();
            let asked = Mutex::new(0);
            Backend::new(move |_| {
                let mut asked = asked.lock().expect("a lock");
                *asked += 1;
                if *asked == 1 {
                    return echo_of(binary, "old");
                }
                let mut script = vec![Act::Wait(gate.clone())];
                script.extend(echo_of(binary, "new"));
                script
            })
        };
        // Half of the lifetime is the most that is renewed ahead: from a second on.
        let members = "ttl = \"2s\", refresh-ahead = \"1h\"";
        let config = table(binary, &backend.url("/"), &keys(binary, members));
        let program = serve_tcp(binary, config).await;
        let mut peer = program.peer().await;
        let is_renewing = async {
            loop {
                let reply = peer.ask(question(binary, "t", "key")).await;
                same("kept", &reply, &echoed(binary, "old"));
            }
        };
        tokio::select! {
            () = is_renewing => {}
            _ = backend.asked(2) => {}
        }
        gate.pass(1);
        let mut other = program.peer().await;
        loop {
            let reply = other.ask(question(binary, "t", "key")).await;
            if reply == echoed(binary, "new") {
                break;
            }
            same("not yet", &reply, &echoed(binary, "old"));
        }
        assert_eq!(backend.count(), 2, "{binary:?}");
    }
}
