//! Runs what `make demo` runs, which checks every answer that it shows.

use std::path::Path;
use std::process::Command;

#[test]
fn the_demo_gets_every_answer_it_expects() {
    let demo = Path::new(env!("CARGO_BIN_EXE_socketmap"))
        .with_file_name("examples")
        .join("demo");
    let output = Command::new(&demo)
        .env_remove("KEEP")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", demo.display()));
    let shown = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{shown}\n{complaints}",
        output.status
    );
    assert!(
        shown.contains("Every answer was the expected one"),
        "{shown}"
    );
}
