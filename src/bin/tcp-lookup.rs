//! Answers Postfix over tcp_table(5) from an HTTP API.

use std::process::ExitCode;

fn main() -> ExitCode {
    postgate::run(postgate::Program::TcpLookup)
}
