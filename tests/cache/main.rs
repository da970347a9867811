//! The cache of the library, with paused time: against a model that knows every permitted answer,
//! and case by case.

mod bounds;
mod lifetimes;
mod model;
mod shared;
mod threads;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use postgate::{
    config,
    http::freshness::Fetched,
    outcome::{Outcome, Reason},
    table::cache::{Cache, CacheKey},
};

fn settings() -> config::Cache {
    config::Cache {
        ttl: Duration::from_secs(60),
        negative_ttl: Duration::from_secs(10),
        stale_if_error: None,
        refresh_ahead: None,
        honour_http: false,
        max_entries: 10_000,
        max_bytes: 16 << 20,
        is_shared: false,
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
