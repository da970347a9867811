//! Access to the sockets, and the privileges of the programs.

use super::{CONFIG, SOCKETMAP, ask, asking, drop_in, refused, socket_drop_in};
use crate::lab::{System, lab, on_each_system};

on_each_system! {
    the_units_are_clean,
    only_postfix_and_root_reach_the_sockets,
    only_dovecots_group_and_root_reach_those_of_dict,
    the_folder_keeps_its_mode_where_a_drop_in_says,
    a_socket_is_where_and_whose_a_drop_in_says,
    it_runs_without_any_privilege,
    it_writes_only_to_folders_of_its_own,
    a_file_in_another_place_takes_a_line_in_a_drop_in,
}

fn the_units_are_clean(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    let said = lab.sh("cd /usr/lib/systemd/system
        systemd-analyze verify --recursive-errors=yes 2>&1 postgate-*.service \
            postgate-{socketmap,policy,sasl,dict}.socket \
            postgate-{policy,socketmap,sasl,dict}@submission.socket postgate-tcp-lookup@9001.socket");
    assert_eq!(said, "");
    // Only IPAddressDeny= would make it less, and that depends on where the backend is.
    lab.sh("for program in tcp-lookup socketmap policy dict sasl; do
            systemd-analyze --no-pager --offline=yes --threshold=10 \
                security postgate-$program.service || exit 1
        done");
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
        ("postgate-sasl.socket", "postgate-sasl"),
        ("postgate-sasl@x.socket", "postgate-sasl-x"),
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

fn only_dovecots_group_and_root_reach_those_of_dict(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl start postgate-dict.socket postgate-dict@x.socket");
    // The folder belongs to root: no other user can put a link in the place of a socket.
    assert_eq!(
        lab.sh("cd /run/postgate; stat -c '%U:%G %a' . dict dict-x"),
        "root:root 755\nroot:dovecot 660\nroot:dovecot 660\n"
    );
    let reaches = |user: &str, groups: &str| {
        let ids = [format!("--reuid={user}"), format!("--regid={user}")];
        let [user, group] = ids.each_ref().map(String::as_str);
        let said = lab.run(&[
            "setpriv",
            user,
            group,
            groups,
            "test",
            "-w",
            "/run/postgate/dict",
        ]);
        said.status == Some(0)
    };
    assert!(reaches("dovecot", "--clear-groups"));
    // As the processes of a login do: with the rights of the mail's owner, and this group besides.
    assert!(reaches("mail", "--groups=dovecot"));
    assert!(!reaches("mail", "--clear-groups"));
    assert!(!reaches("postfix", "--clear-groups"));
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

    // It does not see the mail, the homes or the data of other services either.
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
    for (program, socket, state) in [
        ("tcp-lookup", "postgate-tcp-lookup@9001.socket", ""),
        ("socketmap", "postgate-socketmap.socket", ""),
        (
            "policy",
            "postgate-policy.socket",
            "/var/lib/postgate-policy\n",
        ),
        ("sasl", "postgate-sasl.socket", "/var/lib/postgate-sasl\n"),
    ] {
        let writable = lab.sh(&format!(
            "systemctl start {socket}
            systemctl start postgate-{program}.service
            pid=$(systemctl show -p MainPID --value postgate-{program}.service)
            id=$(stat -c '--reuid=%u --regid=%g' /proc/$pid)
            nsenter -t $pid -m -r setpriv $id --clear-groups \
                find / -path /proc -prune -o -type d -writable -print 2>/dev/null | sort"
        ));
        assert_eq!(writable, format!("/tmp\n{state}/var/tmp\n"), "{program}");
    }
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
    let mut postfix = asking(&lab, "file", "x");
    refused(&lab, "socketmap", 1);
    drop_in(&lab, "socketmap", "BindReadOnlyPaths=/srv/postgate-test");
    assert_eq!(postfix.receive().expect("a reply"), "OK found");
}
