//! Notices to the service manager at the start, and backends that start later.

use crate::support::{
    backend::{Backend, good},
    peer::{framed, question},
    program::{ALL, Binary, Launch, Reserved, times_seen},
    replies::LATER,
    same,
    tables::{echo, echoed, found, serve_tcp, table},
};

#[tokio::test]
async fn ready_is_said_only_by_a_program_that_serves() {
    for binary in ALL {
        let backend = echo(binary);
        let launch = Launch::new(binary)
            .config(table(binary, &backend.url("/"), ""))
            .tcp4("t");
        let mut program = launch.start();
        // It connects before the program is ready, as Postfix does when systemd starts it.
        let mut early = program.peer().await;
        let reply = early.ask(question(binary, "t", "early")).await;
        same(binary.name(), &reply, &echoed(binary, "early"));
        program.until_ready().await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &echoed(binary, "key"));
        assert_eq!(times_seen(&program.notices.all(), "READY=1"), 1);
        let status = |seen: &[String]| {
            seen.iter()
                .any(|line| line.len() > "STATUS=".len() && line.starts_with("STATUS="))
        };
        program.notices.until("STATUS=", status).await;

        let bad = Launch::new(binary)
            .config(table(binary, "nowhere", ""))
            .tcp4("t")
            .start();
        let notices = bad.notices.clone();
        bad.end().await.status(78);
        assert_eq!(times_seen(&notices.all(), "READY=1"), 0, "{binary:?}");
    }
}

#[tokio::test]
async fn the_watchdog_is_fed_while_connections_are_served() {
    for binary in ALL {
        let backend = echo(binary);
        let program = Launch::new(binary)
            .config(table(binary, &backend.url("/"), ""))
            .tcp4("t")
            .watchdog(200_000)
            .ready()
            .await;
        program.notified("WATCHDOG=1", 3).await;
        let reply = program.peer().await.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &echoed(binary, "key"));
        let before = times_seen(&program.notices.all(), "WATCHDOG=1");
        program.notified("WATCHDOG=1", before + 2).await;
    }
}

#[tokio::test]
async fn without_a_watchdog_none_is_fed() {
    let program = serve_tcp(
        Binary::Policy,
        table(Binary::Policy, "http://127.0.0.1:9/", ""),
    )
    .await;
    let notices = program.notices.clone();
    program.stop().await;
    assert_eq!(times_seen(&notices.all(), "WATCHDOG=1"), 0);
}

#[tokio::test]
async fn a_backend_that_is_down_at_the_start_is_used_when_it_comes_up() {
    for binary in ALL {
        let reserved = Reserved::new();
        let target = format!("http://{}/", reserved.address());
        let program = serve_tcp(binary, table(binary, &target, "")).await;
        let mut peer = program.peer().await;
        let down = match binary {
            Binary::TcpLookup => framed(binary, "400 backend%20unreachable"),
            Binary::Socketmap => framed(binary, "TEMP backend unreachable"),
            Binary::Policy => framed(binary, LATER),
        };
        let request = question(binary, "t", "key");
        same("down", &peer.ask(&request).await, &down);
        same("still down", &peer.ask(&request).await, &down);
        let script = good(binary, "DUNNO");
        let _backend = Backend::at(reserved, move |_| script.clone());
        same("up", &peer.ask(&request).await, &found(binary, "DUNNO"));
    }
}

#[tokio::test]
async fn a_service_manager_that_is_gone_costs_no_request() {
    for binary in ALL {
        let backend = echo(binary);
        let program = Launch::new(binary)
            .config(table(binary, &backend.url("/"), ""))
            .environment("NOTIFY_SOCKET", "/nonexistent/notify")
            .tcp4("t")
            .watchdog(100_000)
            .start();
        let mut peer = program.peer().await;
        let reply = peer.ask(question(binary, "t", "key")).await;
        same(binary.name(), &reply, &echoed(binary, "key"));
        program.stop().await;
    }
}
