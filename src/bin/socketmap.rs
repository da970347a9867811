//! Answers Postfix over socketmap_table(5) from an HTTP API.

use std::process::ExitCode;

use postgate::protocol::socketmap::Socketmap;

fn main() -> ExitCode {
    postgate::run::<Socketmap>()
}
