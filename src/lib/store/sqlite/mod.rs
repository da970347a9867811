//! An SQLite file as the engine of the store.
//!
//! `worker` is the thread that owns the file and answers what is asked of it; nothing of a thread
//! that serves waits for a disk. `place` makes the file, and `error` says why it cannot be used;
//! `file` has the transactions, on the rows of `rows` in the formats of `format`; `sweep` deletes
//! what has expired, and `checkpoint` is a thread that brings the log to the disk.

pub mod checkpoint;
pub mod error;
pub mod file;
pub mod format;
pub mod place;
pub mod rows;
pub mod sweep;
pub mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::clock::now_ms;
use super::error::StoreError;
use crate::limits::{Decision, Question, Usage};
use error::FileError;
use file::File;
use place::Access;
use worker::Task;

/// The time for a question. A disk that takes longer is as good as none.
const DEADLINE: Duration = Duration::from_secs(2);

/// The most questions that wait for the thread.
const WAITING: usize = 1024;

/// An SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    /// The thread ends once this is dropped.
    tasks: mpsc::Sender<Task>,
}

impl Sqlite {
    /// Makes the engine of a program, with a thread that waits for the first question.
    pub fn new(path: Option<&Path>, program: &str) -> Result<Self, StoreError> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => PathBuf::from(format!("/var/lib/postgate-{program}/limits.sqlite")),
        };
        let (tasks, waiting) = mpsc::channel(WAITING);
        let run = {
            let path = path.clone();
            move || worker::run(path, waiting)
        };
        let thread = thread::Builder::new().name("store".to_owned());
        match thread.spawn(run) {
            Ok(_) => Ok(Self { path, tasks }),
            Err(error) => Err(StoreError(format!("a thread cannot be started: {error}"))),
        }
    }

    /// Makes the file, if there is none. Without this, it is only opened.
    pub async fn open(&self) -> Result<(), StoreError> {
        self.ask(Task::Open).await
    }

    /// Answers a question.
    pub async fn decide(&self, question: &Arc<Question>) -> Result<Decision, StoreError> {
        self.ask(|reply| Task::Decide(Arc::clone(question), reply))
            .await
    }

    /// Closes the file, which brings everything to the disk.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.ask(Task::Close).await
    }

    async fn ask<T>(
        &self,
        task: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Task,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let answer = async {
            self.tasks.send(task(reply)).await.ok()?;
            answer.await.ok()
        };
        let path = self.path.display();
        match timeout(DEADLINE, answer).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(StoreError(format!("{path}: an internal error"))),
            Err(_) => Err(StoreError(format!("{path}: no answer within 2 s"))),
        }
    }

    /// Returns the use of the accounts of a table, or of one account.
    pub async fn usage(
        &self,
        table: &str,
        account: Option<&str>,
    ) -> Result<Vec<Usage>, StoreError> {
        let (table, account) = (table.to_owned(), account.map(str::to_owned));
        self.beside(move |file| file.usage(&table, account.as_deref(), now_ms()))
            .await
    }

    /// Forgets what an account has used, and returns how many limits it had used.
    pub async fn reset(&self, table: &str, account: &str) -> Result<usize, StoreError> {
        let (table, account) = (table.to_owned(), account.to_owned());
        self.beside(move |file| file.reset(&table, &account)).await
    }

    /// Does something with the file on a connection of its own.
    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let path = self.path.clone();
        let work = move || work(&File::open(&path, Access::Beside)?);
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.map_err(|error| StoreError(format!("{}: {error}", self.path.display())))?;
        done.map_err(|error| StoreError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Mode;

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_not_waited_for_longer_than_two_seconds() {
        let (tasks, waiting) = mpsc::channel(1);
        let sqlite = Sqlite {
            path: "/state/limits.sqlite".into(),
            tasks,
        };
        let question = Arc::new(Question {
            table: "policy.t".into(),
            message: None,
            parts: Vec::new(),
            mode: Mode::Decide,
        });
        let hangs = Err(StoreError(
            "/state/limits.sqlite: no answer within 2 s".to_owned(),
        ));
        // The first waits for its answer, the second for room to ask.
        for _ in 0..2 {
            let began = tokio::time::Instant::now();
            assert_eq!(sqlite.decide(&question).await, hangs);
            assert_eq!(began.elapsed(), DEADLINE);
        }
        drop(waiting);
        let ended = StoreError("/state/limits.sqlite: an internal error".to_owned());
        assert_eq!(sqlite.decide(&question).await, Err(ended));
    }
}
