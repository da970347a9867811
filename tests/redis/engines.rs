//! Engines over a server of a test.

use std::time::Duration;

use postgate::config::RedisUrl;
use postgate::limits::{Decision, Question, Usage};
use postgate::store::StoreError;
use postgate::store::redis::{LIMITS, Redis};

use crate::server::{Administrator, Server};

/// An engine over a server.
pub(crate) fn engine(server: &Server) -> Redis {
    engine_at(&server.url(""))
}

/// An engine with this URL, and time enough for a slow machine.
pub(crate) fn engine_at(url: &str) -> Redis {
    let url = RedisUrl::parse(url).expect("an URL");
    Redis::new(&url, "postgate:", Duration::from_secs(20), LIMITS).expect("an engine")
}

/// An engine whose script takes the time from the key "now" in the place of the clock.
pub(crate) struct Clocked {
    pub(crate) engine: Redis,
    connection: Administrator,
}

impl Clocked {
    pub(crate) fn new(server: &Server) -> Self {
        /// Stands before the script, and hides its `redis`.
        const CLOCK: &str = "
            local real = redis
            local redis = {
              call = function(name, ...)
                if name ~= 'TIME' then return real.call(name, ...) end
                local now = tonumber(real.call('GET', 'now'))
                return { string.format('%.0f', math.floor(now / 1000)), now % 1000 * 1000 }
              end,
            }
        ";
        let url = RedisUrl::parse(&server.url("")).expect("an URL");
        let script = format!("{CLOCK}{LIMITS}");
        Self {
            engine: Redis::new(&url, "postgate:", Duration::from_secs(20), &script)
                .expect("an engine"),
            connection: server.connection(""),
        }
    }

    fn set(&mut self, now_ms: u64) {
        self.connection.command(&format!("SET now {now_ms}"));
    }

    pub(crate) async fn decide(
        &mut self,
        question: &Question,
        now_ms: u64,
    ) -> Result<Decision, StoreError> {
        self.set(now_ms);
        self.engine.decide(question).await
    }

    pub(crate) async fn usage(
        &mut self,
        table: &str,
        account: Option<&str>,
        now_ms: u64,
    ) -> Result<Vec<Usage>, StoreError> {
        self.set(now_ms);
        self.engine.usage(table, account).await
    }
}
