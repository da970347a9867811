//! The bounds of the cache, and the identity of a request.

use std::time::Duration;

use postgate::{request::Request, table::cache::Cache};
use tokio::time::advance;

use super::{ask, cache, failure, is_value, settings, value};

#[tokio::test(start_paused = true)]
async fn there_are_never_more_answers_than_allowed_and_nearly_as_many() {
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
        assert!(kept * 10 >= most * 9, "only {kept} of {most} are ever kept");
        // The answers that are left have not changed.
        for number in 0..3 * most {
            let key = format!("key{number}");
            let (outcome, calls) = ask(&cache, &key, value("else")).await;
            let expected = if calls == 0 { key } else { "else".to_owned() };
            assert_eq!(outcome, is_value(&expected));
        }
    }
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
    let by_key = Cache::new(settings());
    let lookup = |map: Option<&'static str>, key: &'static str| {
        by_key.key(&Request::of(map.map(Into::into), "key", key.into()))
    };
    let policy = |attributes: &[(&'static str, &'static str)]| {
        let pairs = attributes.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        cache.key(&Request {
            values: pairs.collect(),
            ..Request::default()
        })
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
    // An attribute that was not sent is empty, as in every placeholder.
    assert_eq!(policy(&[]), policy(&[("sender", ""), ("recipient", "")]));
}
