//! Postgate as it is installed, under real systemd: activation, reload, restart, drain, watchdog,
//! credentials, the journal.

mod lab;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lab::{Lab, System, lab, on_each_system};
use serde_json::Value;

const SOCKETMAP: &str = "/var/spool/postfix/private/postgate-socketmap";

const CONFIG: &str = r#"
[http]
request-timeout = "5s"

[socketmap.echo]
target = "http://127.0.0.1:8080/echo"
[socketmap.wait]
target = "http://127.0.0.1:8080/wait"

[tcp-lookup.first]
target = "http://127.0.0.1:8080/echo"
socket = "9001"
[tcp-lookup.second]
target = "http://127.0.0.1:8080/access/{key}"
socket = "9002"

[policy.policy]
target = "http://127.0.0.1:8080/policy"
[policy.submission]
target = "http://127.0.0.1:8080/policy"
on-temporary = "DEFER_IF_PERMIT 4.3.0 submission"
"#;

on_each_system! {
    the_units_are_clean,
    the_first_question_starts_the_service,
    a_stopped_service_leaves_its_socket_and_starts_again,
    every_socket_finds_its_table,
    a_socket_is_added_while_the_service_rests,
    only_postfix_and_root_reach_the_sockets,
    the_folder_keeps_its_mode_where_a_drop_in_says,
    a_socket_is_where_and_whose_a_drop_in_says,
    at_boot_the_sockets_are_there_before_postfix_and_wait_for_nobody,
    a_socket_that_fits_no_table_is_said,
    a_start_without_sockets_or_with_a_wrong_option_is_refused_once,
    it_runs_without_any_privilege,
    it_writes_only_to_folders_of_its_own,
    the_journal_has_the_fields,
    at_debug_every_request_is_a_record,
    a_reload_takes_a_good_file_and_keeps_the_old_one_for_a_bad,
    a_bad_configuration_at_start_is_served_as_soon_as_it_is_mended,
    a_restart_refuses_nobody,
    a_stop_answers_what_was_asked,
    a_stop_does_not_wait_longer_than_the_drain,
    the_watchdog_is_fed_and_bites,
    a_resolver_that_does_not_answer_holds_nothing_up,
    a_credential_comes_from_systemd,
    a_program_at_its_memory_limit_takes_no_other_along,
    the_journal_finds_a_mail_by_its_queue_id,
    no_flood_from_outside_fills_the_journal,
    a_secret_is_renewed_by_reload_or_restart,
    a_file_in_another_place_takes_a_line_in_a_drop_in,
}

fn the_units_are_clean(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    let said = lab.sh("cd /usr/lib/systemd/system
        systemd-analyze verify --recursive-errors=yes 2>&1 postgate-*.service \
            postgate-socketmap.socket postgate-policy.socket \
            postgate-{policy,socketmap}@submission.socket postgate-tcp-lookup@9001.socket");
    assert_eq!(said, "");
    // Only IPAddressDeny= would make it less, and that depends on where the backend is.
    lab.sh("for program in tcp-lookup socketmap policy; do
            systemd-analyze --no-pager --offline=yes --threshold=10 \
                security postgate-$program.service || exit 1
        done");
}

fn the_first_question_starts_the_service(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl enable --now postgate-socketmap.socket 2>&1");
    assert_eq!(
        lab.sh("systemctl is-enabled postgate-socketmap.socket")
            .trim(),
        "enabled"
    );
    assert_eq!(
        lab.sh(&format!("stat -c '%U %a' {SOCKETMAP}")).trim(),
        "root 666"
    );
    assert_eq!(show(&lab, "socketmap", "ActiveState"), "inactive");

    let mut postfix = Socketmap::connect(&lab).expect("a connection");
    assert_eq!(postfix.ask("echo", "a b@c").expect("a reply"), "OK a b@c");
    assert_eq!(
        postfix.ask("echo", "missing").expect("a reply"),
        "NOTFOUND "
    );
    assert_eq!(
        postfix.ask("nosuch", "x").expect("a reply"),
        "PERM unknown map"
    );

    lab.until("systemctl -q is-active postgate-socketmap.service");
    assert_eq!(show(&lab, "socketmap", "Type"), "notify");
    assert_ne!(show(&lab, "socketmap", "StatusText"), "");
    assert_eq!(show(&lab, "socketmap", "NRestarts"), "0");
}

fn a_stopped_service_leaves_its_socket_and_starts_again(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    ask(&lab, "echo", "a");
    lab.sh("systemctl stop postgate-socketmap.service 2>/dev/null");
    assert_eq!(show(&lab, "socketmap", "ActiveState"), "inactive");
    lab.sh("systemctl -q is-active postgate-socketmap.socket");
    assert_eq!(ask(&lab, "echo", "b"), "OK b");

    let killed = show(&lab, "socketmap", "MainPID");
    lab.sh(&format!("kill -KILL {killed}"));
    assert_eq!(ask(&lab, "echo", "c"), "OK c");
    assert_ne!(show(&lab, "socketmap", "MainPID"), killed);
}

fn every_socket_finds_its_table(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh(
        "systemctl start postgate-tcp-lookup@900{1,2}.socket postgate-policy{,@submission}.socket",
    );
    assert_eq!(tcp(&lab, 9001, "closed%20down"), "200 closed%20down");
    assert_eq!(tcp(&lab, 9002, "closed"), "200 REJECT%20mailbox%20closed");
    assert_eq!(tcp(&lab, 9002, "open"), "500 not%20found");

    lab.backend_says("policy", "500 text/plain\nOK");
    assert!(policy(&lab, "postgate-policy").starts_with("action=DEFER_IF_PERMIT 4.3.0 Policy"));
    assert_eq!(
        policy(&lab, "postgate-policy-submission"),
        "action=DEFER_IF_PERMIT 4.3.0 submission"
    );
}

fn a_socket_is_added_while_the_service_rests(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl start postgate-tcp-lookup@9001.socket");
    assert_eq!(tcp(&lab, 9001, "a"), "200 a");
    // systemd hands over sockets at start only, and says so.
    let early = lab.run(&["systemctl", "start", "postgate-tcp-lookup@9002.socket"]);
    assert_ne!(early.status, Some(0));
    lab.sh("systemctl stop postgate-tcp-lookup.service 2>/dev/null
        systemctl start postgate-tcp-lookup@9002.socket");
    assert_eq!(tcp(&lab, 9001, "b"), "200 b");
    assert_eq!(tcp(&lab, 9002, "closed"), "200 REJECT%20mailbox%20closed");
}

fn only_postfix_and_root_reach_the_sockets(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    for (unit, path) in [
        ("postgate-socketmap.socket", "postgate-socketmap"),
        ("postgate-socketmap@x.socket", "postgate-socketmap-x"),
        ("postgate-policy.socket", "postgate-policy"),
        ("postgate-policy@x.socket", "postgate-policy-x"),
    ] {
        lab.sh(&format!("systemctl start {unit}"));
        let owners = lab.sh(&format!(
            "cd /var/spool/postfix/private; stat -c '%U:%G %a' . {path}"
        ));
        assert_eq!(owners, "postfix:root 700\nroot:root 666\n", "{unit}");
        // A user or group here is a chown by root of a path that postfix can replace by a link.
        let owner = lab.sh(&format!(
            "systemctl show -p SocketUser -p SocketGroup {unit}"
        ));
        assert_eq!(owner, "SocketUser=\nSocketGroup=\n", "{unit}");
    }
    let asked_by = |user: &str| {
        lab.run(&[
            "setpriv",
            &format!("--reuid={user}"),
            "--clear-groups",
            "postmap",
            "-q",
            "a@b",
            &format!("socketmap:unix:{SOCKETMAP}:echo"),
        ])
    };
    let said = asked_by("postfix");
    assert_eq!(said.out, "a@b\n", "{said:?}");
    let said = asked_by("nobody");
    assert_eq!(said.out, "");
    assert!(said.err.contains("Permission denied"), "{said:?}");
}

fn the_folder_keeps_its_mode_where_a_drop_in_says(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    let after_a_start = || {
        lab.sh(
            "cd /var/spool/postfix; install -d -o postfix -g mail -m 0710 private
            systemctl start postgate-socketmap.socket; stat -c '%U:%G %a' private
            systemctl stop postgate-socketmap.socket",
        )
    };
    socket_drop_in(&lab, "postgate-socketmap.socket", "ExecStartPre=");
    assert_eq!(after_a_start(), "postfix:mail 710\n");
    lab.sh("rm -r /etc/systemd/system/postgate-socketmap.socket.d; systemctl daemon-reload");
    assert_eq!(after_a_start(), "postfix:root 700\n");
}

fn a_socket_is_where_and_whose_a_drop_in_says(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    socket_drop_in(
        &lab,
        "postgate-socketmap.socket",
        "ListenStream=\nListenStream=127.0.0.1:9100",
    );
    socket_drop_in(
        &lab,
        "postgate-socketmap@.socket",
        "ExecStartPre=\nListenStream=\nListenStream=/run/postgate/socketmap
        SocketUser=root\nSocketGroup=postfix\nSocketMode=0660",
    );
    socket_drop_in(
        &lab,
        "postgate-policy@second.socket",
        "ExecStartPre=
        ExecStartPre=/usr/bin/install -d -o postfix -g root -m 0700 /var/spool/postfix-2/private
        ListenStream=
        ListenStream=/var/spool/postfix-2/private/policy",
    );
    lab.sh(
        "systemctl start postgate-socketmap.socket postgate-socketmap@second.socket \
            postgate-policy@second.socket",
    );
    assert_eq!(
        lab.sh("cd /var/spool/postfix-2; stat -c '%U:%G %a' . private private/policy"),
        "root:root 755\npostfix:root 700\nroot:root 666\n"
    );
    assert_eq!(
        lab.sh(&format!(
            "stat -c '%U:%G %a' /run/postgate/socketmap; ls {SOCKETMAP}* 2>/dev/null || true"
        )),
        "root:postfix 660\n"
    );
    for socket in ["inet:127.0.0.1:9100", "unix:/run/postgate/socketmap"] {
        let found = lab.sh(&format!("postmap -q a@b socketmap:{socket}:echo"));
        assert_eq!(found, "a@b\n", "{socket}");
    }
    // Opened anew, which systemd does while the service rests.
    lab.sh(
        "systemctl stop postgate-socketmap.socket postgate-socketmap.service 2>/dev/null
        systemctl start postgate-socketmap.socket
        postmap -q a@b socketmap:inet:127.0.0.1:9100:echo",
    );
}

fn at_boot_the_sockets_are_there_before_postfix_and_wait_for_nobody(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    let unit = |unit: &str, property: &str| {
        lab.sh(&format!("systemctl show -p {property} --value {unit}"))
    };
    for socket in [
        "postgate-socketmap.socket",
        "postgate-socketmap@x.socket",
        "postgate-policy.socket",
        "postgate-policy@x.socket",
        "postgate-tcp-lookup@9001.socket",
    ] {
        let before = unit(socket, "Before");
        assert!(before.contains("postfix@-.service"), "{socket}: {before}");
        assert!(before.contains("sockets.target"), "{socket}: {before}");
        assert!(!unit(socket, "After").contains("network"), "{socket}");
    }
    for program in ["socketmap", "policy", "tcp-lookup"] {
        let service = format!("postgate-{program}.service");
        for property in ["Requires", "Requisite", "BindsTo", "Wants"] {
            let needed = unit(&service, property);
            for other in needed.split_whitespace() {
                assert!(
                    other.ends_with(".mount")
                        || other.ends_with(".slice")
                        || other == "sysinit.target",
                    "{service}: {property}={other}"
                );
            }
        }
        assert!(!unit(&service, "After").contains("network-online"));
    }
}

fn a_socket_that_fits_no_table_is_said(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl start postgate-tcp-lookup@9003.socket; exec 3<>/dev/tcp/127.0.0.1/9003");
    refused(&lab, "tcp-lookup", 1);
    assert!(messages(&lab, "tcp-lookup").contains("9003"));
}

fn a_start_without_sockets_or_with_a_wrong_option_is_refused_once(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    assert_ne!(
        lab.run(&["systemctl", "start", "postgate-policy.service"])
            .status,
        Some(0)
    );
    assert_eq!(show(&lab, "policy", "ExecMainStatus"), "69");
    assert_eq!(show(&lab, "policy", "SubState"), "failed");
    assert!(messages(&lab, "policy").contains("FileDescriptorName="));

    drop_in(
        &lab,
        "policy",
        "ExecStart=\nExecStart=/usr/libexec/postgate/policy --wrong",
    );
    lab.run(&["systemctl", "start", "postgate-policy.service"]);
    assert_eq!(show(&lab, "policy", "ExecMainStatus"), "64");
    assert_eq!(show(&lab, "policy", "SubState"), "failed");
}

fn it_runs_without_any_privilege(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    assert_eq!(
        lab.sh("stat -c '%U:%G %a' /etc/postgate/config.toml")
            .trim(),
        "root:postgate 640"
    );
    lab.sh("systemctl start postgate-socketmap.socket");
    ask(&lab, "echo", "a");
    let status = lab.sh("cat /proc/$(systemctl show -p MainPID --value postgate-socketmap)/status");
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .expect("a field");
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    let dynamic = 61_184..=65_519;
    assert!(
        dynamic.contains(&field("Uid:").parse().expect("a number")),
        "{status}"
    );
    assert_eq!(field("CapEff:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");

    // Nor does it see the mail, the homes or what others serve.
    let seen = lab.sh(
        "cd /proc/$(systemctl show -p MainPID --value postgate-socketmap)/root
        ls . var
        ls run/credentials etc/shadow home srv 2>/dev/null || true",
    );
    for hidden in ["home", "srv", "boot", "spool"] {
        assert!(!seen.lines().any(|line| line == hidden), "{seen}");
    }
    assert!(
        seen.contains("\nvar\n") && seen.contains("\nvar:\ntmp\n"),
        "{seen}"
    );
}

fn it_writes_only_to_folders_of_its_own(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    for (program, socket) in [
        ("tcp-lookup", "postgate-tcp-lookup@9001.socket"),
        ("socketmap", "postgate-socketmap.socket"),
        ("policy", "postgate-policy.socket"),
    ] {
        let writable = lab.sh(&format!(
            "systemctl start {socket}
            systemctl start postgate-{program}.service
            pid=$(systemctl show -p MainPID --value postgate-{program}.service)
            id=$(stat -c '--reuid=%u --regid=%g' /proc/$pid)
            nsenter -t $pid -m -r setpriv $id --clear-groups \
                find / -path /proc -prune -o -type d -writable -print 2>/dev/null | sort"
        ));
        assert_eq!(writable, "/tmp\n/var/tmp\n", "{program}");
    }
}

fn the_journal_has_the_fields(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    assert_eq!(
        ask(&lab, "echo", "somebody@lab.test"),
        "OK somebody@lab.test"
    );
    lab.backend_says("echo", "500 text/plain\nout of order");
    assert_eq!(
        ask(&lab, "echo", "somebody@lab.test"),
        "TEMP backend answered 500"
    );
    until_said(&lab, "postgate-socketmap POSTGATE_OUTCOME=temporary", ".");

    let records = journal(&lab, "socketmap");
    let judged: Vec<_> = records
        .iter()
        .filter(|record| !record["POSTGATE_OUTCOME"].is_null())
        .collect();
    let [record] = judged.as_slice() else {
        panic!("one warning, not {judged:#?}")
    };
    assert_eq!(record["_TRANSPORT"], "journal");
    assert_eq!(record["SYSLOG_IDENTIFIER"], "postgate-socketmap");
    assert_eq!(record["PRIORITY"], "4");
    assert_eq!(record["POSTGATE_TABLE"], "echo");
    assert_eq!(record["POSTGATE_OUTCOME"], "temporary");
    assert_eq!(record["POSTGATE_REASON"], "backend answered 500");
    record["POSTGATE_DURATION_MS"]
        .as_str()
        .expect("text")
        .parse::<f64>()
        .expect("a number");
    let id = record["POSTGATE_REQUEST_ID"].as_str().expect("text");
    assert!(
        lab.sh("journalctl -u lab-backend -o cat")
            .contains(&format!("asked {id} /echo"))
    );
    assert!(
        !messages(&lab, "socketmap").contains("somebody"),
        "keys are for debug"
    );
}

fn at_debug_every_request_is_a_record(system: System) {
    let Some(lab) = lab(system, &format!("{CONFIG}\n[log]\nlevel = \"debug\"\n")) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    ask(&lab, "echo", "somebody@lab.test");
    ask(&lab, "echo", "missing@lab.test");
    until_said(&lab, "postgate-socketmap POSTGATE_OUTCOME=not-found", ".");
    let records = journal(&lab, "socketmap");
    let found: Vec<_> = records
        .iter()
        .filter(|record| record["POSTGATE_OUTCOME"] == "found")
        .collect();
    let [found] = found.as_slice() else {
        panic!("one record, not {found:#?}")
    };
    assert_eq!(found["PRIORITY"], "7");
    assert!(
        found["MESSAGE"]
            .as_str()
            .expect("text")
            .contains("somebody@lab.test"),
        "{found:#?}"
    );
}

fn a_reload_takes_a_good_file_and_keeps_the_old_one_for_a_bad(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    let mut postfix = Socketmap::connect(&lab).expect("a connection");
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
    let mut postfix = Socketmap::connect(&lab).expect("a connection");
    postfix
        .send("echo", "patient")
        .expect("the socket takes it");
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
                .unwrap_or_else(|| Socketmap::connect(lab).expect("not refused"));
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
    let mut idle = Socketmap::connect(&lab).expect("a connection");
    assert_eq!(idle.ask("echo", "a").expect("a reply"), "OK a");
    let mut asked = Socketmap::connect(&lab).expect("a connection");
    asked.send("wait", "slow").expect("sent");
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
    let mut asked = Socketmap::connect(&lab).expect("a connection");
    asked.send("echo", "never").expect("sent");
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
        .map(|number| {
            let mut postfix = Socketmap::connect(&lab).expect("a connection");
            let sent = postfix.send(&format!("dead-{number}"), "key");
            sent.expect("sent");
            postfix
        })
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

fn a_credential_comes_from_systemd(system: System) {
    let token = r#"
        [socketmap.token]
        target = "http://127.0.0.1:8080/token"
        auth-token = { credential = "api-token" }
        [log]
        level = "debug"
    "#;
    let config = format!("{CONFIG}{token}");
    let Some(lab) = lab(system, &config) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    let mut postfix = Socketmap::connect(&lab).expect("a connection");
    postfix.send("token", "x").expect("sent");
    refused(&lab, "socketmap", 1);
    assert!(messages(&lab, "socketmap").contains("api-token"));

    lab.sh("(umask 077; echo s3cret-t0ken > /etc/postgate/secret)");
    drop_in(
        &lab,
        "socketmap",
        "LoadCredential=api-token:/etc/postgate/secret",
    );
    assert_eq!(postfix.receive().expect("a reply"), "OK s3cret-t0ken");
    assert!(!messages(&lab, "socketmap").contains("s3cret"));
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

    let mut postfix = Socketmap::connect(&lab).expect("a connection");
    let fatal = (0..2000).find(|n| postfix.ask("echo", &format!("{n}")).is_err());
    assert!(fatal.is_some(), "no limit");
    assert_eq!(tcp(&lab, 9001, "a"), "200 a");
    assert_eq!(policy(&lab, "postgate-policy"), "action=DUNNO");

    // The one who is ill comes back by itself, to those who wait as well.
    assert_eq!(ask(&lab, "echo", "again"), format!("OK {large}"));
    assert_ne!(show(&lab, "socketmap", "MainPID"), pid);
    assert_eq!(show(&lab, "socketmap", "NRestarts"), "1");
    for other in ["policy", "tcp-lookup"] {
        assert_eq!(show(&lab, other, "NRestarts"), "0");
    }
}

fn the_journal_finds_a_mail_by_its_queue_id(system: System) {
    let config = format!("{CONFIG}breaker = {{ failures = 2, pause = \"500ms\" }}\n");
    let Some(lab) = lab(system, &config) else {
        return;
    };
    lab.sh("systemctl start postgate-policy@submission.socket");
    let socket = "postgate-policy-submission";
    assert_eq!(policy(&lab, socket), "action=DUNNO");
    lab.backend_says("policy", "503 text/plain\nclosed");
    for _ in 0..2 {
        assert_eq!(
            policy(&lab, socket),
            "action=DEFER_IF_PERMIT 4.3.0 submission"
        );
    }
    until_said(&lab, "postgate-policy", "down");
    lab.backend_is_well();
    // Asked again after the pause.
    lab.sh("sleep 0.6");
    assert_eq!(policy(&lab, socket), "action=DUNNO");

    // By queue id, at debug; a reload turns that on, and the same process goes on.
    let pid = show(&lab, "policy", "MainPID");
    let loud = format!("{config}[log]\nlevel = \"debug\"\n");
    lab.write("/etc/postgate/config.toml", &loud);
    lab.sh("systemctl reload postgate-policy");
    until_said(&lab, "postgate-policy", "reload: done");
    assert_eq!(policy(&lab, socket), "action=DUNNO");
    until_said(
        &lab,
        "postgate-policy POSTGATE_QUEUE_ID=4XyZ POSTGATE_OUTCOME=found",
        ".",
    );
    assert_eq!(show(&lab, "policy", "MainPID"), pid);

    let found = lab.sh("journalctl -o json --since @$(cat /run/began) \
        -u postgate-policy POSTGATE_OUTCOME=temporary");
    let [record] = &*found.lines().collect::<Vec<_>>() else {
        panic!("{found}")
    };
    let record: Value = serde_json::from_str(record).expect("JSON");
    for (field, value) in [
        ("PRIORITY", "4"),
        ("POSTGATE_TABLE", "submission"),
        ("POSTGATE_REASON", "backend answered 503"),
        ("POSTGATE_QUEUE_ID", "4XyZ"),
    ] {
        assert_eq!(record[field], value, "{record:#?}");
    }
    let id = record["POSTGATE_REQUEST_ID"].as_str().expect("text");
    let asked = lab.sh("journalctl -u lab-backend -o cat");
    assert!(asked.contains(&format!("asked {id} /policy")), "{asked}");

    let records = journal(&lab, "policy");
    for event in [
        "ready: ",
        "reload: reading",
        "reload: done",
        "submission: down: ",
        "submission: up: ",
    ] {
        let records: Vec<_> = records
            .iter()
            .filter(|record| {
                record["MESSAGE"]
                    .as_str()
                    .is_some_and(|text| text.starts_with(event))
            })
            .collect();
        let [record] = records.as_slice() else {
            panic!("{event}: {records:#?}")
        };
        assert_eq!(record["PRIORITY"], "6", "{event}");
    }
}

fn no_flood_from_outside_fills_the_journal(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    assert_eq!(ask(&lab, "echo", "a"), "OK a");
    let before = journal(&lab, "socketmap").len();
    let malformed = ["x", "99999999999:", "3:abc;", "70000:", "5:"];
    for n in 0..2000 {
        let mut peer = Socketmap::connect(&lab).expect("a connection");
        peer.0
            .write_all(malformed[n % malformed.len()].as_bytes())
            .expect("sent");
    }
    lab.backend_says("echo", "500 text/plain\nout of order");
    let mut postfix = Socketmap::connect(&lab).expect("a connection");
    for n in 0..2000 {
        let reply = postfix.ask("echo", &format!("{n}")).expect("a reply");
        assert_eq!(reply, "TEMP backend answered 500");
        let reply = postfix.ask(&format!("map{n}"), "key").expect("a reply");
        assert_eq!(reply, "PERM unknown map");
    }
    let lines = journal(&lab, "socketmap").len() - before;
    assert!(
        (2..=20).contains(&lines),
        "{lines}: {}",
        messages(&lab, "socketmap")
    );
}

fn a_secret_is_renewed_by_reload_or_restart(system: System) {
    let config = r#"
        [socketmap.unit]
        target = "http://127.0.0.1:8080/token"
        auth-token = { credential = "api-token" }
        [socketmap.file]
        target = "http://127.0.0.1:8080/token"
        auth-token = { file = "/etc/postgate/secret" }
        [policy.main]
        target = "http://127.0.0.1:8080/policy"
        auth-token = { credential = "api-token" }
    "#;
    let Some(lab) = lab(system, config) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    let write = |secret: &str| {
        lab.sh(&format!(
            "echo {secret} > /etc/postgate/secret
            chgrp postgate /etc/postgate/secret; chmod 640 /etc/postgate/secret
            printf 'sealed-{secret}' | systemd-creds encrypt --name=api-token - - \\
                > /etc/systemd/system/postgate-socketmap.service.d/sealed 2>/dev/null"
        ));
    };
    drop_in(
        &lab,
        "socketmap",
        "LoadCredentialEncrypted=api-token:/etc/systemd/system/postgate-socketmap.service.d/sealed",
    );
    write("one");
    assert_eq!(ask(&lab, "unit", "x"), "OK sealed-one");
    assert_eq!(ask(&lab, "file", "x"), "OK one");
    write("two");
    lab.sh("systemctl reload postgate-socketmap");
    until_said(&lab, "postgate-socketmap", "reload: done");
    // systemd copies credentials when the program starts.
    assert_eq!(ask(&lab, "file", "x"), "OK two");
    assert_eq!(ask(&lab, "unit", "x"), "OK sealed-one");
    lab.sh("systemctl restart postgate-socketmap");
    assert_eq!(ask(&lab, "unit", "x"), "OK sealed-two");

    // An operator asks with the unit's credentials.
    assert_eq!(lab.sh("postgate-socketmap --check 2>/dev/null"), "ok\n");
    let alone = lab.run(&["postgate-socketmap", "--query", "unit", "x"]);
    assert_eq!(alone.status, Some(78), "{alone:?}");
    let asked = lab.sh("systemd-run -qP -p DynamicUser=yes -p Group=postgate \
        -p LoadCredential=api-token:/etc/postgate/secret postgate-socketmap --query unit x");
    assert_eq!(asked, "two\n");
    let asked = lab.sh("systemd-run -qP -p DynamicUser=yes -p Group=postgate \
        -p LoadCredentialEncrypted=api-token:/etc/systemd/system/postgate-socketmap.service.d/sealed \
        postgate-policy --query main <<< sender=reject@elsewhere.test");
    assert_eq!(asked, "REJECT you are on the list\n");
}

fn a_file_in_another_place_takes_a_line_in_a_drop_in(system: System) {
    let config = r#"
        [socketmap.file]
        target = "http://127.0.0.1:8080/token"
        auth-token = { file = "/srv/postgate-test/token" }
    "#;
    let Some(lab) = lab(system, config) else {
        return;
    };
    lab.sh(
        "mkdir -p /srv/postgate-test; echo found > /srv/postgate-test/token
        systemctl start postgate-socketmap.socket",
    );
    let mut postfix = Socketmap::connect(&lab).expect("a connection");
    postfix.send("file", "x").expect("sent");
    refused(&lab, "socketmap", 1);
    drop_in(&lab, "socketmap", "BindReadOnlyPaths=/srv/postgate-test");
    assert_eq!(postfix.receive().expect("a reply"), "OK found");
}

/// Waits until a program has refused its configuration so many times; returns how many it were.
fn refused(lab: &Lab, program: &str, times: u32) -> u32 {
    let count = format!(
        "journalctl -u postgate-{program} --since @$(cat /run/began) -o cat | grep -c status=78"
    );
    lab.until(&format!("[ $({count}) -ge {times} ]"));
    lab.sh(&count).trim().parse().expect("a count")
}

struct Socketmap(UnixStream);

impl Socketmap {
    fn connect(lab: &Lab) -> io::Result<Self> {
        let stream = UnixStream::connect(lab.path(SOCKETMAP))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self(stream))
    }

    fn ask(&mut self, map: &str, key: &str) -> io::Result<String> {
        self.send(map, key)?;
        self.receive()
    }

    fn send(&mut self, map: &str, key: &str) -> io::Result<()> {
        let request = format!("{map} {key}");
        self.0
            .write_all(format!("{}:{request},", request.len()).as_bytes())
    }

    fn receive(&mut self) -> io::Result<String> {
        let mut length = String::new();
        loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            if byte[0] == b':' {
                break;
            }
            length.push(char::from(byte[0]));
        }
        let mut payload = vec![0; length.parse::<usize>().expect("a length") + 1];
        self.0.read_exact(&mut payload)?;
        assert_eq!(payload.pop(), Some(b','));
        Ok(String::from_utf8(payload).expect("UTF-8"))
    }
}

/// One question, one connection.
fn ask(lab: &Lab, map: &str, key: &str) -> String {
    Socketmap::connect(lab)
        .and_then(|mut postfix| postfix.ask(map, key))
        .expect("a reply")
}

fn tcp(lab: &Lab, port: u16, key: &str) -> String {
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; echo 'get {key}' >&3; timeout 20 head -n 1 <&3"
    );
    lab.sh(&script).trim_end().to_owned()
}

fn policy(lab: &Lab, socket: &str) -> String {
    let path = lab.path(&format!("/var/spool/postfix/private/{socket}"));
    let mut stream = UnixStream::connect(path).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("an open socket");
    stream
        .write_all(b"request=smtpd_access_policy\nsender=a@b\nqueue_id=4XyZ\n\n")
        .expect("sent");
    let mut reply = Vec::new();
    while !reply.ends_with(b"\n\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a reply");
        reply.push(byte[0]);
    }
    String::from_utf8(reply)
        .expect("UTF-8")
        .trim_end()
        .to_owned()
}

fn show(lab: &Lab, program: &str, property: &str) -> String {
    lab.sh(&format!(
        "systemctl show -p {property} --value postgate-{program}.service"
    ))
    .trim()
    .to_owned()
}

fn socket_drop_in(lab: &Lab, unit: &str, settings: &str) {
    lab.sh(&format!(
        "d=/etc/systemd/system/{unit}.d
        mkdir -p $d; printf '[Socket]\n%b\n' '{settings}' > $d/test.conf; systemctl daemon-reload"
    ));
}

fn drop_in(lab: &Lab, program: &str, settings: &str) {
    lab.sh(&format!(
        "d=/etc/systemd/system/postgate-{program}.service.d
        mkdir -p $d; printf '[Service]\n%b\n' '{settings}' > $d/test.conf; systemctl daemon-reload"
    ));
}

/// Waits until a unit has written since the test began what the pattern matches.
fn until_said(lab: &Lab, unit: &str, pattern: &str) {
    lab.until(&format!(
        "journalctl -o cat --since @$(cat /run/began) -u {unit} | grep -e '{pattern}'"
    ));
}

/// What a program has written since the test began.
fn journal(lab: &Lab, program: &str) -> Vec<Value> {
    let script = format!(
        "journalctl --sync
        journalctl -u postgate-{program} --since @$(cat /run/began) -o json --all"
    );
    lab.sh(&script)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn messages(lab: &Lab, program: &str) -> String {
    journal(lab, program)
        .iter()
        .filter_map(|record| record["MESSAGE"].as_str())
        .flat_map(|text| [text, "\n"])
        .collect()
}
