//! Questions, folders, and the lines that are logged.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};
use std::{env, fs, io, process};

use postgate::config;
use postgate::limits::{Message, Mode, Part, Question, Rate, Units};
use postgate::store::Store;
use rusqlite::{Connection, OpenFlags};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The table of all questions.
pub(crate) const TABLE: &str = "policy.outgoing";

/// A question about one unit of an account, in a window of an hour.
pub(crate) fn asks(account: &str, most: u64) -> Question {
    Question {
        table: TABLE.into(),
        message: None,
        parts: vec![part("login", account, &[(HOUR, Some(most))], Units::Add(1))],
        mode: Mode::Decide,
    }
}

/// A question about one message, which is charged once.
pub(crate) fn asks_of(message: &str, account: &str, most: u64) -> Question {
    let mut question = asks(account, most);
    question.parts[0].units = Units::UpTo(1);
    question.message = Some(Message {
        id: message.to_owned(),
        repeat: None,
    });
    question
}

pub(crate) fn part(
    limit: &str,
    account: &str,
    rates: &[(Duration, Option<u64>)],
    units: Units,
) -> Part {
    let rates = rates.iter().map(|&(window, most)| Rate { window, most });
    Part {
        limit: limit.into(),
        account: account.to_owned(),
        rates: rates.collect(),
        units,
        charges_refused: false,
        is_dry_run: false,
    }
}

/// A folder of its own, removed at the end.
pub(crate) struct Folder {
    path: PathBuf,
    is_own: bool,
}

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("postgate-store-{}-{count}", process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder");
        Self { path, is_own: true }
    }

    /// The folder of another process.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self {
            path,
            is_own: false,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the store.
    pub(crate) fn file(&self) -> PathBuf {
        self.path.join("limits.sqlite")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_own {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The seed of a run, and how many histories it plays.
pub(crate) fn seed() -> u64 {
    number("POSTGATE_FUZZ_SEED", 20_261_120)
}

pub(crate) fn runs() -> u64 {
    number("POSTGATE_FUZZ_RUNS", 20_000)
}

fn number(name: &str, default: u64) -> u64 {
    let Ok(text) = env::var(name) else {
        return default;
    };
    text.parse().unwrap_or_else(|_| panic!("{name}={text}"))
}

/// The store of this file, as the service opens it.
pub(crate) async fn service(file: &Path) -> Store {
    let store = beside(file);
    store.open().await;
    store
}

/// The store of this file, as a command has it beside the service.
pub(crate) fn beside(file: &Path) -> Store {
    let path = Some(file.to_owned());
    Store::new(&config::Store::Sqlite { path }, "policy").expect("a store")
}

/// Whether a question passes.
pub(crate) async fn passes(store: &Store, question: Question) -> bool {
    store.decide(question).await.refusal.is_none()
}

/// A connection to look into the file with, as with `sqlite3`.
pub(crate) fn look_into(file: &Path) -> Connection {
    Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).expect("a database")
}

/// The lines that are logged, each with the thread that logs it.
#[derive(Clone, Copy)]
struct Lines;

static LINES: Mutex<Vec<(ThreadId, String)>> = Mutex::new(Vec::new());

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        let mut lines = LINES.lock().expect("lines");
        lines.push((thread::current().id(), text));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps the lines from here on.
pub(crate) struct Log(usize);

impl Log {
    pub(crate) fn new() -> Self {
        static START: Once = Once::new();
        START.call_once(|| {
            let lines = tracing_subscriber::fmt()
                .with_writer(|| Lines)
                .with_ansi(false)
                .without_time()
                .with_target(false);
            lines.init();
        });
        Self(LINES.lock().expect("lines").len())
    }

    /// The lines of this thread, and those of others that name this folder, which is left out.
    pub(crate) fn lines(&self, folder: &Folder) -> Vec<String> {
        let folder = format!("{}/", folder.path().display());
        let lines = LINES.lock().expect("lines");
        let own = lines[self.0..]
            .iter()
            .filter(|(thread, line)| *thread == thread::current().id() || line.contains(&folder));
        let own = own.map(|(_, line)| line.replace(&folder, "").trim_start().to_owned());
        own.collect()
    }
}

/// Lets so much time pass for the store, which is asked again after a second.
pub(crate) async fn pass_time(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Waits for what another thread does in a moment.
pub(crate) async fn until(mut is_done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_done() {
        assert!(
            began.elapsed() < 60 * SECOND,
            "it has not been done in a minute"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The names that are left in a folder.
pub(crate) fn names(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
