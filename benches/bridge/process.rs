//! The processes of the bench, and their cost so far.

use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::wire::Program;

/// A server that ends with its handle.
pub(crate) struct Process {
    child: Child,
    pub(crate) started: Instant,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts this program again, as one of its own servers.
    pub(crate) fn own(arguments: &[&str]) -> io::Result<Self> {
        let started = Instant::now();
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().parse().map_err(io::Error::other)?;
        Ok(Self {
            child,
            started,
            address,
        })
    }

    /// Starts a program under test, with a socket of this name.
    pub(crate) fn program(program: Program, config: &Path, socket: &str) -> io::Result<Self> {
        let built = Path::new(env!("CARGO_BIN_EXE_socketmap")).with_file_name("");
        let programs = std::env::var_os("BENCH_PROGRAMS").map_or(built, PathBuf::from);
        // The port was free a moment ago. If another process has bound it since, its answers
        // differ.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let started = Instant::now();
        let child = Command::new(programs.join(program.name()))
            .arg("--config")
            .arg(config)
            .arg("--listen")
            .arg(format!("{socket}={address}"))
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            child,
            started,
            address,
        })
    }

    /// Waits until it listens.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        const LONGEST: Duration = Duration::from_secs(10);
        while let Err(error) = TcpStream::connect(self.address) {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("did not start: {status}")));
            }
            if self.started.elapsed() > LONGEST {
                return Err(error);
            }
            sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Returns the time that processors have spent on it.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let mut sum = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            let spent = text.split(' ').next().unwrap_or_default();
            sum += spent.parse::<u64>().map_err(io::Error::other)?;
        }
        Ok(Duration::from_nanos(sum))
    }

    /// Returns the part of that time that is not the kernel's (proc_pid_stat(5)).
    pub(crate) fn user(&self) -> io::Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in brackets may contain anything.
        let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let ticks = fields
            .split(' ')
            .nth(11)
            .and_then(|utime| utime.parse().ok());
        let ticks: u64 = ticks.ok_or_else(|| io::Error::other("no time in its stat"))?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Returns the memory that it takes, in megabytes.
    pub(crate) fn memory(&self) -> io::Result<f64> {
        self.status("VmRSS:")
    }

    /// Returns the most memory that it has taken, in megabytes.
    pub(crate) fn peak_memory(&self) -> io::Result<f64> {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> io::Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kilobytes = text.lines().find_map(|line| {
            let value = line.strip_prefix(name)?.trim();
            value.strip_suffix(" kB")?.parse::<f64>().ok()
        });
        let kilobytes = kilobytes.ok_or_else(|| io::Error::other("the process has ended"))?;
        Ok(kilobytes / 1024.0)
    }
}

impl Drop for Process {
    /// Tells it to end, so that a program that counts what it runs (`make pgo`) writes its counts.
    fn drop(&mut self) {
        const LONGEST: Duration = Duration::from_secs(5);
        let told = Instant::now();
        // It may have ended by itself, and its id be that of another process.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
        while matches!(self.child.try_wait(), Ok(None)) {
            if told.elapsed() > LONGEST {
                eprintln!("process {} is killed: it does not end", self.child.id());
                break;
            }
            sleep(Duration::from_micros(200));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
