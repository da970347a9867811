//! Writes the page on mistakes from the files that a test runs. `cargo run --example mistakes --
//! docs/mistakes.md`, in a working copy.

mod page;

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

fn main() -> ExitCode {
    let Some(path) = env::args_os().nth(1) else {
        eprintln!("mistakes: the file to write to is missing");
        return ExitCode::from(64);
    };
    let mistakes = page::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes"));
    match fs::write(&path, page::of(&mistakes)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mistakes: {}: {error}", Path::new(&path).display());
            ExitCode::FAILURE
        }
    }
}
