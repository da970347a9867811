//! A Redis or Valkey of its own for each test, on a unix socket in a folder of its own.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, fs, process, thread};

use rustix::process::{Pid, Signal, kill_process};

/// A running server. It ends with this value.
pub(crate) struct Server {
    folder: PathBuf,
    options: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server with these options. None, said on stderr, where there is no server to be
    /// had; a failure where `CI=true`.
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        program()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("postgate-redis-{}-{number}", process::id());
        let folder = env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let mut server = Self {
            folder,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            child: None,
        };
        server.run();
        Some(server)
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn run(&mut self) {
        let mut command = Command::new(program().expect("a server"));
        command
            .args(["--unixsocket", "s", "--dir"])
            .arg(&self.folder);
        command.args(["--save", "", "--appendonly", "no"]);
        if !self.options.iter().any(|option| option == "--port") {
            command.args(["--port", "0"]);
        }
        command.args(&self.options).stdin(Stdio::null());
        // The path of its socket is bound after it has changed to its folder.
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut said = String::new();
        while !said.contains("accept connections") {
            let end = output.read_line(&mut said).expect("its output");
            assert_ne!(end, 0, "it ended: {said}");
        }
        // It must never wait for a reader.
        thread::spawn(move || io::copy(&mut output, &mut io::sink()));
        self.child = Some(child);
    }

    /// Kills it as `kill -9` does; nothing of its data is left.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
        let _ = fs::remove_file(self.socket());
    }

    /// Stops its execution, as if it hung, or lets it go on.
    pub(crate) fn hang(&self, hangs: bool) {
        let child = self.child.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).expect("a process");
        let signal = if hangs { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_raw(pid).expect("a process"), signal).expect("a signal");
    }

    /// Its port, if `--port` was the first option.
    pub(crate) fn port(&self) -> &str {
        &self.options[1]
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("s")
    }

    /// Its URL, with what follows the path of the socket.
    pub(crate) fn url(&self, query: &str) -> String {
        format!("redis+unix://{}{query}", self.socket().display())
    }

    /// Runs a command of the default user.
    pub(crate) fn command(&self, command: &str) {
        self.connection("").command(command);
    }

    /// A connection of the default user with a password.
    pub(crate) fn connection(&self, password: &str) -> Administrator {
        let url = match password {
            "" => format!("unix://{}", self.socket().display()),
            _ => format!("unix://{}?pass={password}", self.socket().display()),
        };
        let client = redis::Client::open(url).expect("an URL");
        let connection = client.get_connection_with_timeout(Duration::from_secs(20));
        Administrator(connection.expect("a connection"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A connection for commands.
pub(crate) struct Administrator(redis::Connection);

impl Administrator {
    pub(crate) fn command(&mut self, command: &str) {
        self.answer::<redis::Value>(command);
    }

    /// Runs a command with arguments of any bytes.
    pub(crate) fn bytes<T>(&mut self, command: &str, key: &str, arguments: &[&[u8]]) -> T
    where
        T: redis::FromRedisValue,
    {
        let mut packed = redis::cmd(command);
        packed.arg(key).arg(arguments);
        packed.query(&mut self.0).expect("an answer")
    }

    pub(crate) fn answer<T: redis::FromRedisValue>(&mut self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut packed = redis::cmd(words.next().expect("a command"));
        packed.arg(words.collect::<Vec<_>>());
        let answer = packed.query(&mut self.0);
        answer.unwrap_or_else(|error| panic!("{command}: {error}"))
    }
}

/// The path of a server, looked for once.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = PROGRAM.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/redis/server.sh");
        let said = Command::new(script).stdin(Stdio::null()).output();
        let said = said.ok().filter(|said| said.status.success())?;
        let path = String::from_utf8(said.stdout).expect("a path");
        Some(path.trim_end().into())
    });
    if found.is_none() {
        let test = thread::current().name().unwrap_or("?").to_owned();
        assert_ne!(
            env::var("CI").as_deref(),
            Ok("true"),
            "no redis-server can be had"
        );
        // Not eprintln!, which the harness keeps to itself when a test passes.
        writeln!(io::stderr(), "{test}: skipped: no redis-server can be had").expect("stderr");
    }
    found.as_deref()
}

/// A port that nobody has.
pub(crate) fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("a port").port().to_string()
}
