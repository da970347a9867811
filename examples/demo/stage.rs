//! The things that the demo starts and ends: a temporary folder, the sample backend, and the three
//! programs, which get their sockets as from systemd.

use std::env;
use std::error::Error;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

const CONFIGURATION: &str = include_str!("../demo.toml");

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/directory.py");
const PHP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/directory.php");

/// The backend's address in demo.toml, which is replaced by the real one.
const BACKEND_URL: &str = "http://127.0.0.1:8080";

/// How long a process may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often to look for a port that stays free until systemd-socket-activate binds it.
const PORT_ATTEMPTS: usize = 5;

/// The first descriptor that systemd passes (sd_listen_fds(3)).
const FIRST_DESCRIPTOR: i32 = 3;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Where a program listens, written as in main.cf.
#[derive(Clone)]
pub(crate) enum Address {
    Inet(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => write!(f, "inet:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where Postfix finds the programs.
#[derive(Clone)]
pub(crate) struct Addresses {
    pub(crate) tcp_lookup: SocketAddr,
    pub(crate) socketmap: Address,
    pub(crate) socketmap_unix: Address,
    pub(crate) policy: Address,
}

/// The sample APIs, which all answer alike.
#[derive(Clone, Copy, Debug)]
enum Api {
    Rust,
    Python,
    Php,
}

impl Api {
    /// Returns the one that the environment names.
    fn chosen() -> Result<Self> {
        match env::var("API").as_deref() {
            Ok("rust" | "") | Err(_) => Ok(Self::Rust),
            Ok("python") => Ok(Self::Python),
            Ok("php") => Ok(Self::Php),
            Ok(other) => Err(format!("API={other}: rust, python or php").into()),
        }
    }

    fn command(self, build: &Path, address: &str) -> Command {
        let (program, arguments): (PathBuf, &[&str]) = match self {
            Self::Rust => (build.join("examples/directory"), &["--listen", address]),
            Self::Python => ("python3".into(), &[PYTHON, "--listen", address]),
            Self::Php => ("php".into(), &["-S", address, PHP]),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "examples/directory.rs",
            Self::Python => "examples/directory.py",
            Self::Php => "examples/directory.php",
        })
    }
}

/// Everything that must be removed at the end. `end` stops it cleanly, `drop` kills it.
pub(crate) struct Stage {
    /// Before the folder, so that they no longer write to it when it is removed.
    programs: Vec<(&'static str, Child)>,
    backend: Option<Child>,
    backend_address: Option<SocketAddr>,
    api: Api,
    /// The folder of this build: `target/PROFILE`.
    build: PathBuf,
    activator: Option<PathBuf>,
    folder: Folder,
}

impl Stage {
    pub(crate) fn new() -> Result<Self> {
        let demo = env::current_exe()?;
        let build = demo
            .ancestors()
            .nth(2)
            .ok_or("the demo is not in a build folder")?;
        Ok(Self {
            programs: Vec::new(),
            backend: None,
            backend_address: None,
            api: Api::chosen()?,
            build: build.to_owned(),
            activator: find_program("systemd-socket-activate"),
            folder: Folder::new()?,
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Says which of the sample APIs is the backend.
    pub(crate) fn backend(&self) -> impl fmt::Display {
        self.api
    }

    /// Says which program passes the sockets.
    pub(crate) fn activator(&self) -> &'static str {
        match self.activator {
            Some(_) => "systemd-socket-activate",
            None => "the demo itself (systemd-socket-activate is not installed)",
        }
    }

    /// Starts the backend on a free port, and later again on the same one.
    pub(crate) async fn start_backend(&mut self) -> Result<()> {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let address = self.backend_address.unwrap_or(any_port).to_string();
        let mut command = self.api.command(&self.build, &address);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut backend = spawn(&mut command)?;

        let (announce, mut announced) = mpsc::channel(1);
        let outputs = (backend.stdout.take(), backend.stderr.take());
        let (Some(output), Some(error)) = outputs else {
            return Err("the backend has no standard output".into());
        };
        copy_lines(output, self.log("directory")?, announce.clone());
        copy_lines(error, self.log("directory")?, announce);
        self.backend = Some(backend);
        let address = timeout(PATIENCE, announced.recv()).await?;
        let address = address.ok_or("the backend does not print its address")?;
        self.backend_address = Some(address);
        fs::write(
            self.configuration(),
            CONFIGURATION.replace(BACKEND_URL, &format!("http://{address}")),
        )?;
        Ok(())
    }

    pub(crate) async fn stop_backend(&mut self) -> Result<()> {
        if let Some(mut backend) = self.backend.take() {
            end(&mut backend).await?;
        }
        Ok(())
    }

    pub(crate) async fn start_programs(&mut self) -> Result<Addresses> {
        let socketmap_unix = self.folder().join("socketmap.sock");
        Ok(Addresses {
            tcp_lookup: self.start_program("tcp-lookup", "transport", None).await?,
            socketmap: Address::Inet(
                self.start_program("socketmap", "socketmap", Some(&socketmap_unix))
                    .await?,
            ),
            socketmap_unix: Address::Unix(socketmap_unix),
            policy: Address::Inet(self.start_program("policy", "incoming", None).await?),
        })
    }

    /// Stops the programs as systemd does. Fails if one of them does not stop cleanly.
    pub(crate) async fn end(mut self) -> Result<()> {
        let mut ended = Ok(());
        for (name, program) in &mut self.programs {
            if let Err(error) = end_well(program).await {
                ended = Err(format!("{name}: {error}").into());
            }
        }
        self.stop_backend().await?;
        ended
    }

    /// Returns what the backend and the programs wrote to their standard error.
    pub(crate) fn logs(&self) -> String {
        let names = ["directory", "tcp-lookup", "socketmap", "policy"];
        let log = |name| fs::read_to_string(self.log_path(name)).unwrap_or_default();
        names
            .iter()
            .map(|name| format!("--- {name} ---\n{}", log(name)))
            .collect()
    }

    /// Starts a program with a TCP socket on a free port, which it returns, and with a unix socket
    /// if there is a path for one.
    async fn start_program(
        &mut self,
        name: &'static str,
        socket_name: &str,
        unix: Option<&Path>,
    ) -> Result<SocketAddr> {
        let program = self.build.join(name);
        if !program.exists() {
            let hint = "run `cargo build --bins` with the same profile";
            return Err(format!("{} is missing: {hint}", program.display()).into());
        }
        let socket_names = vec![socket_name; 1 + usize::from(unix.is_some())].join(":");
        let Some(activator) = self.activator.clone() else {
            return self.hand_over(name, &program, &socket_names, unix);
        };
        for _ in 0..PORT_ATTEMPTS {
            // It needs a number, so another process may bind the port before it does.
            let inet = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            let mut command = Command::new(&activator);
            command.arg("-l").arg(inet.to_string());
            if let Some(path) = unix {
                command.arg("-l").arg(path);
            }
            command
                .arg(format!("--fdname={socket_names}"))
                .arg(&program);
            command.arg("--config").arg(self.configuration());
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(self.log(name)?);
            let mut child = spawn(&mut command)?;
            if is_listening(&mut child, inet, unix).await? {
                self.programs.push((name, child));
                return Ok(inet);
            }
        }
        Err(format!("{name}: systemd-socket-activate cannot listen on any port").into())
    }

    /// Does what systemd does: listens, and passes the sockets to the program as descriptors 3, 4
    /// and so on.
    fn hand_over(
        &mut self,
        name: &'static str,
        program: &Path,
        socket_names: &str,
        unix: Option<&Path>,
    ) -> Result<SocketAddr> {
        let inet = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = inet.local_addr()?;
        let mut sockets = vec![OwnedFd::from(inet)];
        if let Some(path) = unix {
            sockets.push(OwnedFd::from(UnixListener::bind(path)?));
        }
        // LISTEN_PID is the number of the process itself, which only the process knows.
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "export LISTEN_PID=$$; exec \"$@\"", "sh"])
            .arg(program);
        command.arg("--config").arg(self.configuration());
        command
            .env("LISTEN_FDS", sockets.len().to_string())
            .env("LISTEN_FDNAMES", socket_names);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(name)?);
        let mappings = (FIRST_DESCRIPTOR..).zip(sockets);
        command.fd_mappings(
            mappings
                .map(|(child_fd, parent_fd)| FdMapping {
                    parent_fd,
                    child_fd,
                })
                .collect(),
        )?;
        self.programs.push((name, spawn(&mut command)?));
        Ok(address)
    }

    fn configuration(&self) -> PathBuf {
        self.folder().join("config.toml")
    }

    fn log(&self, name: &str) -> io::Result<File> {
        File::options()
            .create(true)
            .append(true)
            .open(self.log_path(name))
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.folder().join(name).with_extension("log")
    }
}

/// A folder that nobody else can enter, removed with everything in it when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        for number in 0..100 {
            let name = format!("postgate-demo-{}-{number}", std::process::id());
            let path = env::temp_dir().join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(format!("{}: {error}", path.display()).into()),
            }
        }
        Err("every name for a temporary folder is in use".into())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("demo: {}: {error}", self.0.display());
        }
    }
}

/// Copies what a process prints to its log, and announces the first address in it.
fn copy_lines(
    output: impl AsyncRead + Send + Unpin + 'static,
    mut log: File,
    announce: mpsc::Sender<SocketAddr>,
) {
    let mut announce = Some(announce);
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(address) = address_in(&line)
                && let Some(announce) = announce.take()
            {
                // The other output may have announced it.
                let _ = announce.try_send(address);
            }
            if let Err(error) = writeln!(log, "{line}") {
                eprintln!("demo: the log of the backend: {error}");
            }
        }
    });
}

/// Finds the address in `listening on http://ADDRESS`, or in what `php -S` prints instead.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    rest.split(')').next()?.trim_end().parse().ok()
}

/// Returns the path of a program. Searches /usr/sbin as well, for postmap.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    folders
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|program| {
            fs::metadata(program)
                .is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
        })
}

/// Starts a process that dies with its handle, and that does not get the terminal's Ctrl-C.
fn spawn(command: &mut Command) -> Result<Child> {
    let program = command.as_std().get_program().to_owned();
    let child = command.kill_on_drop(true).process_group(0).spawn();
    child.map_err(|error| format!("{}: {error}", program.display()).into())
}

/// Waits until the sockets are open, or until the process has ended without them.
async fn is_listening(child: &mut Child, inet: SocketAddr, unix: Option<&Path>) -> Result<bool> {
    let mut pause = interval(Duration::from_millis(20));
    let attempts = async {
        while child.try_wait()?.is_none() {
            // The last socket, because they are opened in order.
            let connected = match unix {
                Some(path) => UnixStream::connect(path).await.is_ok(),
                None => TcpStream::connect(inet).await.is_ok(),
            };
            if connected {
                return Ok(true);
            }
            pause.tick().await;
        }
        Ok(false)
    };
    timeout(PATIENCE, attempts).await?
}

/// Stops a process as systemd does, first by `SIGTERM`.
async fn end(child: &mut Child) -> io::Result<ExitStatus> {
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        kill_process(pid, Signal::TERM)?;
    }
    match timeout(PATIENCE, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.kill().await?;
            Err(io::Error::other("does not stop on SIGTERM"))
        }
    }
}

async fn end_well(program: &mut Child) -> Result<()> {
    if let Some(status) = program.try_wait()? {
        return Err(format!("stopped too early, {status}").into());
    }
    let status = end(program).await?;
    if !status.success() {
        return Err(format!("stopped on SIGTERM with {status}").into());
    }
    Ok(())
}
