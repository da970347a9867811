//! Reload, restart, stop, the watchdog and the limits of a unit.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::{
    CONFIG, ask, asking, connect, drop_in, messages, policy, refused, show, tcp, until_said,
};
use crate::lab::{Lab, System, lab, on_each_system};

on_each_system! {
    a_reload_takes_a_good_file_and_keeps_the_old_one_for_a_bad,
    a_bad_configuration_at_start_is_served_as_soon_as_it_is_mended,
    a_restart_refuses_nobody,
    a_stop_answers_what_was_asked,
    a_stop_does_not_wait_longer_than_the_drain,
    the_watchdog_is_fed_and_bites,
    a_resolver_that_does_not_answer_holds_nothing_up,
    a_program_at_its_memory_limit_takes_no_other_along,
}

fn a_reload_takes_a_good_file_and_keeps_the_old_one_for_a_bad(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    let mut postfix = connect(&lab).expect("a connection");
    assert_eq!(postfix.ask("echo", "user@x").expect("a reply"), "OK user@x");
    let pid = show(&lab, "socketmap", "MainPID");

    lab.write(
        "/etc/postgate/config.toml",
        &CONFIG.replace("8080/echo", "8080/users"),
    );
    lab.sh("systemctl reload postgate-socketmap.service");
    until_said(&lab, "postgate-socketmap", "reload: done");
    lab.until("systemctl -q is-active postgate-socketmap.service");
    assert_eq!(
        postfix
            .ask("echo", "user@x")
            .expect("a reply on the same connection"),
        "OK 1"
    );

    let bad = CONFIG
        .replace("request-timeout", "requst-timeout")
        .replace("http://", "htp://");
    lab.write("/etc/postgate/config.toml", &bad);
    lab.sh("systemctl reload postgate-socketmap.service");
    for problem in ["requst-timeout", "neither http nor https"] {
        until_said(&lab, "postgate-socketmap", problem);
    }
    lab.until("systemctl -q is-active postgate-socketmap.service");
    assert_eq!(postfix.ask("echo", "user@x").expect("a reply"), "OK 1");
    assert_eq!(ask(&lab, "echo", "user@x"), "OK 1");
    assert_eq!(show(&lab, "socketmap", "MainPID"), pid);
}

fn a_bad_configuration_at_start_is_served_as_soon_as_it_is_mended(system: System) {
    let Some(lab) = lab(system, &CONFIG.replace("http://", "htp://")) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    let mut postfix = asking(&lab, "echo", "patient");
    // Started anew for the question that waits, but not in a rush: the third start is seconds away.
    assert!(refused(&lab, "socketmap", 2) <= 3);
    lab.sh("systemctl -q is-active postgate-socketmap.socket");
    assert!(messages(&lab, "socketmap").contains("neither http nor https"));

    lab.write("/etc/postgate/config.toml", CONFIG);
    assert_eq!(postfix.receive().expect("a reply at last"), "OK patient");
}

fn a_restart_refuses_nobody(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    let over = AtomicBool::new(false);
    let answered = thread::scope(|scope| {
        let asking: Vec<_> = (0..4)
            .map(|asker| {
                scope.spawn({
                    let (lab, over) = (&lab, &over);
                    move || stream_of_lookups(lab, over, asker)
                })
            })
            .collect();
        let restarted = lab.run(&[
            "bash",
            "-c",
            "for i in 1 2 3 4 5; do systemctl restart postgate-socketmap.service || exit 1; done",
        ]);
        over.store(true, Ordering::Relaxed);
        assert_eq!(restarted.status, Some(0), "{restarted:?}");
        asking
            .into_iter()
            .map(|asker| asker.join().expect("every lookup answered"))
            .sum::<u32>()
    });
    assert!(answered > 20, "only {answered} lookups");
}

/// As Postfix does: a connection that is closed in its face is opened anew, once.
fn stream_of_lookups(lab: &Lab, over: &AtomicBool, asker: u32) -> u32 {
    let mut answered = 0;
    let mut connection = None;
    while !over.load(Ordering::Relaxed) {
        let key = format!("{asker}-{answered}@x");
        let mut reply = Err(io::Error::other("not asked"));
        for _ in 0..2 {
            let mut postfix = connection
                .take()
                .unwrap_or_else(|| connect(lab).expect("not refused"));
            reply = postfix.ask("echo", &key);
            if reply.is_ok() {
                // Every other question over a connection of its own.
                connection = (answered % 2 == 0).then_some(postfix);
                break;
            }
        }
        assert_eq!(
            reply.expect("an answer at the second try"),
            format!("OK {key}")
        );
        answered += 1;
    }
    answered
}

fn a_stop_answers_what_was_asked(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    let mut idle = connect(&lab).expect("a connection");
    assert_eq!(idle.ask("echo", "a").expect("a reply"), "OK a");
    let mut asked = asking(&lab, "wait", "slow");
    // Opening the pipe waits until the question has reached the backend.
    lab.sh("exec 3>/tmp/go
        systemctl stop --no-block postgate-socketmap.service 2>/dev/null
        state() { systemctl show -p SubState --value postgate-socketmap; }
        until [ $(state) = stop-sigterm ]; do sleep 0.05; done");
    // The pipe was closed with the shell, so the backend has answered.
    assert_eq!(asked.receive().expect("the answer"), "OK slow");
    assert_eq!(
        idle.receive().expect_err("closed").kind(),
        io::ErrorKind::UnexpectedEof
    );
    lab.until("[ $(systemctl show -p ActiveState --value postgate-socketmap) = inactive ]");
    assert_eq!(show(&lab, "socketmap", "Result"), "success");
    assert_eq!(show(&lab, "socketmap", "ExecMainStatus"), "0");
    assert_eq!(ask(&lab, "echo", "b"), "OK b");
}

fn a_stop_does_not_wait_longer_than_the_drain(system: System) {
    let Some(lab) = lab(
        system,
        &format!("{CONFIG}\n[server]\ndrain-timeout = \"1s\"\n"),
    ) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    lab.backend_says("echo", "hang");
    let _asked = asking(&lab, "echo", "never");
    until_said(&lab, "lab-backend", "never");
    lab.sh("timeout 4 systemctl stop postgate-socketmap.service 2>/dev/null");
    assert_eq!(show(&lab, "socketmap", "Result"), "success");
    assert_eq!(show(&lab, "socketmap", "ExecMainStatus"), "0");
}

fn the_watchdog_is_fed_and_bites(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    drop_in(&lab, "socketmap", "WatchdogSec=1s\nTimeoutAbortSec=1s");
    lab.sh("systemctl start postgate-socketmap.socket");
    ask(&lab, "echo", "a");
    let fed = || {
        show(&lab, "socketmap", "WatchdogTimestampMonotonic")
            .parse::<u64>()
            .expect("microseconds")
    };
    lab.until(&format!(
        "[ $(systemctl show -p WatchdogTimestampMonotonic --value postgate-socketmap) -gt {} ]",
        fed() + 2_500_000
    ));
    assert_eq!(show(&lab, "socketmap", "NRestarts"), "0");

    let pid = show(&lab, "socketmap", "MainPID");
    lab.sh(&format!("kill -STOP {pid}"));
    assert_eq!(ask(&lab, "echo", "b"), "OK b");
    assert_eq!(show(&lab, "socketmap", "NRestarts"), "1");
}

fn a_resolver_that_does_not_answer_holds_nothing_up(system: System) {
    const NAMES: usize = 20;
    let mut config = CONFIG.to_owned();
    for number in 0..NAMES {
        config += &format!(
            "[socketmap.dead-{number}]\ntarget = \"http://dead-{number}.example.org\"\n\
             request-timeout = \"1s\"\n"
        );
    }
    let Some(lab) = lab(system, &config) else {
        return;
    };
    // A name server that takes every question and says nothing, for longer than any test.
    lab.write(
        "/etc/systemd/system/silent.socket",
        "[Socket]\nListenDatagram=127.0.0.1:53\n",
    );
    lab.write(
        "/etc/systemd/system/silent.service",
        "[Service]\nExecStart=/usr/bin/sleep infinity\n",
    );
    lab.sh("systemctl daemon-reload; systemctl start silent.socket; rm -f /etc/resolv.conf");
    lab.write(
        "/etc/resolv.conf",
        "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n",
    );
    drop_in(&lab, "socketmap", "WatchdogSec=2s");
    lab.sh("systemctl start postgate-socketmap.socket");
    let mut dead: Vec<_> = (0..NAMES)
        .map(|number| asking(&lab, &format!("dead-{number}"), "key"))
        .collect();
    for postfix in &mut dead {
        let reply = postfix.receive().expect("a reply");
        assert_eq!(reply, "TIMEOUT backend timed out");
    }
    let pid = show(&lab, "socketmap", "MainPID");
    let waiting = format!("grep -lx resolver /proc/{pid}/task/*/comm | wc -l");
    assert_eq!(lab.sh(&waiting).trim(), "8");
    assert_eq!(ask(&lab, "echo", "user@x"), "OK user@x");

    lab.write(
        "/etc/postgate/config.toml",
        &config.replace("8080/echo", "8080/users"),
    );
    lab.sh("systemctl reload postgate-socketmap.service");
    until_said(&lab, "postgate-socketmap", "reload: done");
    assert_eq!(ask(&lab, "echo", "user@x"), "OK 1");
    assert_eq!(show(&lab, "socketmap", "MainPID"), pid);
    let asked = "timeout 60 postgate-socketmap --query dead-0 key 2>/dev/null; echo $?";
    assert_eq!(lab.sh(asked).trim(), "75");
}

fn a_program_at_its_memory_limit_takes_no_other_along(system: System) {
    let config = CONFIG.replace(
        "8080/echo\"\n[socketmap.wait]",
        "8080/large\"\ncache = { ttl = \"1h\", max-bytes = \"1GiB\" }\n[socketmap.wait]",
    );
    let Some(lab) = lab(system, &config) else {
        return;
    };
    drop_in(
        &lab,
        "socketmap",
        "MemoryMax=48M\nTasksMax=32\nCPUQuota=80%\nLimitNOFILE=4096",
    );
    lab.sh("systemctl start postgate-{socketmap,policy}.socket postgate-tcp-lookup@9001.socket");
    let large = "x".repeat(90_000);
    lab.backend_says("large", &format!("200 application/json\n\"{large}\""));
    assert_eq!(ask(&lab, "echo", "first"), format!("OK {large}"));
    let pid = show(&lab, "socketmap", "MainPID");
    // Less than two processors are worth one thread that serves.
    assert_eq!(lab.sh(&format!("ls /proc/{pid}/task | wc -l")).trim(), "1");

    let mut postfix = connect(&lab).expect("a connection");
    let fatal = (0..2000).find(|n| postfix.ask("echo", &format!("{n}")).is_err());
    assert!(fatal.is_some(), "no limit");
    assert_eq!(tcp(&lab, 9001, "a"), "200 a");
    assert_eq!(policy(&lab, "postgate-policy"), "DUNNO");

    // The program restarts by itself, and the waiting peers get their replies.
    assert_eq!(ask(&lab, "echo", "again"), format!("OK {large}"));
    assert_ne!(show(&lab, "socketmap", "MainPID"), pid);
    assert_eq!(show(&lab, "socketmap", "NRestarts"), "1");
    for other in ["policy", "tcp-lookup"] {
        assert_eq!(show(&lab, other, "NRestarts"), "0");
    }
}
