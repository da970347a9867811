//! What is left of a password in the memory of the program once a login has its answer.

use std::{
    env,
    io::{self, Write as _},
};

use super::{BASE64, JOE, Smtpd, table};
use crate::support::{
    backend::{Act, Backend, json, status},
    program::{Launch, Program},
};
use base64::Engine as _;

const PASSWORD: &str = "Hunter2-in-the-attic";

/// Says that this cannot be looked at; a failure where `CI=true`.
fn may_look() -> bool {
    if rustix::process::getuid().is_root() {
        return true;
    }
    assert_ne!(env::var("CI").as_deref(), Ok("true"), "not root");
    let said = writeln!(
        io::stderr(),
        "skipped: only root can read the memory of the program"
    );
    said.expect("stderr");
    false
}

/// Everything by which the password could be recognised.
fn traces() -> Vec<(&'static str, Vec<u8>)> {
    let cut = |base64: String| base64.as_bytes()[base64.len() - 16..base64.len() - 4].to_vec();
    vec![
        ("the password", PASSWORD.as_bytes()[4..].to_vec()),
        (
            "its base64",
            BASE64.encode(PASSWORD).as_bytes()[4..20].to_vec(),
        ),
        (
            "the base64 of PLAIN",
            cut(BASE64.encode(super::plain(JOE, PASSWORD))),
        ),
        (
            "the base64 of basic authentication",
            cut(BASE64.encode(format!("{JOE}:{PASSWORD}"))),
        ),
    ]
}

async fn log_in(program: &Program) {
    for initial in [true, false] {
        let mut smtpd = Smtpd::connect(program).await;
        let message = super::plain(JOE, PASSWORD);
        if initial {
            smtpd.auth("PLAIN", Some(&message)).await;
        } else {
            smtpd.auth("PLAIN", None).await;
            smtpd.cont(&message).await;
        }
        let mut smtpd = Smtpd::connect(program).await;
        smtpd.auth("LOGIN", Some(JOE.as_bytes())).await;
        smtpd.cont(PASSWORD).await;
        // The last one stays open: what it has read must be gone all the same.
        if initial {
            continue;
        }
        let left: Vec<_> = traces()
            .into_iter()
            .filter(|(_, trace)| program.has_in_memory(trace))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(left, Vec::<&str>::new());
    }
}

#[tokio::test]
async fn a_body_leaves_no_password_behind() {
    if !may_look() {
        return;
    }
    let hangs = vec![Act::Hang];
    for script in [json("{\"ok\":true}"), status(401), status(503), hangs] {
        for keys in [
            "",
            "form = { u = \"{username}\", p = \"{password}\" }",
            "cache = { ttl = \"1h\" }",
            "compression = \"both\"",
        ] {
            let backend = Backend::always(script.clone());
            let keys = format!("{keys}\nrequest-timeout = \"200ms\"\nretries = 0");
            let program = Launch::sasl()
                .config(table(&backend.url("/login"), &keys))
                .unix("t")
                .ready()
                .await;
            // Otherwise the search shows nothing.
            assert!(program.has_in_memory(backend.url("/login").as_bytes()));
            log_in(&program).await;
            program.stop().await;
        }
    }
}
