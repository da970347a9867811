//! The delay before a refusal, and the end of every answer.

use std::time::Duration;

use tokio::time::timeout;

use super::{JOE, OK, PASSWORD, REFUSED, Smtpd, api, login, serve, table};
use crate::support::{
    backend::{Act, Backend},
    soon,
};

#[tokio::test]
async fn a_refusal_is_kept_back_and_a_good_login_is_not() {
    let backend = Backend::new(api);
    // So long that a loaded machine does everything else meanwhile.
    let keys = "failure-delay = \"6s\"\nrequest-timeout = \"2s\"";
    let config = table(&backend.url("/login"), keys).replace("failure-delay = false\n", "");
    let program = serve(config).await;
    let mut wrong = Smtpd::connect(&program).await;
    wrong.ask("PLAIN", Some(&super::plain(JOE, "wrong"))).await;
    // Refused by the protocol itself, without a call.
    let mut empty = Smtpd::connect(&program).await;
    empty.ask("PLAIN", Some(b"\0\0pw")).await;
    backend.asked(1).await;
    assert_eq!(login(&program, JOE, PASSWORD).await, OK);
    for smtpd in [&mut wrong, &mut empty] {
        let early = timeout(Duration::from_millis(1), smtpd.said()).await;
        assert!(early.is_err(), "{early:?}");
    }
    assert_eq!(soon("the refusal", wrong.said()).await, REFUSED);
    let refused = soon("the refusal", empty.said()).await;
    assert_eq!(refused, "FAIL reason=wrong name or password");
}

#[tokio::test]
async fn a_backend_that_hangs_closes_the_connection_before_postfix_gives_up() {
    let backend = Backend::always(vec![Act::Hang]);
    let program = serve(table(&backend.url("/login"), "request-timeout = \"300ms\"")).await;
    let mut smtpd = Smtpd::connect(&program).await;
    assert_eq!(smtpd.plain(JOE, PASSWORD).await, "closed");
    let end = program.stop().await;
    end.says("t: backend timed out");
}

#[tokio::test]
async fn a_slow_backend_is_waited_for() {
    let (backend, gate) = {
        let gate = crate::support::backend::Gate::shut();
        let wait = gate.clone();
        let backend = Backend::new(move |request| {
            let mut script = vec![Act::Wait(wait.clone())];
            script.extend(api(request));
            script
        });
        (backend, gate)
    };
    let program = serve(table(&backend.url("/login"), "")).await;
    let mut smtpd = Smtpd::connect(&program).await;
    smtpd.ask("PLAIN", Some(&super::plain(JOE, PASSWORD))).await;
    backend.asked(1).await;
    let early = timeout(Duration::from_millis(50), smtpd.said()).await;
    assert!(early.is_err(), "{early:?}");
    gate.pass(1);
    assert_eq!(smtpd.said().await, OK);
}
