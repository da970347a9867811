//! The end of the program: a new smtpd needs the next one soon.

use rustix::process::Signal;

use super::{JOE, OK, PASSWORD, Smtpd, api, serve, table};
use crate::support::backend::{Act, Backend};

/// The line of a drain that has taken all its time.
const CUT: &str = "the drain timeout is over";

#[tokio::test]
async fn a_login_under_way_does_not_keep_the_program() {
    let backend = Backend::always(vec![Act::Hang]);
    let config = format!(
        "[server]\ndrain-timeout = \"1h\"\n{}",
        table(&backend.url("/login"), "request-timeout = \"8s\"")
    );
    let program = serve(config).await;
    let mut smtpd = Smtpd::connect(&program).await;
    smtpd.ask("PLAIN", Some(&super::plain(JOE, PASSWORD))).await;
    backend.asked(1).await;
    let end = program.stop().await;
    // Postfix says 454 to that.
    assert_eq!(smtpd.said().await, "closed");
    end.says(CUT).says("1 connection closed");
}

#[tokio::test]
async fn a_login_that_is_answered_within_a_second_is_answered() {
    let gate = crate::support::backend::Gate::shut();
    let wait = gate.clone();
    let backend = Backend::new(move |request| {
        let mut script = vec![Act::Wait(wait.clone())];
        script.extend(api(request));
        script
    });
    let program = serve(table(&backend.url("/login"), "")).await;
    let mut smtpd = Smtpd::connect(&program).await;
    smtpd.ask("PLAIN", Some(&super::plain(JOE, PASSWORD))).await;
    backend.asked(1).await;
    program.signal(Signal::TERM);
    program.notified("STOPPING=1", 1).await;
    gate.pass(1);
    assert_eq!(smtpd.said().await, OK);
    let end = program.end().await;
    end.status(0);
    assert!(!end.stderr.contains(CUT), "{end:?}");
}

#[tokio::test]
async fn a_connection_between_two_challenges_is_idle() {
    let backend = Backend::new(api);
    let program = serve(table(&backend.url("/login"), "")).await;
    let mut smtpd = Smtpd::connect(&program).await;
    assert_eq!(smtpd.plain(JOE, PASSWORD).await, OK);
    smtpd.auth("LOGIN", Some(JOE.as_bytes())).await;
    let end = program.stop().await;
    assert_eq!(smtpd.said().await, "closed");
    assert!(!end.stderr.contains(CUT), "{end:?}");
}

#[tokio::test]
async fn postfix_that_goes_away_cancels_the_call() {
    let backend = Backend::always(vec![Act::Hang]);
    let program = serve(table(&backend.url("/login"), "request-timeout = \"8s\"")).await;
    let mut smtpd = Smtpd::connect(&program).await;
    smtpd.ask("PLAIN", Some(&super::plain(JOE, PASSWORD))).await;
    backend.asked(1).await;
    // A unix socket with unread bytes of ours knows a reset as well.
    drop(smtpd);
    program.stop().await;
}
