//! Reloads after SIGHUP.

use std::path::Path;

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Signal,
};
use tokio::{fs::OpenOptions, io::AsyncWriteExt};

use super::InFlight;
use crate::support::{
    backend::{Backend, good, json},
    peer::{netstring, question},
    program::{ALL, Binary, Launch, times_seen},
    same, soon,
    tables::{echo, echoed, found, serve_tcp, table},
};

#[tokio::test]
async fn a_good_reload_serves_the_next_request_of_the_same_connection() {
    for binary in ALL {
        let before = Backend::always(good(binary, "DUNNO"));
        let after = Backend::always(good(binary, "REJECT"));
        let program = serve_tcp(binary, table(binary, &before.url("/"), "")).await;
        let mut peer = program.peer().await;
        let request = question(binary, "t", "key");
        same("before", &peer.ask(&request).await, &found(binary, "DUNNO"));
        program.rewrite(&table(binary, &after.url("/"), ""));
        program.signal(Signal::HUP);
        program.notified("RELOADING=1", 1).await;
        program.notified("READY=1", 2).await;
        same("after", &peer.ask(&request).await, &found(binary, "REJECT"));
        assert_eq!((before.count(), after.count()), (1, 1), "{binary:?}");
        program.stop().await;
    }
}

#[tokio::test]
async fn a_call_under_way_is_answered_by_the_old_configuration() {
    for binary in ALL {
        let test = InFlight::start(binary, "").await;
        let InFlight {
            program,
            gate,
            mut asking,
            ..
        } = test;
        let after = Backend::always(good(binary, "REJECT"));
        program.rewrite(&table(binary, &after.url("/"), ""));
        program.signal(Signal::HUP);
        program.notified("READY=1", 2).await;
        gate.pass(1);
        same("under way", &asking.reply().await, &found(binary, "DUNNO"));
        let reply = asking.ask(question(binary, "t", "key")).await;
        same("after", &reply, &found(binary, "REJECT"));
    }
}

#[tokio::test]
async fn a_bad_reload_keeps_the_old_configuration_and_logs_every_problem() {
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let good_config = table(binary, &backend.url("/"), "");
        let program = serve_tcp(binary, good_config.clone()).await;
        let mut peer = program.peer().await;
        let request = question(binary, "t", "key");
        same("before", &peer.ask(&request).await, &found(binary, "DUNNO"));

        let name = binary.name();
        program.rewrite(&format!(
            "[{name}.t]\ntarget = \"htp://nowhere/\"\nrequst-timeout = \"5s\"\n"
        ));
        program.signal(Signal::HUP);
        let path = program.config_path().display().to_string();
        for place in [
            format!("{path}:2:10: {name}.t.target"),
            format!("{path}:3:1: {name}.t.requst-timeout"),
        ] {
            let logged = |lines: &[String]| lines.iter().any(|line| line.contains(&place));
            program.stderr.until(&place, logged).await;
        }
        // A reload that was announced must be said to be over.
        let over =
            |seen: &[String]| times_seen(seen, "READY=1") == times_seen(seen, "RELOADING=1") + 1;
        program.notices.until("the reload's end", over).await;
        same("kept", &peer.ask(&request).await, &found(binary, "DUNNO"));

        let next = Backend::always(good(binary, "REJECT"));
        program.rewrite(&table(binary, &next.url("/"), ""));
        program.signal(Signal::HUP);
        program.notified("READY=1", 3).await;
        same(
            "repaired",
            &peer.ask(&request).await,
            &found(binary, "REJECT"),
        );
        program.stop().await;
    }
}

#[tokio::test]
async fn a_reload_that_leaves_a_socket_without_a_table_is_refused() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let backend = Backend::always(good(binary, "DUNNO"));
        let name = binary.name();
        let two = |other: &str| {
            table(binary, &backend.url("/"), "")
                + &format!("[{name}.{other}]\ntarget = \"{}\"\n", backend.url("/"))
        };
        let third = format!("[{name}.third]\ntarget = \"{}\"\n", backend.url("/"));
        let program = Launch::new(binary)
            .config(two("other") + &third)
            .unix("t")
            .unix("other")
            .unix("third")
            .ready()
            .await;
        program.rewrite(&two("another"));
        program.signal(Signal::HUP);
        program
            .logged("sockets \"other\", \"third\" would fit no table")
            .await;
        let mut peer = program.peer_at(1).await;
        let reply = peer.ask(question(binary, "", "key")).await;
        same(name, &reply, &found(binary, "DUNNO"));
    }
}

/// Only one table is left, which then has every socket: what was another's must not become its own.
#[tokio::test]
async fn a_reload_that_gives_a_socket_to_another_table_is_refused() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let own = Backend::always(good(binary, "DUNNO"));
        let other = Backend::always(good(binary, "REJECT"));
        let name = binary.name();
        let left = table(binary, &own.url("/"), "");
        let two = format!("{left}[{name}.other]\ntarget = \"{}\"\n", other.url("/"));
        let program = Launch::new(binary)
            .config(two)
            .unix("t")
            .unix("other")
            .ready()
            .await;
        program.rewrite(&left);
        program.signal(Signal::HUP);
        program
            .logged(&format!(
                "the socket \"other\" was that of [{name}.other], and would be that of [{name}.t]"
            ))
            .await;
        program.logged("reload: refused").await;
        let mut peer = program.peer_at(1).await;
        let reply = peer.ask(question(binary, "", "key")).await;
        same(name, &reply, &found(binary, "REJECT"));
        // Written down, it is done.
        program.rewrite(&table(binary, &own.url("/"), "socket = \"other\""));
        program.signal(Signal::HUP);
        program.logged("reload: done").await;
        let reply = peer.ask(question(binary, "", "key")).await;
        same(name, &reply, &found(binary, "DUNNO"));
    }
}

/// Writes to a FIFO when somebody reads it, after `first` has been done.
async fn feed(fifo: &Path, text: &str, first: impl FnOnce()) {
    let mut options = OpenOptions::new();
    options.write(true);
    let mut file = soon("a reader", options.open(fifo)).await.expect("a FIFO");
    first();
    soon("writing", file.write_all(text.as_bytes()))
        .await
        .expect("a reader");
    file.flush().await.expect("a reader");
}

#[tokio::test]
async fn a_reload_asked_for_during_the_start_ends_nothing_and_is_made_later() {
    for binary in ALL {
        let backend = echo(binary);
        let launch = Launch::new(binary).tcp4("t");
        let fifo = launch.directory().join("config");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        let mut program = launch.argument("--config").argument(&fifo).start();
        let config = table(binary, &backend.url("/"), "");
        feed(&fifo, &config, || {
            program.signal(Signal::HUP);
            program.signal(Signal::USR1);
        })
        .await;
        program.until_ready().await;
        feed(&fifo, &config, || {}).await;
        program.logged("reload: done").await;
        let mut peer = program.peer().await;
        let reply = peer.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &echoed(binary, "key"));
        program.stop().await;
    }
}

#[tokio::test]
async fn a_reload_without_a_file_keeps_the_old_configuration() {
    let backend = Backend::always(json("\"v\""));
    let program = serve_tcp(
        Binary::Socketmap,
        table(Binary::Socketmap, &backend.url("/"), ""),
    )
    .await;
    std::fs::remove_file(program.config_path()).expect("a removed file");
    program.signal(Signal::HUP);
    let path = program.config_path().display().to_string();
    let logged = |lines: &[String]| lines.iter().any(|line| line.contains(&path));
    program.stderr.until("the missing file", logged).await;
    let mut peer = program.peer().await;
    let reply = peer.ask(question(Binary::Socketmap, "t", "key")).await;
    same("kept", &reply, &netstring("OK v"));
}
