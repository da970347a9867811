//! Calls that equal requests share, and events during such a call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use postgate::outcome::Outcome;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{advance, sleep},
};

use super::{ask, asks, cache, failure, is_value, model, settings, value};

#[tokio::test(start_paused = true)]
async fn whatever_is_asked_and_whenever_only_what_may_be_said_is_said() {
    for seed in 0..model::seeds() {
        model::play(seed).await;
    }
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
    // The next request does not join a call that has ended.
    assert_eq!(ask(&cache, "b", value("2")).await, (is_value("2"), 1));
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
    // A later request gets a later answer.
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
