//! Answers Postfix over policy delegation (SMTPD_POLICY_README) from an HTTP API.

use std::process::ExitCode;

fn main() -> ExitCode {
    postgate::run(postgate::Program::Policy)
}
