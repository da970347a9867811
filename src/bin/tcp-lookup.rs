//! Answers Postfix over tcp_table(5) from an HTTP API.

use std::process::ExitCode;

use postgate::protocol::tcp_lookup::TcpLookup;

fn main() -> ExitCode {
    postgate::run::<TcpLookup>()
}
