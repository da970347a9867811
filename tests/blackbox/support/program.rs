//! One of the programs, started as systemd starts it: listening sockets as descriptors 3, 4,
//! ..., their names and the process id in the environment, and a socket to be notified on.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs, io,
    net::SocketAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    net::{TcpSocket, UnixDatagram, UnixSocket},
    process::{Child, Command},
    task::JoinHandle,
};

pub(crate) use crate::client::{ALL, Binary, LOOKUPS};

use super::{
    Directory, LOST, Seen,
    peer::{Address, Peer, question},
    soon,
};

/// As systemd has it: `Backlog=` is as much as the kernel grants.
const BACKLOG: u32 = 4096;

/// Where cargo has put the program.
fn path(binary: Binary) -> &'static str {
    match binary {
        Binary::TcpLookup => env!("CARGO_BIN_EXE_tcp-lookup"),
        Binary::Socketmap => env!("CARGO_BIN_EXE_socketmap"),
        Binary::Policy => env!("CARGO_BIN_EXE_policy"),
    }
}

/// A socket as a `.socket` unit would hold it.
pub(crate) struct Socket {
    descriptor: OwnedFd,
    name: String,
    address: Option<Address>,
}

impl Socket {
    pub(crate) fn tcp4(name: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        Self::tcp(name, socket, "127.0.0.1:0")
    }

    pub(crate) fn tcp6(name: &str) -> Self {
        let socket = TcpSocket::new_v6().expect("a socket");
        Self::tcp(name, socket, "[::1]:0")
    }

    fn tcp(name: &str, socket: TcpSocket, address: &str) -> Self {
        socket
            .bind(address.parse().expect("an address"))
            .expect("a bound socket");
        let listener = socket.listen(BACKLOG).expect("a listening socket");
        let address = listener.local_addr().expect("an address");
        Self {
            descriptor: listener.into_std().expect("a listener").into(),
            name: name.to_owned(),
            address: Some(Address::Tcp(address)),
        }
    }

    pub(crate) fn unix(name: &str, path: PathBuf) -> Self {
        let socket = UnixSocket::new_stream().expect("a socket");
        socket.bind(&path).expect("a bound socket");
        let listener = socket.listen(BACKLOG).expect("a listening socket");
        Self {
            descriptor: listener.into_std().expect("a listener").into(),
            name: name.to_owned(),
            address: Some(Address::Unix(path)),
        }
    }

    /// Any descriptor, to see it refused.
    pub(crate) fn odd(name: &str, descriptor: impl Into<OwnedFd>) -> Self {
        Self {
            descriptor: descriptor.into(),
            name: name.to_owned(),
            address: None,
        }
    }
}

/// Whose process id `LISTEN_PID` is.
enum ListenPid {
    Own,
    Foreign,
    Absent,
}

/// A program about to be started.
pub(crate) struct Launch {
    /// How its peers speak with it.
    binary: Binary,
    path: &'static str,
    directory: Directory,
    config: Option<String>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    sockets: Vec<Socket>,
    names: Option<String>,
    pid: ListenPid,
    watchdog: bool,
    descriptors: Option<u32>,
    unheard: bool,
}

impl Launch {
    pub(crate) fn new(binary: Binary) -> Self {
        Self {
            binary,
            path: path(binary),
            directory: Directory::new(),
            config: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            sockets: Vec::new(),
            names: None,
            pid: ListenPid::Own,
            watchdog: false,
            descriptors: None,
            unheard: false,
        }
    }

    /// The program dict, whose lines are framed as those of tcp-lookup.
    pub(crate) fn dict() -> Self {
        Self {
            path: env!("CARGO_BIN_EXE_dict"),
            ..Self::new(Binary::TcpLookup)
        }
    }

    /// The program for logins, whose replies are lines as those of tcp_table(5) are.
    pub(crate) fn sasl() -> Self {
        Self {
            path: env!("CARGO_BIN_EXE_sasl"),
            ..Self::new(Binary::TcpLookup)
        }
    }

    /// With this configuration, passed with `--config`.
    pub(crate) fn config(mut self, text: impl Into<String>) -> Self {
        self.config = Some(text.into());
        self
    }

    pub(crate) fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub(crate) fn tcp4(self, name: &str) -> Self {
        self.socket(Socket::tcp4(name))
    }

    pub(crate) fn tcp6(self, name: &str) -> Self {
        self.socket(Socket::tcp6(name))
    }

    /// With a unix socket in the program's own directory.
    pub(crate) fn unix(self, name: &str) -> Self {
        let path = self
            .directory
            .join(&format!("{}-{name}.sock", self.sockets.len()));
        self.socket(Socket::unix(name, path))
    }

    pub(crate) fn socket(mut self, socket: Socket) -> Self {
        self.sockets.push(socket);
        self
    }

    /// With another `LISTEN_FDNAMES` than the sockets' own names.
    pub(crate) fn names(mut self, names: &str) -> Self {
        self.names = Some(names.to_owned());
        self
    }

    /// With a `LISTEN_PID` that is another process's.
    pub(crate) fn foreign_pid(mut self) -> Self {
        self.pid = ListenPid::Foreign;
        self
    }

    /// Without any `LISTEN_PID`.
    pub(crate) fn no_pid(mut self) -> Self {
        self.pid = ListenPid::Absent;
        self
    }

    /// With systemd's watchdog of so many microseconds.
    pub(crate) fn watchdog(mut self, microseconds: u32) -> Self {
        self.watchdog = true;
        self.environment("WATCHDOG_USEC", microseconds.to_string())
    }

    /// With so many descriptors at most.
    pub(crate) fn descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(most);
        self
    }

    /// With nobody at the other end of its standard output and error.
    pub(crate) fn unheard(mut self) -> Self {
        self.unheard = true;
        self
    }

    /// The directory the program's files stand in.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the program and waits until it says that it is ready.
    pub(crate) async fn ready(self) -> Program {
        let mut program = self.start();
        program.until_ready().await;
        program
    }

    /// Starts the program and waits for its end.
    pub(crate) async fn end(self) -> End {
        self.start().end().await
    }

    /// Starts the program, gives it this standard input and waits for its end.
    pub(crate) async fn end_after(self, input: &[u8]) -> End {
        let mut program = self.start();
        let mut stdin = program.child.stdin.take().expect("standard input");
        // A program that does not read its input may end before all of it is written.
        drop(soon("writing standard input", stdin.write_all(input)).await);
        drop(stdin);
        program.end().await
    }

    /// Starts the program.
    pub(crate) fn start(self) -> Program {
        let notify = self.directory.join("notify");
        let notified = UnixDatagram::bind(&notify).expect("a notify socket");

        let mut script = String::new();
        if self.watchdog {
            script.push_str("export WATCHDOG_PID=$$; ");
        }
        if !self.sockets.is_empty() {
            match self.pid {
                ListenPid::Own => script.push_str("export LISTEN_PID=$$; "),
                ListenPid::Foreign => script.push_str("export LISTEN_PID=1; "),
                ListenPid::Absent => {}
            }
        }
        if let Some(most) = self.descriptors {
            write!(script, "ulimit -n {most}; ").expect("a script");
        }
        script.push_str("exec \"$@\"");

        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &script, "sh", self.path])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("NOTIFY_SOCKET", &notify)
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let config = self.directory.join("config.toml");
        if let Some(text) = &self.config {
            fs::write(&config, text).expect("a written configuration");
            command.arg("--config").arg(&config);
        }
        command.args(&self.arguments);

        let mut mappings = Vec::new();
        let mut names = Vec::new();
        let mut addresses = Vec::new();
        for (socket, child_fd) in self.sockets.iter().zip(3..) {
            // A copy stays here, as systemd keeps its own.
            let parent_fd = socket.descriptor.as_fd().try_clone_to_owned();
            mappings.push(FdMapping {
                parent_fd: parent_fd.expect("a copied descriptor"),
                child_fd,
            });
            names.push(socket.name.as_str());
            addresses.push(socket.address.clone());
        }
        if !mappings.is_empty() {
            command.env("LISTEN_FDS", mappings.len().to_string());
            let names = self.names.clone().unwrap_or_else(|| names.join(":"));
            command.env("LISTEN_FDNAMES", names);
            command.fd_mappings(mappings).expect("distinct descriptors");
        }
        for (name, value) in &self.environment {
            command.env(name, value);
        }

        let mut child = command.spawn().expect("a started program");
        let stderr = Seen::new();
        let stdout = Seen::new();
        let outputs = (child.stdout.take(), child.stderr.take());
        let mut readers = Vec::new();
        if !self.unheard {
            let (output, error) = outputs;
            readers.push(keep_lines(output.expect("a pipe"), stdout.clone()));
            readers.push(keep_lines(error.expect("a pipe"), stderr.clone()));
        }
        let notices = Seen::new();
        let listener = tokio::spawn(keep_notices(notified, notices.clone()));
        Program {
            binary: self.binary,
            pid: Pid::from_raw(child.id().expect("a process id").cast_signed())
                .expect("a process id"),
            child,
            _directory: self.directory,
            config,
            stderr,
            stdout,
            notices,
            readers,
            listener,
            addresses,
            _sockets: self.sockets,
        }
    }
}

/// Keeps each line; bytes that are not UTF-8 stay visible.
fn keep_lines(
    stream: impl AsyncRead + Send + Unpin + 'static,
    seen: Seen<String>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            seen.push(String::from_utf8_lossy(&line).into_owned());
        }
    })
}

/// Keeps each assignment systemd would see.
async fn keep_notices(socket: UnixDatagram, seen: Seen<String>) {
    let mut datagram = vec![0; 65_536];
    while let Ok(length) = socket.recv(&mut datagram).await {
        for line in datagram[..length].split(|&byte| byte == b'\n') {
            if !line.is_empty() {
                seen.push(String::from_utf8_lossy(line).into_owned());
            }
        }
    }
}

/// A running program.
pub(crate) struct Program {
    binary: Binary,
    pid: Pid,
    child: Child,
    _directory: Directory,
    config: PathBuf,
    /// Every line of its standard error.
    pub(crate) stderr: Seen<String>,
    stdout: Seen<String>,
    /// Every assignment that it sent to systemd.
    pub(crate) notices: Seen<String>,
    readers: Vec<JoinHandle<()>>,
    listener: JoinHandle<()>,
    addresses: Vec<Option<Address>>,
    _sockets: Vec<Socket>,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct End {
    /// The exit status; none after a signal.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl End {
    /// Demands this exit status.
    #[track_caller]
    pub(crate) fn status(&self, expected: i32) -> &Self {
        assert_eq!(self.status, Some(expected), "{self:#?}");
        self
    }

    /// Demands that standard error says this.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        self
    }
}

impl Program {
    /// Connects to the first socket.
    pub(crate) async fn peer(&self) -> Peer {
        self.peer_at(0).await
    }

    /// Connects to the first socket so many times, in their order.
    pub(crate) async fn peers<const COUNT: usize>(&self) -> [Peer; COUNT] {
        let mut peers = Vec::new();
        for _ in 0..COUNT {
            peers.push(self.peer().await);
        }
        peers.try_into().ok().expect("as many")
    }

    /// Connects to the first socket so many times, and asks table "t" for "key" on each connection.
    pub(crate) async fn asking(&self, count: usize) -> Vec<Peer> {
        let mut peers = Vec::new();
        for _ in 0..count {
            let mut peer = self.peer().await;
            peer.send(question(self.binary, "t", "key")).await;
            peers.push(peer);
        }
        peers
    }

    /// Connects to the socket with this number.
    pub(crate) async fn peer_at(&self, number: usize) -> Peer {
        let address = self.addresses[number]
            .as_ref()
            .expect("a socket to connect");
        Peer::connect(address, self.binary).await
    }

    /// The address of the socket with this number.
    pub(crate) fn address(&self, number: usize) -> Address {
        self.addresses[number].clone().expect("a socket to connect")
    }

    pub(crate) fn config_path(&self) -> &Path {
        &self.config
    }

    /// Replaces the configuration file.
    pub(crate) fn rewrite(&self, text: &str) {
        fs::write(&self.config, text).expect("a written configuration");
    }

    /// Waits for READY=1; a program that ends instead fails the test with its last words.
    pub(crate) async fn until_ready(&mut self) {
        let notices = self.notices.clone();
        let ended = tokio::select! {
            _ = notices.until("READY=1", |seen| times_seen(seen, "READY=1") > 0) => None,
            status = self.child.wait() => Some(status),
        };
        if let Some(status) = ended {
            self.drained().await;
            panic!(
                "{} ended before it was ready: {status:?}\n{}",
                self.binary.name(),
                self.stderr.all().join("\n")
            );
        }
    }

    /// Waits until the program has notified systemd of this so many times.
    pub(crate) async fn notified(&self, notice: &str, times: usize) {
        self.notices
            .until(&format!("{notice} for the {times}. time"), |seen| {
                times_seen(seen, notice) >= times
            })
            .await;
    }

    /// How much memory it holds, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        self.status_of("VmRSS")
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> u64 {
        self.status_of("Threads")
    }

    /// A number of proc(5)'s status.
    fn status_of(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        let status = fs::read_to_string(path).expect("a running program");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
        number.expect(name).parse().expect("a number")
    }

    /// Whether these bytes are anywhere in its memory that it can write to.
    pub(crate) fn has_in_memory(&self, bytes: &[u8]) -> bool {
        let of = |name: &str| format!("/proc/{}/{name}", self.pid.as_raw_nonzero());
        let maps = fs::read_to_string(of("maps")).expect("a running program");
        let memory = fs::File::open(of("mem")).expect("its memory");
        maps.lines().any(|line| {
            let (range, rest) = line.split_once(' ').expect("a mapping");
            let (start, end) = range.split_once('-').expect("a range");
            let [start, end] = [start, end].map(|n| u64::from_str_radix(n, 16).expect("a number"));
            let mut content = vec![0; usize::try_from(end - start).expect("a size")];
            // Some mappings cannot be read, such as those of the kernel.
            rest.starts_with("rw")
                && memory.read_exact_at(&mut content, start).is_ok()
                && memchr::memmem::find(&content, bytes).is_some()
        })
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid.as_raw_nonzero());
        fs::read_dir(path).expect("a running program").count()
    }

    /// From here on lets it open descriptors below this number only; returns the number before.
    pub(crate) fn most_descriptors(&self, most: u64) -> u64 {
        let limit = getrlimit(Resource::Nofile);
        let limit = Rlimit {
            current: Some(most),
            ..limit
        };
        let before = prlimit(Some(self.pid), Resource::Nofile, limit).expect("a limit");
        before.current.expect("a limit")
    }

    /// Waits until it has logged this.
    pub(crate) async fn logged(&self, text: &str) {
        let has = |lines: &[String]| lines.iter().any(|line| line.contains(text));
        self.stderr.until(text, has).await;
    }

    /// How many lines with this it has logged so far.
    pub(crate) fn lines(&self, text: &str) -> usize {
        let lines = self.stderr.all();
        lines.iter().filter(|line| line.contains(text)).count()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("a running program");
    }

    /// Waits for the program's end.
    pub(crate) async fn end(mut self) -> End {
        drop(self.child.stdin.take());
        let status = soon("the program's end", self.child.wait()).await;
        self.drained().await;
        End {
            status: status.expect("an exit status").code(),
            stdout: text(&self.stdout.all()),
            stderr: text(&self.stderr.all()),
        }
    }

    /// Waits for the program's end and looks at something before its directory is removed.
    pub(crate) async fn end_then<T>(mut self, look: impl FnOnce() -> T) -> T {
        let status = soon("the program's end", self.child.wait()).await;
        assert_eq!(status.expect("an exit status").code(), Some(0));
        look()
    }

    /// Ends the program by SIGTERM and demands exit status 0.
    pub(crate) async fn stop(self) -> End {
        self.signal(Signal::TERM);
        let end = self.end().await;
        end.status(0);
        end
    }

    async fn drained(&mut self) {
        for reader in &mut self.readers {
            soon("the end of the output", reader)
                .await
                .expect("read lines");
        }
    }
}

/// How often this was said.
pub(crate) fn times_seen(notices: &[String], notice: &str) -> usize {
    notices.iter().filter(|seen| *seen == notice).count()
}

fn text(lines: &[String]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{line}").expect("a line");
        text
    })
}

/// Lets this test have so many descriptors, and its programs with it.
pub(crate) fn allow_descriptors(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, most).expect("a higher limit of descriptors");
    let is_enough = limit.maximum.is_none_or(|most| most >= count);
    assert!(
        is_enough,
        "this test needs a hard limit of {count} descriptors"
    );
}

/// A port that nobody listens on and nobody else gets: bound, without `listen`.
pub(crate) struct Reserved(TcpSocket);

impl Reserved {
    pub(crate) fn new() -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"))
    }

    /// The same port once more, so that it is kept when a listener has come and gone.
    pub(crate) fn again(&self) -> Self {
        Self::at(self.address())
    }

    fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // With this a program may bind the port as well, as long as nobody listens. A port that is
        // to be found must not be another test's, so it is found without.
        let is_known = address.port() != 0;
        socket.set_reuseaddr(is_known).expect("an option");
        // A listener that has been closed is still there while another test starts a program: until
        // its exec the child has every descriptor.
        let started = Instant::now();
        while let Err(error) = socket.bind(address) {
            let may_pass = is_known && error.kind() == io::ErrorKind::AddrInUse;
            assert!(may_pass && started.elapsed() < LOST, "{address}: {error}");
            std::thread::yield_now();
        }
        socket.set_reuseaddr(true).expect("an option");
        Self(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }

    /// From here on somebody listens.
    pub(crate) fn listen(self) -> tokio::net::TcpListener {
        self.0.listen(BACKLOG).expect("a listening socket")
    }
}

/// The arguments `--listen ADDRESS`.
pub(crate) fn listen(address: impl AsRef<OsStr>) -> [OsString; 2] {
    ["--listen".into(), address.as_ref().to_owned()]
}
