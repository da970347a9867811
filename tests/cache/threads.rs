//! Shared calls from several threads at once.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use postgate::outcome::Outcome;
use tokio::{runtime::Builder, time::timeout};

use super::{asks, cache, is_value, settings, value};

/// How long an answer may take before the test calls it lost.
const LOST: Duration = Duration::from_secs(30);

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
            let told = runtime().block_on(async { timeout(LOST, tokio::spawn(joining)).await });
            told.expect("an answer").expect("no fault")
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
