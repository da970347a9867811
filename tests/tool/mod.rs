//! Programs of others that tests run: those of the host, or of Debian's packages (`fetch.sh`).

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, thread};

const FETCH_SH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tool/fetch.sh");

/// The path of a program, which Debian has in this package. Without it a test fails where
/// `CI=true`, and elsewhere says that it is skipped.
pub(crate) fn tool(program: &str, package: &str) -> Option<PathBuf> {
    let output = Command::new(FETCH_SH)
        .args([program, package])
        .stdin(Stdio::null())
        .output()
        .expect("fetch.sh starts");
    if output.status.success() {
        let path = String::from_utf8(output.stdout).expect("a path");
        return Some(path.trim_end().into());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert_ne!(
        env::var("CI").as_deref(),
        Ok("true"),
        "{program} cannot be had: {said}"
    );
    let test = thread::current().name().unwrap_or("?").to_owned();
    let why = said.lines().next_back().unwrap_or("it cannot be had");
    // Not eprintln!, which the harness keeps to itself when a test passes.
    writeln!(io::stderr(), "{test}: skipped: {program}: {why}").expect("stderr");
    None
}
