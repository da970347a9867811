//! Answers Dovecot's dict lookups, lists and writes from an HTTP API.

use std::process::ExitCode;

use postgate::protocol::dict::Dict;

fn main() -> ExitCode {
    postgate::run::<Dict>()
}
