//! The cache of all hosts beside a table's own: renewed ahead, and in place of a failure.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use postgate::config::{self, Mode, Secret};
use postgate::http::freshness::Fetched;
use postgate::outcome::{Outcome, Reason};
use postgate::store::Store;
use postgate::table::shared_cache::SharedCache;

use crate::server::Server;

/// A table whose cache is shared, with these members.
fn cache(server: &Server, members: &str) -> Arc<SharedCache> {
    let url = server.url("");
    let text = format!(
        "[store]\nredis = \"{url}\"\n[socketmap.t]\ntarget = \"http://h/\"\n\
         cache = {{ shared = true, ttl = \"1h\", {members} }}\n"
    );
    // In the folder of the server, which is removed with it.
    let path = server.socket().with_extension("toml");
    fs::write(&path, text).expect("a file");
    let (config, report) = config::load(&path, Mode::Check);
    let config = config.unwrap_or_else(|| panic!("{:?}", report.problems()));
    let store = config::Store::Redis {
        url: Secret::text(&url),
        prefix: "postgate:".to_owned(),
        timeout: Duration::from_secs(20),
    };
    let store = Arc::new(Store::new(&store, "socketmap").expect("a store"));
    Arc::new(SharedCache::new(&config.tables[0], &store).expect("a shared cache"))
}

fn value(text: &str) -> Fetched {
    Outcome::Found(text.to_owned()).into()
}

fn failure() -> Fetched {
    Outcome::Temporary(Reason::Unreachable.into()).into()
}

/// Asks, where the backend would answer this.
async fn ask(cache: &Arc<SharedCache>, answer: Fetched) -> Fetched {
    cache
        .answer(b"key", |outcome| outcome, async { answer })
        .await
}

/// Waits until an answer is kept that ends so, and returns its key.
async fn kept(server: &Server, end: &str) -> String {
    let mut connection = server.connection("");
    loop {
        let keys: Vec<String> = connection.answer("KEYS *{cache}*");
        for key in keys {
            let bytes: Vec<u8> = connection.bytes("GET", &key, &[]);
            if bytes.ends_with(end.as_bytes()) {
                return key;
            }
        }
        // Whoever keeps it is a task of this thread.
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_near_its_end_is_asked_for_again_and_used_if_that_fails() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let cache = cache(&server, "refresh-ahead = \"10m\", stale-if-error = \"1m\"");
    assert_eq!(ask(&cache, value("1")).await.outcome, value("1").outcome);
    let key = kept(&server, "F1").await;
    // Fresh.
    let fresh = ask(&cache, value("2")).await;
    assert_eq!(fresh.outcome, value("1").outcome);
    assert_eq!(fresh.lifetime.fresh, Some(Duration::from_secs(3600)));
    assert!(
        fresh
            .shared_age
            .is_some_and(|age| age < Duration::from_secs(60))
    );
    // Nine minutes before its end.
    server.command(&format!("PEXPIRE {key} 540000"));
    let failed = ask(&cache, failure()).await;
    assert_eq!(failed.outcome, value("1").outcome);
    let age = failed.shared_age.expect("an age");
    assert!((3_060_000..3_120_000).contains(&age.as_millis()), "{age:?}");
    let permanent: Fetched = Outcome::Permanent(Reason::Answered(400).into()).into();
    assert_eq!(
        ask(&cache, permanent.clone()).await.outcome,
        permanent.outcome
    );
    let renewed = ask(&cache, value("3")).await;
    assert_eq!(
        (renewed.outcome, renewed.shared_age),
        (value("3").outcome, None)
    );
    kept(&server, "F3").await;
    assert_eq!(ask(&cache, value("4")).await.outcome, value("3").outcome);
    // After its end it is nobody's: a stale answer is a matter of a table's own cache.
    server.command(&format!("PEXPIRE {key} 0"));
    assert_eq!(ask(&cache, failure()).await.outcome, failure().outcome);
}

#[tokio::test]
async fn what_cannot_be_used_any_more_is_replaced() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let cache = cache(&server, "");
    ask(&cache, value("1")).await;
    kept(&server, "F1").await;
    let unusable = |_| Outcome::Temporary(Reason::Unreachable.into());
    let call = async { value("2") };
    let answer = cache.answer(b"key", unusable, call).await;
    assert_eq!(
        (answer.outcome, answer.shared_age),
        (value("2").outcome, None)
    );
}
