//! What needs a process of its own: this program, run once more with the name of a part to play.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{env, iter};

use crate::support::Folder;
use crate::{bounds, failures, processes};

const PART: &str = "POSTGATE_STORE_PART";
const FOLDER: &str = "POSTGATE_STORE_FOLDER";

/// The user that is nobody, as a service with a user of its own.
pub(crate) const NOBODY: u32 = 65_534;

#[test]
#[ignore = "other tests run it"]
fn part() {
    let Ok(part) = env::var(PART) else {
        return;
    };
    let folder = Folder::at(PathBuf::from(env::var_os(FOLDER).expect(FOLDER)));
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match &*part {
            "full" => failures::full(&folder).await,
            "read-only" => failures::read_only(&folder).await,
            "failing" => failures::failing(&folder).await,
            "forbidden" => failures::forbidden(&folder).await,
            "reader" => bounds::reader(&folder).await,
            "umask" => processes::umask(&folder).await,
            "teller" => processes::teller(&folder).await,
            "contender" => processes::contender(&folder).await,
            "served" => processes::served(&folder).await,
            _ => panic!("no such part: {part}"),
        }
    });
}

/// How a part is run.
#[derive(Clone, Copy)]
pub(crate) enum As {
    /// As this process.
    Self_,
    /// With a small file system of its own in place of the folder.
    WithDisk,
    /// Without being killed by a write beyond the largest file.
    WithLimit,
    /// As nobody, where this is root.
    Nobody,
}

fn command(part: &str, folder: &Folder, how: As) -> Command {
    let script = match how {
        As::Self_ | As::Nobody => r#"exec "$0" "$@""#.to_owned(),
        As::WithLimit => r#"trap '' XFSZ; exec "$0" "$@""#.to_owned(),
        As::WithDisk => format!(r#"mount -t tmpfs -o size=1m none "${FOLDER}" && exec "$0" "$@""#),
    };
    let mut command = Command::new("sh");
    if matches!(how, As::WithDisk) {
        command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh"]);
    }
    let program = env::current_exe().expect("this program");
    command.arg("-c").arg(script).arg(program);
    command.args(["--exact", "children::part", "--ignored", "--nocapture"]);
    command.env(PART, part).env(FOLDER, folder.path());
    if matches!(how, As::Nobody) && is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Runs a part to its end.
pub(crate) fn run(part: &str, folder: &Folder, how: As) {
    let output = command(part, folder, how).output().expect("sh");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_done = output.status.success() && said.contains("1 passed");
    assert!(is_done, "{part}: {}\n{said}\n{wrong}", output.status);
}

/// A part that is talked to, and killed in the end.
pub(crate) struct Player {
    child: Child,
    said: BufReader<ChildStdout>,
    told: ChildStdin,
}

impl Player {
    pub(crate) fn start(part: &str, folder: &Folder, how: As) -> Self {
        let mut command = command(part, folder, how);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("sh");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        let told = child.stdin.take().expect("its input");
        Self { child, said, told }
    }

    /// The next line of its part; none after its end. A line that it could not finish is none.
    pub(crate) fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            self.said.read_line(&mut line).expect("a line");
            let line = line.strip_suffix('\n')?;
            if let Some((_, line)) = line.split_once("> ") {
                return Some(line.to_owned());
            }
        }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.told, "{line}").expect("a part that listens");
    }

    /// Kills it, and returns what it had said until then.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("a kill");
        let left = iter::from_fn(|| self.hear()).collect();
        self.child.wait().expect("an end");
        left
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says a line of a part.
pub(crate) fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "> {line}").expect("a listener");
    out.flush().expect("a listener");
}

/// Waits for a line.
pub(crate) fn listen() -> String {
    let mut line = String::new();
    io::stdin().read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

pub(crate) fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// Whether a part can be run like this here. Where it cannot, that is said; with `CI=true` it is a
/// failure.
pub(crate) fn can(what: &str, is_possible: bool) -> bool {
    if !is_possible {
        assert_ne!(env::var("CI").as_deref(), Ok("true"), "{what}");
        // Not eprintln!, which the harness keeps to itself when a test passes.
        writeln!(io::stderr(), "skipped: {what}").expect("stderr");
    }
    is_possible
}

/// Whether there are mounts that only a child sees.
pub(crate) fn can_mount() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--mount",
        "--map-root-user",
        "mount",
        "-t",
        "tmpfs",
        "none",
        "/mnt",
    ]);
    let status = unshare.stderr(Stdio::null()).status();
    can(
        "no mounts here",
        status.is_ok_and(|status| status.success()),
    )
}

/// Mounts a file system in another way.
pub(crate) fn remount(folder: &Path, how: &str) {
    let mut mount = Command::new("mount");
    let status = mount
        .args(["-o", &format!("remount,{how}")])
        .arg(folder)
        .status();
    assert!(status.expect("mount").success(), "{how}");
}
