//! The thread that owns the file. It takes all questions that wait, answers them in one
//! transaction, and says the answers only once that is in the file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::checkpoint::Checkpoints;
use super::error::{FileError, Identity};
use super::file::File;
use super::place::{Access, beside, identity, real};
use crate::limits::{Decision, Question};
use crate::store::clock::now_ms;
use crate::store::error::StoreError;

/// The most questions in one transaction.
const BATCH: usize = 512;

/// A corrupt file is moved aside at most once in this time: a disk that fails must not be filled
/// with them.
const MOVE_EVERY: Duration = Duration::from_secs(60);

/// What the thread is asked to do.
#[derive(Debug)]
pub enum Task {
    /// Make the file, if there is none.
    Open(oneshot::Sender<Result<(), StoreError>>),
    /// Answer a question.
    Decide(Arc<Question>, oneshot::Sender<Result<Decision, StoreError>>),
    /// Close the file, which writes its log back.
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// Works until there is nobody who could ask.
pub fn run(path: PathBuf, mut tasks: mpsc::Receiver<Task>) {
    let mut worker = Worker {
        path,
        access: Access::Beside,
        open: None,
        moved_at: None,
    };
    let mut waiting = Vec::new();
    while tasks.blocking_recv_many(&mut waiting, BATCH) > 0 {
        // A panic is logged as one, and its questions have no answer. It must not end all others.
        let work = AssertUnwindSafe(|| worker.work(waiting.drain(..)));
        if catch_unwind(work).is_err() {
            worker.open = None;
        }
    }
}

struct Worker {
    path: PathBuf,
    access: Access,
    open: Option<Open>,
    moved_at: Option<Instant>,
}

/// The file while it is open. The log is written back when the last connection is closed, and the
/// thread has one.
struct Open {
    checkpoints: Option<Checkpoints>,
    file: File,
}

impl Worker {
    fn work(&mut self, tasks: impl Iterator<Item = Task>) {
        let (mut questions, mut replies) = (Vec::new(), Vec::new());
        for task in tasks {
            match task {
                Task::Open(reply) => {
                    self.access = Access::Service;
                    let _ = reply.send(self.on_file(|_| Ok(())));
                }
                Task::Decide(question, reply) if !reply.is_closed() => {
                    questions.push(question);
                    replies.push(reply);
                }
                // Who asked has answered from memory meanwhile.
                Task::Decide(..) => {}
                Task::Close(reply) => {
                    self.open = None;
                    let _ = reply.send(Ok(()));
                }
            }
        }
        if questions.is_empty() {
            return;
        }
        match self.on_file(|file| file.decide(&questions, now_ms)) {
            Ok(decisions) => {
                for (reply, decision) in replies.into_iter().zip(decisions) {
                    let _ = reply.send(Ok(decision));
                }
            }
            Err(error) => {
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Does something with the file, and once more with another if it is corrupt.
    fn on_file<T>(
        &mut self,
        work: impl Fn(&mut File) -> Result<T, FileError>,
    ) -> Result<T, StoreError> {
        let mut done = self.try_on_file(&work);
        if self.access == Access::Service
            && let Err(FileError::Corrupt(why, which)) = &done
        {
            done = match self.move_aside(why, *which) {
                Ok(()) => self.try_on_file(&work),
                Err(error) => Err(error),
            };
        }
        done.map_err(|error| StoreError(error.to_string()))
    }

    fn try_on_file<T>(
        &mut self,
        work: impl Fn(&mut File) -> Result<T, FileError>,
    ) -> Result<T, FileError> {
        let open = self.opened()?;
        let before = open.file.changes();
        let done = work(&mut open.file);
        if open.file.changes() != before
            && let Some(checkpoints) = &open.checkpoints
        {
            checkpoints.note_change();
        }
        if let Err(error) = &done {
            self.close(matches!(error, FileError::Corrupt(..)));
        }
        done
    }

    /// Returns the file that is at the path.
    fn opened(&mut self) -> Result<&mut Open, FileError> {
        if let Some(open) = self.open.take_if(|open| !open.file.is_in_place()) {
            warn!(
                "store: {}: it or its log was deleted or replaced, and what is there counts",
                self.path.display()
            );
            drop(open.checkpoints);
            open.file.forsake();
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => Open::new(&self.path, self.access)?,
        };
        Ok(self.open.insert(open))
    }

    fn close(&mut self, is_corrupt: bool) {
        if let Some(Open { checkpoints, file }) = self.open.take() {
            drop(checkpoints);
            if is_corrupt {
                file.abandon();
            }
        }
    }

    /// Moves a corrupt file aside, for whoever wants to look into it.
    fn move_aside(&mut self, why: &str, which: Identity) -> Result<(), FileError> {
        if !identity(&self.path).is_ok_and(|found| found == which) {
            // Another process has done so.
            return Ok(());
        }
        if self.moved_at.is_some_and(|at| at.elapsed() < MOVE_EVERY) {
            return Err(FileError::Unusable(why.to_owned()));
        }
        let path = real(&self.path);
        let aside = beside(&path, &format!(".corrupt-{}", now_ms() / 1000));
        // With an empty file SQLite drops a log that has been left, so the file goes first.
        for suffix in ["", "-wal", "-shm"] {
            let from = beside(&path, suffix);
            match fs::rename(from, beside(&aside, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let text = format!("{why}, and it cannot be moved aside: {error}");
                    return Err(FileError::Unusable(text));
                }
                _ => {}
            }
        }
        self.moved_at = Some(Instant::now());
        warn!(
            "store: {why}: moved to {}, and the count begins anew",
            aside.display()
        );
        Ok(())
    }
}

impl Open {
    fn new(path: &Path, access: Access) -> Result<Self, FileError> {
        let file = File::open(path, access)?;
        let checkpoints = match access {
            Access::Service => Some(Checkpoints::start(path)),
            Access::Beside => None,
        };
        let checkpoints = checkpoints.transpose();
        let checkpoints = checkpoints
            .map_err(|error| FileError::Unusable(format!("a thread cannot be started: {error}")))?;
        Ok(Self { checkpoints, file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Mode, Part, Rate, Units};

    #[test]
    fn nobody_is_charged_for_a_question_that_nobody_waits_for() {
        let name = format!("postgate-worker-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        let hour = Duration::from_secs(3600);
        let question = Arc::new(Question {
            table: "policy.t".into(),
            message: None,
            parts: vec![Part {
                limit: "l".into(),
                account: "a".to_owned(),
                rates: vec![Rate {
                    window: hour,
                    most: Some(1),
                }],
                units: Units::Add(1),
                charges_refused: false,
                is_dry_run: false,
            }],
            mode: Mode::Decide,
        });
        let (tasks, waiting) = mpsc::channel(3);
        let (opened, open) = oneshot::channel();
        let (gone, waits_no_more) = oneshot::channel();
        drop(waits_no_more);
        let (reply, answer) = oneshot::channel();
        for task in [
            Task::Open(opened),
            Task::Decide(Arc::clone(&question), gone),
            Task::Decide(Arc::clone(&question), reply),
        ] {
            tasks.try_send(task).unwrap();
        }
        drop(tasks);
        run(folder.join("limits.sqlite"), waiting);
        assert_eq!(open.blocking_recv().unwrap(), Ok(()));
        let answer = answer.blocking_recv().unwrap().unwrap();
        assert_eq!((answer.parts, answer.refusal), (vec![Ok(())], None));
        fs::remove_dir_all(&folder).unwrap();
    }
}
