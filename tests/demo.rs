//! Runs what `make demo` runs, which checks every answer that it shows, with each of the sample APIs.

mod tool;

use std::env;
use std::path::Path;
use std::process::Command;

use tool::tool;

#[test]
fn the_demo_gets_every_answer_it_expects() {
    expect("rust", None);
}

#[test]
fn the_demo_gets_them_from_python_too() {
    if let Some(python) = tool("python3", "python3") {
        expect("python", Some(&python));
    }
}

#[test]
fn the_demo_gets_them_from_php_too() {
    if let Some(php) = tool("php", "php-cli") {
        expect("php", Some(&php));
    }
}

/// Runs the demo with this sample API, and its interpreter first on the path.
fn expect(api: &str, interpreter: Option<&Path>) {
    let demo = Path::new(env!("CARGO_BIN_EXE_socketmap"))
        .with_file_name("examples")
        .join("demo");
    let path = env::var_os("PATH").unwrap_or_default();
    let folder = interpreter.and_then(Path::parent).map(Path::to_owned);
    let path = env::join_paths(folder.into_iter().chain(env::split_paths(&path)));
    let output = Command::new(&demo)
        .env_remove("KEEP")
        .env("API", api)
        .env("PATH", path.expect("a path"))
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
    let end = match api {
        "rust" => "rs",
        "python" => "py",
        other => other,
    };
    let backend = format!("The backend is examples/directory.{end}.");
    assert!(shown.contains(&backend), "{shown}");
}
