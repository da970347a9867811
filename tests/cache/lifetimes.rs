//! The lifetime of answers, fresh and stale.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use postgate::{
    http::freshness::{Fetched, Lifetime, lifetime},
    outcome::{Outcome, Reason},
};
use tokio::time::{advance, sleep};

use super::{ask, asks, cache, failure, is_value, settings, value};

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
    // An operator has to see that a setting is wrong.
    let permanent = Outcome::Permanent(Reason::Answered(400).into());
    assert_eq!(ask(&cache, "b", value("3")).await.1, 1);
    advance(Duration::from_secs(60)).await;
    let told = ask(&cache, "b", permanent.clone().into()).await;
    assert_eq!(told, (permanent, 1));
    // A failure is never said as "not found", even if stale answers are allowed.
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

#[test]
fn the_backends_word_on_lifetimes_is_understood() {
    const DATE: &str = "date: Thu, 01 Jan 2026 00:00:00 GMT";
    const LATER: &str = "expires: Thu, 01 Jan 2026 00:01:00 GMT";
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
        // Anything longer than a day is a day.
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
        assert_eq!(seen, expected, "{headers:?}");
    }
}

#[test]
fn the_backends_word_on_old_answers_is_understood() {
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
        assert_eq!(seen, expected, "{control}");
    }
}
