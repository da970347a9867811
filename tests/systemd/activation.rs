//! Socket activation: a socket starts its service and finds its table.

use super::{CONFIG, SOCKETMAP, ask, connect, drop_in, messages, policy, refused, show, tcp};
use crate::lab::{System, lab, on_each_system};

on_each_system! {
    the_first_question_starts_the_service,
    a_stopped_service_leaves_its_socket_and_starts_again,
    every_socket_finds_its_table,
    a_socket_is_added_while_the_service_rests,
    at_boot_the_sockets_are_there_before_postfix_and_wait_for_nobody,
    a_socket_that_fits_no_table_is_said,
    a_start_without_sockets_or_with_a_wrong_option_is_refused_once,
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

    let mut postfix = connect(&lab).expect("a connection");
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
    assert!(policy(&lab, "postgate-policy").starts_with("DEFER_IF_PERMIT 4.3.0 Policy"));
    assert_eq!(
        policy(&lab, "postgate-policy-submission"),
        "DEFER_IF_PERMIT 4.3.0 submission"
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
        "postgate-sasl.socket",
        "postgate-sasl@x.socket",
        "postgate-tcp-lookup@9001.socket",
    ] {
        let before = unit(socket, "Before");
        assert!(before.contains("postfix@-.service"), "{socket}: {before}");
        assert!(before.contains("sockets.target"), "{socket}: {before}");
        assert!(!unit(socket, "After").contains("network"), "{socket}");
    }
    for socket in ["postgate-dict.socket", "postgate-dict@x.socket"] {
        let before = unit(socket, "Before");
        assert!(before.contains("dovecot.service"), "{socket}: {before}");
        assert!(before.contains("sockets.target"), "{socket}: {before}");
        assert!(!unit(socket, "After").contains("network"), "{socket}");
    }
    for program in ["socketmap", "policy", "tcp-lookup", "dict", "sasl"] {
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
