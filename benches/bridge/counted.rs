//! The policy program with a limit: each decision is one message, and no call is made.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::client::Binary;
use crate::load::Load;
use crate::process::Process;
use crate::wire::{Program, Question, key};
use crate::{Options, directory, median};

/// Where the use of the limit is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Sqlite,
    Redis,
}

impl Store {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Redis => "Redis",
        }
    }
}

/// A Redis or Valkey of the bench's own, on a unix socket, that ends with its handle.
pub(crate) struct Redis {
    child: Child,
    socket: PathBuf,
}

impl Redis {
    /// Starts the server that the tests use, too.
    pub(crate) fn start() -> io::Result<Option<Self>> {
        let socket = directory()?.join("redis.sock");
        // One of a run that was killed.
        let _ = std::fs::remove_file(&socket);
        let found = Command::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/redis/server.sh"
        ))
        .output()?;
        let server = String::from_utf8_lossy(&found.stdout);
        if !found.status.success() {
            println!("no redis-server and no valkey-server: limits are measured with SQLite only");
            return Ok(None);
        }
        let child = Command::new(server.trim())
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()?;
        Self { child, socket }.wait().map(Some)
    }

    fn wait(self) -> io::Result<Self> {
        const LONGEST: Duration = Duration::from_secs(10);
        let started = Instant::now();
        while let Err(error) = std::os::unix::net::UnixStream::connect(&self.socket) {
            if started.elapsed() > LONGEST {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(self)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the program with an empty store.
pub(crate) fn program(store: Store, redis: Option<&Redis>) -> io::Result<Process> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let store = match (store, redis) {
        (Store::Redis, Some(redis)) => format!(
            "redis = \"redis+unix://{}\"\nprefix = \"bench{run}:\"",
            redis.socket.display()
        ),
        _ => format!("path = \"{}\"", new_file()?.display()),
    };
    let config = format!(
        "[server]\nmax-connections = 30000\n\
         [store]\n{store}\n\
         [[policy.bench.limits]]\n\
         name = \"login\"\n\
         by = \"{{sasl_username}}\"\n\
         rates = {{ \"1h\" = 1000000, \"1d\" = 10000000 }}\n"
    );
    let path = directory()?.join("counted.toml");
    std::fs::write(&path, config)?;
    let mut program = Process::program(Program::Postfix(Binary::Policy), &path, "bench")?;
    program.wait()?;
    Ok(program)
}

/// Returns the path of the file, which does not exist.
fn new_file() -> io::Result<PathBuf> {
    let file = file()?;
    for file in ["", "-wal", "-shm"].map(|end| format!("{}{end}", file.display())) {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(file)
}

fn file() -> io::Result<PathBuf> {
    Ok(directory()?.join("limits.sqlite"))
}

fn megabytes(path: &Path) -> io::Result<f64> {
    Ok(std::fs::metadata(path)?.len() as f64 / 1048576.0)
}

/// Measures a thousand accounts, and a hundred thousand.
pub(crate) async fn many_accounts(options: &Options) -> io::Result<()> {
    const CONNECTIONS: usize = 100;
    println!("\nlimits over SQLite, {CONNECTIONS} connections");
    println!(
        "{:<28}{:>14}{:>14}{:>14}",
        "accounts", "CPU us", "peak MB", "file MB"
    );
    for accounts in [1_000, 100_000] {
        let questions: Vec<_> = (0..accounts).map(|n| Question::of_limit(&key(n))).collect();
        let load = Load {
            questions: questions.leak(),
            connections: CONNECTIONS,
            measured: options.measured,
            // So that every account is in the store before the measurement.
            is_repeated: true,
        };
        let mut rounds = Vec::new();
        for _ in 0..options.rounds {
            let server = program(Store::Sqlite, None)?;
            let figures = load.run(&server).await?;
            rounds.push([figures.cpu, figures.peak, megabytes(&file()?)?]);
        }
        let middle = |at: usize| median(rounds.iter().map(|round| round[at]));
        println!(
            "{accounts:<28}{:>14.1}{:>14.1}{:>14.1}",
            middle(0),
            middle(1),
            middle(2)
        );
    }
    Ok(())
}
