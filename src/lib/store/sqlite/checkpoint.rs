//! A thread that writes the log of a file back into it, at most once in a second while there are
//! changes, so that a power cut loses no more. The thread that decides hardly waits for the disk
//! then. Without changes this one sleeps.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::warn;

use super::error::FileError;
use super::file::File;
use super::place::Access;

const INTERVAL: Duration = Duration::from_secs(1);

/// A failure is a warning at most once in this time.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The thread of one open file. It has ended once this is dropped.
#[derive(Debug)]
pub struct Checkpoints {
    changed: Option<SyncSender<()>>,
    /// Only dropped, which interrupts a pause.
    running: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread for a file.
    pub fn start(path: &Path) -> io::Result<Self> {
        let (changed, changes) = sync_channel(1);
        let (running, end) = sync_channel(0);
        let mut writer = Writer {
            path: path.to_owned(),
            file: None,
            warned_at: None,
        };
        let thread = thread::Builder::new().name("checkpoints".to_owned());
        Ok(Self {
            changed: Some(changed),
            running: Some(running),
            thread: Some(thread.spawn(move || writer.run(&changes, &end))?),
        })
    }

    /// Notes that there are changes.
    pub fn note_change(&self) {
        if let Some(changed) = &self.changed {
            // Where one is noted already, this fails.
            let _ = changed.try_send(());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop((self.running.take(), self.changed.take()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
    warned_at: Option<Instant>,
}

impl Writer {
    fn run(&mut self, changes: &Receiver<()>, end: &Receiver<()>) {
        while changes.recv().is_ok() && end.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout)
        {
            if let Err(error) = self.write_back() {
                self.file = None;
                self.warn(&error);
            }
        }
    }

    fn write_back(&mut self) -> Result<(), FileError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path, Access::Beside)?,
        };
        self.file.insert(file).checkpoint()
    }

    fn warn(&mut self, error: &FileError) {
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned_at = Some(Instant::now());
            warn!("store: {error}: a power cut may lose what has been counted since");
        }
    }
}
