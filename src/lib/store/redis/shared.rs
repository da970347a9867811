//! Answers that all hosts share, in the same Redis.
//!
//! An answer is kept under a name that says nothing of what was asked. It belongs to a generation of
//! its table, a random word: once the table is emptied, it has another, and what was asked for before
//! that is not used after it.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use redis::{Cmd, Value};

use super::client::{Redis, send};
use super::connect::Live;
use super::failure::Failure;
use crate::store::error::StoreError;

/// A generation of a table: no two are equal.
pub type Generation = [u8; 16];

/// What is kept under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The current generation of the table.
    pub generation: Generation,
    /// The answer, and how long it may still be used; none if there is none, or if it is damaged or
    /// of another generation.
    pub answer: Option<(Vec<u8>, Duration)>,
}

/// What is done before a look-up.
#[derive(Clone, Copy, Debug, Default)]
pub struct First {
    /// Whether the store is tried as a question about limits would try it: it was down, and may only
    /// be able to read.
    pub try_out: bool,
    /// The generation of the table that begins.
    pub begin: Option<Generation>,
}

/// The bytes of a digest before an answer, which are made of its name as well.
const DIGEST: usize = 8;

/// Returns a generation that no table has had.
pub fn new_generation() -> Generation {
    // Each state has keys of its own, which come from random numbers of the system.
    let half = || RandomState::new().hash_one(Instant::now()).to_le_bytes();
    let mut generation = Generation::default();
    generation[..8].copy_from_slice(&half());
    generation[8..].copy_from_slice(&half());
    generation
}

impl Redis {
    /// Returns what is kept under a name of a table, after what `first` says.
    pub async fn look_up(
        &self,
        table: &str,
        name: &str,
        first: First,
    ) -> Result<Shared, StoreError> {
        let (key, of_table) = (self.entry(table, name), self.generation(table));
        let looked_up = self.link.run(true, async |live| {
            if first.try_out {
                self.try_out(&live).await?;
            }
            if let Some(generation) = &first.begin {
                send::<Value>(&live, &begin(&of_table, generation)).await?;
            }
            let (mut lifetime, mut both) = (redis::cmd("PTTL"), redis::cmd("MGET"));
            lifetime.arg(&key);
            both.arg(&of_table).arg(&key);
            // In this order on one connection: an answer that is replaced in between is used for the
            // lifetime of the one before it, which is shorter.
            let (left, both) = tokio::join!(biased; send(&live, &lifetime), send(&live, &both));
            let left: i64 = left?;
            let (current, kept): (Option<Vec<u8>>, Option<Vec<u8>>) = both?;
            let generation = match current.and_then(|current| current.try_into().ok()) {
                Some(generation) => generation,
                None => self.first_generation(&live, &of_table).await?,
            };
            let left = u64::try_from(left).unwrap_or_default();
            let answer = kept.and_then(|bytes| open(&key, &generation, bytes));
            Ok(Shared {
                generation,
                answer: answer
                    .map(|bytes| (bytes, Duration::from_millis(left)))
                    .filter(|(_, left)| !left.is_zero()),
            })
        });
        looked_up.await
    }

    /// Keeps an answer for its lifetime.
    pub async fn keep(
        &self,
        table: &str,
        name: &str,
        generation: &Generation,
        answer: &[u8],
        lifetime: Duration,
    ) -> Result<(), StoreError> {
        let key = self.entry(table, name);
        let millis = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(seal(&key, generation, answer));
        set.arg("PX").arg(millis.max(1));
        self.link
            .run(true, async |live| send(&live, &set).await)
            .await
    }

    /// Begins a generation of a table: what was kept before is not used any more.
    pub async fn begin(
        &self,
        table: &str,
        generation: &Generation,
        try_out: bool,
    ) -> Result<(), StoreError> {
        let set = begin(&self.generation(table), generation);
        let begun = self.link.run(true, async |live| {
            if try_out {
                self.try_out(&live).await?;
            }
            send(&live, &set).await
        });
        begun.await
    }

    /// Returns the generation of a table that has none: the one that is set first, by any host.
    async fn first_generation(&self, live: &Live, of_table: &str) -> Result<Generation, Failure> {
        let generation = new_generation();
        let (mut set, mut get) = (redis::cmd("SET"), redis::cmd("MGET"));
        set.arg(of_table).arg(&generation).arg("NX");
        get.arg(of_table);
        let (set, found) = tokio::join!(biased; send::<Value>(live, &set), send(live, &get));
        set?;
        let (found,): (Option<Vec<u8>>,) = found?;
        if let Some(Ok(generation)) = found.map(Generation::try_from) {
            return Ok(generation);
        }
        // Something else has been written there.
        send::<Value>(live, &begin(of_table, &generation)).await?;
        Ok(generation)
    }

    fn entry(&self, table: &str, name: &str) -> String {
        format!("{}{name}", self.shared(table))
    }

    fn generation(&self, table: &str) -> String {
        format!("{}generation", self.shared(table))
    }

    /// Returns what the names of all keys of a table begin with. All tables are in one slot. The
    /// name of a table has no colon.
    fn shared(&self, table: &str) -> String {
        format!("{}{{cache}}:{table}:", self.names.prefix())
    }
}

fn begin(of_table: &str, generation: &Generation) -> Cmd {
    let mut set = redis::cmd("SET");
    set.arg(of_table).arg(generation);
    set
}

/// Returns the value of a key: a digest, the generation, the answer.
fn seal(key: &str, generation: &Generation, answer: &[u8]) -> Vec<u8> {
    let mut value = digest_of(key, generation, answer).to_vec();
    value.extend_from_slice(generation);
    value.extend_from_slice(answer);
    value
}

/// Returns the answer in a value, if it is whole and of this generation.
fn open(key: &str, generation: &Generation, mut value: Vec<u8>) -> Option<Vec<u8>> {
    const BEFORE: usize = DIGEST + size_of::<Generation>();
    let (before, answer) = value.split_at_checked(BEFORE)?;
    let (digest, of) = before.split_at_checked(DIGEST)?;
    let is_whole = of == generation && digest == digest_of(key, generation, answer);
    is_whole.then(|| value.split_off(BEFORE))
}

fn digest_of(key: &str, generation: &Generation, answer: &[u8]) -> [u8; DIGEST] {
    let all = [key.as_bytes(), generation, answer].concat();
    let mut cut = [0; DIGEST];
    cut.copy_from_slice(&digest(&SHA256, &all).as_ref()[..DIGEST]);
    cut
}
