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

/// The line of a login whose password has so many bytes and is in no other, without its end, and
/// how its base64 can be recognised.
fn plant(number: usize, length: usize) -> (String, Vec<Vec<u8>>) {
    let piece = |at: usize| format!("{number:03}.{at:05}.");
    let password: String = (0..length / 10).map(piece).collect();
    let base64 = BASE64.encode(super::plain(JOE, &password));
    let traces = (40..base64.len().saturating_sub(24)).step_by(1_000);
    let traces = traces.map(|at| base64.as_bytes()[at..at + 24].to_vec());
    (
        format!("AUTH\t1\tPLAIN\tservice=smtp\tresp={base64}"),
        traces.collect(),
    )
}

#[tokio::test]
async fn no_line_leaves_a_password_behind_however_it_ends() {
    /// The longest line has 16,384 bytes.
    const LENGTHS: [usize; 6] = [60, 500, 3_000, 8_000, 20_000, 60_000];
    if !may_look() {
        return;
    }
    let backend = Backend::always(status(401));
    let program = super::serve(table(&backend.url("/login"), "")).await;
    let mut open = Vec::new();
    let mut planted = Vec::new();
    for length in LENGTHS {
        // A login; one after a line that is refused, and one that comes later than that; and one
        // without its end.
        for (before, later, end) in [
            ("", "", "\n"),
            ("X\n", "", "\n"),
            ("X\n", "X", "\n"),
            ("", "", ""),
        ] {
            for stays_open in [true, false] {
                let (login, traces) = plant(planted.len(), length);
                let sent = format!("{before}{login}{end}");
                planted.push((before, later, end, length, stays_open, traces));
                let mut smtpd = Smtpd::connect(&program).await;
                if later.is_empty() {
                    smtpd.peer.send_what_it_takes(sent).await;
                } else {
                    smtpd.peer.send(before).await;
                    smtpd.peer.everything().await;
                    smtpd.peer.send_what_it_takes(format!("{login}{end}")).await;
                }
                if end.is_empty() && length < 10_000 {
                    smtpd.peer.finish().await;
                }
                // A reply, or the end of the connection.
                let _ = super::line(&mut smtpd.peer).await;
                if stays_open {
                    open.push(smtpd);
                }
            }
        }
    }
    planted.retain(|(.., traces)| traces.iter().any(|trace| program.has_in_memory(trace)));
    let left: Vec<_> = planted
        .into_iter()
        .map(|(before, later, end, length, is_open, _)| (before, later, end, length, is_open))
        .collect();
    assert_eq!(left, []);
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
