//! Several hosts that count together in a Redis: each is a process of its own.

use super::{PASSED, data, dialog, limit, recipient};
use crate::client::rcpt;
use crate::redis_server::Server;
use crate::support::{
    peer::framed,
    program::{Binary, Launch, Program},
    soon,
};

/// A configuration with this Redis, which has time enough on a slow machine.
fn config(server: &Server, timeout: &str, tables: &str) -> String {
    let url = server.url("");
    format!("[store]\nredis = \"{url}\"\ntimeout = \"{timeout}\"\n{tables}")
}

async fn host(config: &str) -> Program {
    let launch = Launch::new(Binary::Policy).config(config);
    launch.tcp4("t").ready().await
}

/// Runs a command, and returns its status and what it prints.
async fn command(config: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let launch = Launch::new(Binary::Policy).config(config);
    let arguments = arguments.iter();
    let launch = arguments.fold(launch, |launch, argument| launch.argument(*argument));
    let end = launch.end().await;
    (end.status, end.stdout + &end.stderr)
}

#[tokio::test]
async fn exactly_as_many_pass_as_may_whichever_host_is_asked() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let tables = limit("login", "rates = { \"1h\" = 100 }");
    let config = config(&server, "10s", &tables);
    let hosts = [
        host(&config).await,
        host(&config).await,
        host(&config).await,
    ];
    let asked = (0..30).map(async |number| {
        let mut peer = hosts[number % hosts.len()].peer().await;
        let mut passed = 0;
        for message in 0..10 {
            let request = data(&format!("{number}.{message}"), "joe", "3");
            let reply = peer.ask(request).await;
            passed += usize::from(reply == framed(Binary::Policy, PASSED));
        }
        passed
    });
    let passed = futures_util::future::join_all(asked).await;
    assert_eq!(passed.into_iter().sum::<usize>(), 33);
}

#[tokio::test]
async fn a_message_that_goes_on_at_another_host_is_charged_once() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let tables = limit("login", "rates = { \"1h\" = 2 }");
    let config = config(&server, "10s", &tables);
    let (one, other) = (host(&config).await, host(&config).await);
    let (mut first, mut second) = (one.peer().await, other.peer().await);
    let full = "REJECT login: 2 of 2 in 1h";
    dialog(&mut first, [(recipient("1", "joe", "a@b"), PASSED)]).await;
    // The same request, after a connection that broke.
    dialog(&mut second, [(recipient("1", "joe", "a@b"), PASSED)]).await;
    dialog(&mut second, [(recipient("1", "joe", "c@d"), PASSED)]).await;
    dialog(&mut first, [(data("1", "joe", "2"), PASSED)]).await;
    dialog(&mut first, [(recipient("2", "joe", "a@b"), full)]).await;
    dialog(&mut second, [(recipient("2", "joe", "a@b"), full)]).await;
    // The account that has reached its limit is one warning of all hosts.
    let warnings = async {
        while one.lines("joe") + other.lines("joe") == 0 {
            tokio::task::yield_now().await;
        }
    };
    soon("a warning", warnings).await;
    assert_eq!(one.lines("joe") + other.lines("joe"), 1);
}

#[tokio::test]
async fn commands_ask_redis_beside_the_services() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    let tables = limit("login", "rates = { \"1h\" = 2 }");
    let config = config(&server, "10s", &tables);
    let program = host(&config).await;
    let mut peer = program.peer().await;
    let full = "REJECT login: 2 of 2 in 1h";
    dialog(&mut peer, [(data("1", "joe", "2"), PASSED)]).await;
    dialog(&mut peer, [(data("2", "joe", "1"), full)]).await;
    for arguments in [&["--limits", "t"][..], &["--limits", "t", "joe"]] {
        let (status, text) = command(&config, arguments).await;
        assert_eq!(status, Some(0), "{text}");
        let line = text.lines().nth(1).unwrap_or_default();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[..5], ["login", "joe", "1h", "2", "2"], "{text}");
    }
    let (status, text) = command(&config, &["--reset", "t", "joe"]).await;
    assert_eq!(status, Some(0), "{text}");
    dialog(&mut peer, [(data("3", "joe", "2"), PASSED)]).await;
    dialog(&mut peer, [(data("4", "joe", "1"), full)]).await;
    server.kill();
    for arguments in [&["--limits", "t"][..], &["--reset", "t", "joe"]] {
        let (status, text) = command(&config, arguments).await;
        assert_eq!(status, Some(75), "{text}");
        assert!(text.contains("store: cannot connect: "), "{text}");
    }
}

#[tokio::test]
async fn while_redis_is_away_each_host_counts_for_itself_and_no_mail_stops() {
    for hangs in [false, true] {
        let Some(mut server) = Server::start(&[]) else {
            return;
        };
        let tables = limit("login", "rates = { \"1h\" = 2 }");
        let config = config(&server, "200ms", &tables);
        let (one, other) = (host(&config).await, host(&config).await);
        let full = "REJECT login: 2 of 2 in 1h";
        let mut peers = [one.peer().await, other.peer().await];
        dialog(&mut peers[0], [(data("1", "joe", "2"), PASSED)]).await;
        if hangs {
            server.hang(true);
        } else {
            server.kill();
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            let message = |name: &str| format!("{number}.{name}");
            let rows = [
                (data(&message("a"), "joe", "2"), PASSED),
                (data(&message("b"), "joe", "1"), full),
                (rcpt(&[("protocol_state", "RCPT")]), PASSED),
            ];
            dialog(peer, rows).await;
        }
        if hangs {
            server.hang(false);
        } else {
            server.run();
        }
        for (program, peer) in [&one, &other].into_iter().zip(&mut peers) {
            let back = async {
                let mut number = 0;
                while program.lines("store: it is back") == 0 {
                    number += 1;
                    peer.ask(data(&format!("back {number}"), "ann", "1")).await;
                }
            };
            soon("the store", back).await;
            assert_eq!(program.lines("WARN store: "), 1);
        }
        let [one, other] = &mut peers;
        // They count together again, and what Redis has kept holds.
        dialog(one, [(data("2", "ben", "1"), PASSED)]).await;
        dialog(other, [(data("3", "ben", "1"), PASSED)]).await;
        dialog(one, [(data("4", "ben", "1"), full)]).await;
        let expected = if hangs { full } else { PASSED };
        dialog(other, [(data("5", "joe", "1"), expected)]).await;
    }
}
