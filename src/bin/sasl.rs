//! Checks logins for Postfix over Dovecot's auth protocol, at an HTTP API.

use std::process::ExitCode;

use postgate::protocol::sasl::Sasl;

fn main() -> ExitCode {
    postgate::run::<Sasl>()
}
