//! Answers Postfix over policy delegation (SMTPD_POLICY_README) from an HTTP API.

use std::process::ExitCode;

use postgate::protocol::policy::Policy;

fn main() -> ExitCode {
    postgate::run::<Policy>()
}
