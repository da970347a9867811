//! The cache: good logins only, known by everything that their call carries.

use super::{JOE, OK, PASSWORD, REFUSED, Smtpd, api, login, serve, table};
use crate::support::backend::{Backend, json};

#[tokio::test]
async fn a_good_login_is_asked_about_once_and_a_refusal_each_time() {
    let backend = Backend::new(api);
    let program = serve(table(&backend.url("/login"), "cache = { ttl = \"1h\" }")).await;
    let mut smtpd = Smtpd::connect(&program).await;
    for _ in 0..3 {
        assert_eq!(smtpd.plain(JOE, PASSWORD).await, OK);
    }
    assert_eq!(backend.count(), 1);
    for _ in 0..3 {
        assert_eq!(smtpd.plain(JOE, "wrong").await, REFUSED);
    }
    assert_eq!(backend.count(), 4);
    // Another mechanism, and so another call.
    smtpd.auth("LOGIN", Some(JOE.as_bytes())).await;
    assert_eq!(smtpd.cont(PASSWORD).await, OK);
    assert_eq!(backend.count(), 5);
    // SIGUSR1 empties it.
    program.signal(rustix::process::Signal::USR1);
    program.logged("cache: emptied of 2 answers").await;
    assert_eq!(smtpd.plain(JOE, PASSWORD).await, OK);
    assert_eq!(backend.count(), 6);
}

#[tokio::test]
async fn a_failure_is_not_kept_and_a_kept_login_outlives_none() {
    let mut backend = Backend::new(api);
    let program = serve(table(&backend.url("/login"), "cache = { ttl = \"1h\" }")).await;
    assert_eq!(login(&program, JOE, PASSWORD).await, OK);
    backend.close().await;
    assert_eq!(login(&program, JOE, PASSWORD).await, OK);
    assert_eq!(login(&program, "ann@example.org", PASSWORD).await, "closed");
    assert_eq!(login(&program, "ann@example.org", PASSWORD).await, "closed");
}

/// Only what the call carries makes two logins different.
#[tokio::test]
async fn what_the_call_does_not_carry_does_not_count() {
    let backend = Backend::always(json("{}"));
    let keys = "json = { u = \"{username}\", p = \"{password}\" }\ncache = { ttl = \"1h\" }";
    let program = serve(table(&backend.url("/login"), keys)).await;
    let mut smtpd = Smtpd::connect(&program).await;
    assert_eq!(smtpd.plain(JOE, PASSWORD).await, OK);
    smtpd.auth("LOGIN", Some(JOE.as_bytes())).await;
    assert_eq!(smtpd.cont(PASSWORD).await, OK);
    assert_eq!(backend.count(), 1);
    assert_eq!(smtpd.plain("joe", PASSWORD).await, "OK user=joe");
    assert_eq!(smtpd.plain(JOE, "other").await, OK);
    assert_eq!(backend.count(), 3);
}
