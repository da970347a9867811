//! The engine: questions about limits, and what has been used of them.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::{Cmd, Value};

use super::connect::Live;
use super::failure::Failure;
use super::link::Link;
use super::script::{self, Arguments, Names, Script};
use crate::config::RedisUrl;
use crate::limits::{Decision, Mode, Question, Units, Usage};
use crate::store::error::StoreError;

/// The script that answers questions.
pub const LIMITS: &str = include_str!("../limits.lua");

/// The keys that SCAN looks at in one step, and the most keys in one call of the script. Redis
/// answers no other question meanwhile.
const STEP: usize = 200;

/// The engine.
#[derive(Debug)]
pub struct Redis {
    pub(super) link: Link,
    pub(super) names: Names,
    script: Script,
}

impl Redis {
    /// Makes the engine; it connects with its first question. `script` is `LIMITS`.
    pub fn new(
        url: &RedisUrl,
        prefix: &str,
        timeout: Duration,
        script: &str,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            link: Link::new(url, timeout)?,
            names: Names::new(prefix),
            script: Script::new(script.to_owned()),
        })
    }

    /// Connects, and runs the script: what a wrong password, a missing right or a replica would
    /// refuse later is refused here.
    pub async fn open(&self) -> Result<(), StoreError> {
        self.link
            .run(true, async |live| self.try_out(&live).await)
            .await
    }

    /// Has the script write, as questions do.
    pub(super) async fn try_out(&self, live: &Live) -> Result<(), Failure> {
        let arguments = script::trying_arguments(&self.names);
        run(live, &self.script, &arguments).await?;
        Ok(())
    }

    /// Answers a question.
    pub async fn decide(&self, question: &Question) -> Result<Decision, StoreError> {
        if question.parts.is_empty() {
            // An answer says that the store is up.
            self.open().await?;
            return Ok(Decision {
                parts: Vec::new(),
                refusal: None,
            });
        }
        let arguments = script::arguments(&self.names, question);
        let decided = self.link.run(is_repeatable(question), async |live| {
            let answer = run(&live, &self.script, &arguments).await?;
            script::decision(answer, question).ok_or_else(Failure::not_understood)
        });
        decided.await
    }

    /// Returns the use of the accounts of a table, or of one account.
    pub async fn usage(
        &self,
        table: &str,
        account: Option<&str>,
    ) -> Result<Vec<Usage>, StoreError> {
        let keys: Vec<_> = self.keys(table, account).await?.into_iter().collect();
        let mut found = Vec::new();
        for keys in keys.chunks(STEP) {
            let arguments = script::usage_arguments(keys.to_vec());
            let usage = self.link.run(true, async |live| {
                let answer = run(&live, &self.script, &arguments).await?;
                let accounts = keys.iter().filter_map(|key| self.names.parse(table, key));
                script::usage(answer, accounts).ok_or_else(Failure::not_understood)
            });
            found.extend(usage.await?);
        }
        Ok(found)
    }

    /// Forgets what an account has used, and returns how many limits it had used.
    pub async fn reset(&self, table: &str, account: &str) -> Result<usize, StoreError> {
        let keys = self.keys(table, Some(account)).await?;
        if keys.is_empty() {
            return Ok(0);
        }
        let mut unlink = redis::cmd("UNLINK");
        unlink.arg(keys);
        self.link
            .run(true, async |live| send(&live, &unlink).await)
            .await
    }

    /// Returns the keys of the accounts of a table, or of one account.
    async fn keys(
        &self,
        table: &str,
        account: Option<&str>,
    ) -> Result<BTreeSet<String>, StoreError> {
        let pattern = self.names.pattern(table, account);
        let mut keys = BTreeSet::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(STEP);
            let step = self.link.run(true, async |live| send(&live, &scan).await);
            let found: Vec<Vec<u8>>;
            (cursor, found) = step.await?;
            let found = found
                .into_iter()
                .filter_map(|key| String::from_utf8(key).ok());
            keys.extend(found.filter(|key| {
                let parsed = self.names.parse(table, key);
                parsed.is_some_and(|(_, is)| account.is_none_or(|account| is == account))
            }));
            if cursor == 0 {
                return Ok(keys);
            }
        }
    }
}

/// Returns whether a question charges nothing twice if it is asked again: Redis may have answered
/// it before the connection broke.
fn is_repeatable(question: &Question) -> bool {
    match question.mode {
        Mode::Peek | Mode::Check | Mode::Reserve(_) | Mode::Release(_) => return true,
        Mode::Keep(_) => return false,
        Mode::Decide => {}
    }
    question.message.as_ref().is_some_and(|message| {
        let mut parts = question.parts.iter();
        message.repeat.is_some() || parts.all(|part| matches!(part.units, Units::UpTo(_)))
    })
}

/// Runs a script, which is sent only if Redis does not know it.
async fn run(live: &Live, script: &Script, arguments: &Arguments) -> Result<Value, Failure> {
    let command = |name: &str, script: &str| {
        let mut command = redis::cmd(name);
        command.arg(script).arg(arguments.keys.len());
        command.arg(&arguments.keys).arg(&arguments.value);
        command
    };
    match send(live, &command("EVALSHA", &script.sha1)).await {
        Err(Failure::NoScript) => send(live, &command("EVAL", &script.source)).await,
        answer => answer,
    }
}

pub(super) async fn send<T: redis::FromRedisValue>(
    live: &Live,
    command: &Cmd,
) -> Result<T, Failure> {
    let answer = command.query_async(&mut live.connection()).await;
    answer.map_err(Failure::from)
}
