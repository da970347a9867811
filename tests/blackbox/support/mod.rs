//! Shared by the black-box tests: the programs as systemd starts them, a backend that can fail in
//! every way HTTP allows, and peers that send and receive bytes.

pub(crate) mod backend;
pub(crate) mod peer;
pub(crate) mod program;
pub(crate) mod replies;
pub(crate) mod tables;

use std::{
    fmt::Debug,
    fs,
    future::Future,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

/// How long an event may take before a test calls it lost. It only ends a test that would hang, so
/// it is far longer than a loaded machine needs.
const LOST: Duration = Duration::from_secs(30);

/// Waits for an event that must come.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match timeout(LOST, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: waited {LOST:?} in vain"),
    }
}

/// Bytes as a failed test shows them: printable, and not a screenful.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const HALF: usize = 300;
    if bytes.len() <= 2 * HALF {
        return bytes.escape_ascii().to_string();
    }
    format!(
        "{} [{} bytes in all] {}",
        bytes[..HALF].escape_ascii(),
        bytes.len(),
        bytes[bytes.len() - HALF..].escape_ascii()
    )
}

/// Demands exactly these bytes.
#[track_caller]
pub(crate) fn same(what: &str, seen: &[u8], expected: &[u8]) {
    assert!(
        seen == expected,
        "{what}\nexpected: {}\nseen:     {}",
        shown(expected),
        shown(seen)
    );
}

/// The wrong rows of a whole table, so that one run shows all of them.
#[derive(Default)]
pub(crate) struct Wrong(Vec<String>);

impl Wrong {
    /// Notes a row whose bytes differ.
    pub(crate) fn compare(&mut self, row: &str, seen: &[u8], expected: &[u8]) {
        self.require(row, seen == expected, || {
            format!("expected {}, seen {}", shown(expected), shown(seen))
        });
    }

    /// Notes a row that does not hold.
    pub(crate) fn require(&mut self, row: &str, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.0.push(format!("{row}: {}", text()));
        }
    }

    /// Fails when any row was wrong.
    #[track_caller]
    pub(crate) fn none(self) {
        assert!(
            self.0.is_empty(),
            "{} wrong:\n{}",
            self.0.len(),
            self.0.join("\n")
        );
    }
}

/// Things that happened, in order, which a test can wait for.
pub(crate) struct Seen<T>(Arc<watch::Sender<Vec<T>>>);

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone + Debug> Seen<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }

    pub(crate) fn push(&self, item: T) {
        self.0.send_modify(|items| items.push(item));
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.0.borrow().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Waits until enough has happened.
    pub(crate) async fn until(&self, what: &str, enough: impl Fn(&[T]) -> bool) -> Vec<T> {
        let mut watched = self.0.subscribe();
        let found = match timeout(LOST, watched.wait_for(|items| enough(items))).await {
            Ok(Ok(items)) => Some(items.clone()),
            Ok(Err(_)) | Err(_) => None,
        };
        found.unwrap_or_else(|| panic!("{what}: waited {LOST:?} in vain; seen: {:#?}", self.all()))
    }

    /// Waits until so many things have happened.
    pub(crate) async fn at_least(&self, count: usize, what: &str) -> Vec<T> {
        self.until(what, |items| items.len() >= count).await
    }
}

/// A directory that goes away with the test. It stands under the system's own, because the path of
/// a unix socket holds 107 bytes.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("postgate-test-{}-{number}", process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and tells its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, text).expect("a written file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
