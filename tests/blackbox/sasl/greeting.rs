//! The greeting, and which table a socket leads to.

use super::{JOE, OK, PASSWORD, Smtpd, api, login, serve, table};
use crate::support::{
    backend::{Backend, json, status},
    program::{Launch, Reserved},
};

#[tokio::test]
async fn a_client_is_greeted_at_once_while_the_backend_is_down() {
    let nobody = Reserved::new();
    let target = format!("http://{}/login", nobody.address());
    let program = serve(table(&target, "")).await;
    let mut peer = program.peer().await;
    // Before the client has said anything.
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "DONE") {
        lines.push(super::line(&mut peer).await.expect("a greeting"));
    }
    let names: Vec<_> = lines
        .iter()
        .map(|line| line.split('\t').next().expect("a word"))
        .collect();
    // MECH before SPID, or Postfix takes this for another kind of socket.
    let order = ["VERSION", "MECH", "MECH", "SPID", "CUID", "COOKIE", "DONE"];
    assert_eq!(names, order, "{lines:?}");
    assert_eq!(lines[0], "VERSION\t1\t2");
    assert_eq!(lines[1], "MECH\tPLAIN\tplaintext");
    assert_eq!(lines[2], "MECH\tLOGIN\tplaintext");

    let again = Smtpd::connect(&program).await;
    assert_eq!(again.offered, ["PLAIN", "LOGIN"]);
    assert_eq!(login(&program, JOE, PASSWORD).await, "closed");
    let end = program.stop().await;
    end.says("t: backend unreachable");
}

#[tokio::test]
async fn connections_have_different_numbers_and_cookies() {
    let backend = Backend::new(api);
    let program = serve(table(&backend.url("/login"), "")).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut peer = program.peer().await;
        let mut line = String::new();
        while line != "DONE" {
            line = super::line(&mut peer).await.expect("a greeting");
            if line.starts_with("CUID") || line.starts_with("COOKIE") {
                assert!(!seen.contains(&line), "{line} again");
                seen.push(line.clone());
            }
        }
    }
    assert_eq!(seen.len(), 6);
}

#[tokio::test]
async fn the_name_of_the_socket_picks_the_table_and_its_mechanisms() {
    let (yes, no) = (Backend::always(json("{}")), Backend::always(status(403)));
    let config = format!(
        "[sasl.yes]\ntarget = \"{}\"\n\
         [sasl.no]\ntarget = \"{}\"\nsocket = \"other\"\nfailure-delay = false\n\
         mechanisms = [\"LOGIN\"]\n",
        yes.url("/"),
        no.url("/")
    );
    let program = Launch::sasl()
        .config(config)
        .unix("yes")
        .unix("other")
        .ready()
        .await;
    let mut smtpd = Smtpd::at(&program, 0).await;
    assert_eq!(smtpd.offered, ["PLAIN", "LOGIN"]);
    assert_eq!(smtpd.plain(JOE, "x").await, OK);
    let mut smtpd = Smtpd::at(&program, 1).await;
    assert_eq!(smtpd.offered, ["LOGIN"]);
    assert_eq!(smtpd.plain(JOE, "x").await, "FAIL reason=unknown mechanism");
    smtpd.auth("LOGIN", Some(JOE.as_bytes())).await;
    assert_eq!(smtpd.cont("x").await, super::REFUSED);
}

#[tokio::test]
async fn a_socket_without_a_table_is_refused_and_named() {
    let config = "[sasl.a]\ntarget = \"http://127.0.0.1:1\"\n\
                  [sasl.b]\ntarget = \"http://127.0.0.1:1\"\n";
    let end = Launch::sasl().config(config).unix("c").end().await;
    end.status(78).says("\"c\"");
    let end = Launch::sasl()
        .config("[socketmap.a]\ntarget = \"http://127.0.0.1:1\"\n")
        .unix("a")
        .end()
        .await;
    end.status(78)
        .says("has no table for this program; write one, [sasl.NAME]");
}

#[tokio::test]
async fn a_reload_reaches_connections_that_are_open() {
    let (yes, no) = (Backend::always(json("{}")), Backend::always(status(403)));
    let program = serve(table(&yes.url("/"), "")).await;
    let mut smtpd = Smtpd::connect(&program).await;
    assert_eq!(smtpd.plain(JOE, "x").await, OK);
    program.rewrite(&table(&no.url("/"), "reason = \"closed\""));
    program.signal(rustix::process::Signal::HUP);
    program.logged("reload: done").await;
    assert_eq!(
        smtpd.plain(JOE, "x").await,
        "FAIL user=joe@example.org reason=closed"
    );
    // What is not offered any more is no reason to call a password wrong: the next connection of
    // this smtpd has another greeting.
    let mut begun = Smtpd::connect(&program).await;
    assert_eq!(begun.auth("PLAIN", None).await, "CONT ");
    program.rewrite(&table(&yes.url("/"), "mechanisms = [\"LOGIN\"]"));
    program.signal(rustix::process::Signal::HUP);
    program
        .stderr
        .until("a second reload", |lines| {
            lines
                .iter()
                .filter(|line| line.contains("reload: done"))
                .count()
                == 2
        })
        .await;
    assert_eq!(begun.cont(super::plain(JOE, "x")).await, "closed");
    assert_eq!(smtpd.plain(JOE, "x").await, "closed");
    assert_eq!(yes.count(), 1);
    let mut smtpd = Smtpd::connect(&program).await;
    assert_eq!(smtpd.offered, ["LOGIN"]);
    assert_eq!(
        smtpd.auth("LOGIN", Some(JOE.as_bytes())).await,
        "CONT UGFzc3dvcmQ6"
    );
    assert_eq!(smtpd.cont("x").await, OK);
}

#[tokio::test]
async fn a_malformed_line_closes_its_own_connection() {
    let backend = Backend::new(api);
    let program = serve(table(&backend.url("/login"), "")).await;
    let mut other = Smtpd::connect(&program).await;
    for bytes in ["AUTH\t1\n", "CONT\t9\tAA==\n", "USER\t1\n", "\n"] {
        let mut smtpd = Smtpd::connect(&program).await;
        smtpd.peer.send(bytes).await;
        smtpd.peer.expect_closed().await;
    }
    assert_eq!(other.plain(JOE, PASSWORD).await, OK);
    let end = program.stop().await;
    end.says("t: request not understood");
    assert_eq!(backend.count(), 1);
}
