//! Throw-away machines with real systemd (`lab.sh`), each booted once for each test binary, with
//! Postgate installed in it by `make install` and a backend that can be made to fail.

pub(crate) mod backend;

use std::ffi::OsStr;
use std::io::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::{env, fs, io, process};

const PACKAGES: &str = "systemd systemd-sysv dbus libnss-systemd procps iproute2 make postfix \
    dovecot-core dovecot-imapd dovecot-lmtpd dovecot-sieve";
const LAB_SH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/lab.sh");

/// The contents of a machine: the host's own root, or the packages of another release.
#[derive(Clone, Copy)]
pub(crate) enum System {
    Host,
    Debian13,
}

/// Makes of each function `NAME` the tests `NAME::host` and `NAME::debian_13`. Side by side in the
/// alphabet, the two run at the same time.
macro_rules! on_each_system {
    ($($test:ident,)*) => {$(
        mod $test {
            #[test]
            fn host() {
                super::$test(crate::lab::System::Host);
            }

            #[test]
            fn debian_13() {
                super::$test(crate::lab::System::Debian13);
            }
        }
    )*};
}

pub(crate) use on_each_system;

/// The machine's file system as seen from here is `root`.
pub(crate) struct Lab {
    name: String,
    system: System,
    root: PathBuf,
}

/// The lab for the length of one test: the tests of a file change the same units.
pub(crate) struct Turn {
    lab: &'static Lab,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Turn {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.lab
    }
}

/// The output of a command inside.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Waits for the turn of this system's lab, with no socket, service or drop-in left from the test
/// before, a well backend, and `config` as its configuration. None, said on stderr, where a lab
/// cannot be; a failure where `CI=true`.
pub(crate) fn lab(system: System, config: &str) -> Option<Turn> {
    static LABS: [OnceLock<Result<Lab, &str>>; 2] = [const { OnceLock::new() }; 2];
    static TURNS: [Mutex<()>; 2] = [const { Mutex::new(()) }; 2];
    let number = system as usize;
    let turn = TURNS[number].lock().unwrap_or_else(PoisonError::into_inner);
    match LABS[number].get_or_init(|| possible(system).map(|()| Lab::boot(system))) {
        Ok(lab) => {
            lab.reset(config);
            Some(Turn { lab, _turn: turn })
        }
        Err(why) => {
            let test = std::thread::current().name().unwrap_or("?").to_owned();
            assert_ne!(
                env::var("CI").as_deref(),
                Ok("true"),
                "cannot boot the lab: {why}"
            );
            // Not eprintln!, which the harness keeps to itself when a test passes.
            writeln!(io::stderr(), "{test}: skipped: {why}").expect("stderr");
            None
        }
    }
}

fn possible(system: System) -> Result<(), &'static str> {
    if !Path::new("/etc/debian_version").exists() {
        return Err("not on Debian");
    }
    if !rustix::process::getuid().is_root() {
        return Err("not root");
    }
    let namespaces = Command::new("unshare")
        .args(["--mount", "--pid", "--net", "--fork", "true"])
        .stderr(Stdio::null())
        .status();
    if !namespaces.is_ok_and(|status| status.success()) {
        return Err("no namespaces here");
    }
    // Possibly out of reach without a network. The output of the script is shown once.
    let packages = lab_sh("packages", system)
        .arg("layer")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    if !packages.is_ok_and(|status| status.success()) {
        return Err("its packages cannot be had");
    }
    Ok(())
}

impl Lab {
    fn boot(system: System) -> Self {
        let release = match system {
            System::Host => "host",
            System::Debian13 => "13",
        };
        let name = format!(
            "postgate-{}-{release}-{}",
            env!("CARGO_CRATE_NAME"),
            process::id()
        );
        forget_dead_labs();
        let repo = env!("CARGO_MANIFEST_DIR");
        let built = Path::new(env!("CARGO_BIN_EXE_socketmap"))
            .parent()
            .expect("a file");
        let up = lab_sh(&name, system)
            .args(["up", "--die-with", &process::id().to_string()])
            .args(["--bind", &format!("{repo}:/mnt/postgate:ro")])
            .args(["--bind", &format!("{}:/mnt/built:ro", built.display())])
            .stdin(Stdio::null())
            .output()
            .expect("lab.sh starts");
        assert!(
            up.status.success(),
            "lab.sh up: {}",
            String::from_utf8_lossy(&up.stderr)
        );
        let root = lab_sh(&name, system)
            .arg("root")
            .output()
            .expect("lab.sh starts");
        let root = String::from_utf8(root.stdout).expect("a path");
        let lab = Self {
            name,
            system,
            root: PathBuf::from(root.trim_end()),
        };
        lab.sh("make -s -C /mnt/postgate install BUILD=/mnt/built");
        fs::copy(
            env::current_exe().expect("our path"),
            lab.path("/usr/local/bin/lab-backend"),
        )
        .expect("copying the backend");
        lab.write("/etc/systemd/system/lab-backend.service", backend::UNIT);
        lab.sh("mkdir /run/lab-backend && mkfifo /tmp/go && systemctl daemon-reload");
        lab
    }

    fn reset(&self, config: &str) {
        self.write("/etc/postgate/config.toml", config);
        self.sh("cd /etc/systemd/system
            systemctl -q disable postgate-socketmap.socket
            systemctl stop 'postgate-*.socket' 'postgate-*.service'
            rm -rf postgate-*.d ../../postgate/secret
            systemctl reset-failed
            systemctl daemon-reload
            date +%s.%N > /run/began");
        self.backend_is_well();
    }

    /// Where a path inside is found from here. Unix sockets can be connected to, too.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// Writes a file inside, with the mode and owner of the one that was there.
    pub(crate) fn write(&self, inside: &str, text: &str) {
        fs::write(self.path(inside), text).unwrap_or_else(|error| panic!("{inside}: {error}"));
    }

    /// A command that runs inside once it is started.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, argv: &[S]) -> Command {
        let mut command = lab_sh(&self.name, self.system);
        command.arg("run").args(argv);
        command
    }

    /// Runs a command inside.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, argv: &[S]) -> Said {
        self.command(argv)
            .stdin(Stdio::null())
            .output()
            .expect("lab.sh starts")
            .into()
    }

    /// Runs a shell script inside that must succeed; returns what it printed.
    pub(crate) fn sh(&self, script: &str) -> String {
        let said = self.run(&["bash", "-c", script]);
        assert_eq!(said.status, Some(0), "{script}\n{}{}", said.out, said.err);
        said.out
    }

    /// Waits until a shell condition holds inside; after 20 seconds the test has failed.
    pub(crate) fn until(&self, condition: &str) {
        let looped = format!("until {condition}; do sleep 0.05; done");
        let said = self.run(&["timeout", "20", "bash", "-c", &looped]);
        if said.status != Some(0) {
            let journal = self.sh("journalctl --no-pager -n 40");
            panic!(
                "never came true: {condition}\n{}{}\n{journal}",
                said.out, said.err
            );
        }
    }

    /// From now on the backend answers `STATUS CONTENT-TYPE\nBODY` to everything under `/folder`;
    /// `hang` means that it never answers, `raw\n...` the bytes that it sends in place of HTTP.
    pub(crate) fn backend_says(&self, folder: &str, answer: &str) {
        self.write(&format!("/run/lab-backend/{folder}"), answer);
    }

    /// Has the backend answer by itself again.
    pub(crate) fn backend_is_well(&self) {
        self.sh("rm -f /run/lab-backend/*; systemctl start lab-backend");
    }
}

fn lab_sh(name: &str, system: System) -> Command {
    let mut command = Command::new(LAB_SH);
    command.env("LAB_NAME", name).env("LAB_PACKAGES", PACKAGES);
    if matches!(system, System::Debian13) {
        command.env("LAB_SUITE", "trixie");
    }
    command
}

/// A lab ends with its test process, and leaves an empty lock file.
fn forget_dead_labs() {
    let cache = env::var_os("LAB_CACHE").unwrap_or_else(|| "/var/cache/lab".into());
    for file in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = file.file_name().into_string().unwrap_or_default();
        let pid = name
            .strip_prefix("postgate-")
            .and_then(|rest| rest.strip_suffix(".lock"))
            .and_then(|rest| rest.rsplit_once('-'));
        if let Some((_, pid)) = pid
            && !Path::new("/proc").join(pid).exists()
        {
            // Another test that sweeps may have been faster.
            let _ = fs::remove_file(file.path());
        }
    }
}
