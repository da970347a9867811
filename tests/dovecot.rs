//! Real Dovecot as the judge: 2.3, and 2.4 where it still has what is asked for. Its configuration
//! and that of Postgate are those of docs/dovecot.md, with a backend that works or fails.

mod lab;

use std::path::Path;
use std::process::{Child, Stdio};

use lab::{Lab, Said, System, Turn, lab, on_each_system};

on_each_system! {
    doveadm_gets_sets_increments_unsets_and_lists,
    a_login_and_a_delivery_use_every_dict,
    a_whole_transaction_is_one_call,
    while_the_api_fails_everything_waits_and_nothing_is_unknown,
    a_restart_or_a_reload_under_load_costs_nothing,
    an_api_that_goes_and_comes_back_under_load_is_never_not_found,
    only_dovecot_can_connect,
}

/// What the page leaves to the reader: users, mailboxes and listeners.
const DOVECOT_2_3: &str = "
protocols = imap lmtp
listen = 127.0.0.1
log_path = /var/log/dovecot.log
ssl = no
disable_plaintext_auth = no
mail_location = maildir:~/Maildir
first_valid_uid = 1
mail_plugins =
namespace inbox {
  inbox = yes
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = 2424
  }
}
";

const DOVECOT_2_4: &str = "
dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
protocols {
  imap = yes
  lmtp = yes
}
listen = 127.0.0.1
log_path = /var/log/dovecot.log
ssl = no
auth_allow_cleartext = yes
mail_driver = maildir
mail_home = /srv/mail/%{user}
mail_path = ~/Maildir
mail_uid = vmail
mail_gid = vmail
first_valid_uid = 1
passdb static {
  password = pw
}
userdb static {
  fields {
    uid = vmail
    gid = vmail
  }
}
namespace inbox {
  inbox = yes
}
service lmtp {
  inet_listener lmtp {
    listen = 127.0.0.1
    port = 2424
  }
}
";

const JANE: &str = "jane@example.org";

/// The blocks of the page with this label, one after the other.
fn page(label: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dovecot.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let fence = format!("```{label}\n");
    let blocks = page.split(&fence).skip(1);
    let blocks: Vec<_> = blocks
        .map(|block| block.split("```").next().expect("a block"))
        .collect();
    assert!(!blocks.is_empty(), "no {label}");
    blocks.concat()
}

/// The configuration of Postgate on the page, for the backend of the lab. One dict can do more than
/// its use needs.
fn config() -> String {
    let more = "[dict.metadata]\nincrement = { target = \
                \"http://127.0.0.1:8080/metadata/{scope}{/user}{/path*}\", body = \"{value}\" }\n";
    let config = page("toml").replace("[dict.metadata]\n", more);
    let config = config.replace("127.0.0.1:8080/", "127.0.0.1:8080/kv/");
    format!("[http]\nrequest-timeout = \"2s\"\nbreaker = false\n{config}")
}

fn start(system: System) -> Option<Turn> {
    let lab = lab(system, &config())?;
    lab.sh("systemctl stop dovecot 2>/dev/null
        getent passwd vmail >/dev/null || useradd --system --user-group vmail
        rm -rf /srv/mail; install -d -o vmail -g vmail /srv/mail
        rm -f /var/log/dovecot.log /etc/dovecot/dovecot.conf /etc/dovecot/postgate-auth.conf.ext
        touch /etc/dovecot/dovecot.conf /etc/dovecot/postgate-auth.conf.ext
        systemctl restart lab-backend
        systemctl start postgate-dict.socket");
    let dovecot = match system {
        System::Host => {
            lab.write(
                "/etc/dovecot/postgate-auth.conf.ext",
                &page("dovecot-2.3-auth"),
            );
            format!("{DOVECOT_2_3}{}", page("dovecot-2.3"))
        }
        System::Debian13 => format!("{DOVECOT_2_4}{}", page("dovecot-2.4")),
    };
    lab.write("/etc/dovecot/dovecot.conf", &dovecot);
    lab.sh("systemctl start dovecot");
    lab.until("(exec 3<>/dev/tcp/127.0.0.1/143 4<>/dev/tcp/127.0.0.1/2424) 2>/dev/null");
    for user in ["jane", "joe"] {
        let user = format!("{user}@example.org");
        put(
            &lab,
            &format!("auth/passdb/{user}"),
            "{\"password\": \"pw\"}",
        );
        let fields =
            format!("{{\"uid\": \"vmail\", \"gid\": \"vmail\", \"home\": \"/srv/mail/{user}\"}}");
        put(&lab, &format!("auth/userdb/{user}"), &fields);
    }
    Some(lab)
}

/// Gives the backend a value.
fn put(lab: &Lab, path: &str, value: &str) {
    let path = path.replace('@', "%40");
    let length = value.len();
    let request = format!("PUT /kv/{path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{value}");
    lab.write("/tmp/request", &request);
    lab.sh("exec 3<>/dev/tcp/127.0.0.1/8080; cat /tmp/request >&3
        head -n 1 <&3 | grep -q ' 200 '");
}

/// What the backend was asked for since the test began, as method, path and body.
fn asked(lab: &Lab) -> Vec<String> {
    let lines = lab.sh("journalctl --sync
        journalctl -u lab-backend --since @$(cat /run/began) -o cat");
    let asked = lines.lines().filter_map(|line| line.strip_prefix("kv "));
    asked.map(|line| line.trim_end().to_owned()).collect()
}

/// The first argument of "doveadm dict get" and the like, for the dict `metadata`.
fn metadata(system: System) -> &'static str {
    match system {
        System::Host => "proxy:/run/postgate/dict:metadata",
        System::Debian13 => "mail_attribute",
    }
}

/// Runs a command of doveadm for the dict; the key and the rest come behind it.
fn doveadm(lab: &Lab, system: System, command: &[&str], rest: &[&str]) -> Said {
    let dict = metadata(system);
    let all = [&["doveadm", "dict"], command, &[dict], rest].concat();
    lab.run(&all)
}

fn doveadm_gets_sets_increments_unsets_and_lists(system: System) {
    let Some(lab) = start(system) else { return };
    let rows = |said: &Said| {
        let mut rows: Vec<_> = said
            .out
            .lines()
            .skip(1)
            .map(|row| row.trim_end().to_owned())
            .collect();
        rows.sort();
        rows
    };
    for (command, rest, status, out) in [
        (&["get"][..], &["shared/k"][..], 68, ""),
        (&["set"], &["shared/k", "v 1"], 0, ""),
        (&["get"], &["shared/k"], 0, "v 1"),
        (&["set"], &["shared/k", ""], 0, ""),
        (&["get"], &["shared/k"], 0, ""),
        (&["set"], &["shared/k", "\u{fc}%/\\"], 0, ""),
        (&["get"], &["shared/k"], 0, "\u{fc}%/\\"),
        (&["set"], &["shared/k", "one\n\ttwo"], 0, ""),
        (&["get"], &["shared/k"], 0, "one\n\ttwo"),
        (&["inc"], &["shared/n", "3"], 68, ""),
        (&["set"], &["shared/n", "5"], 0, ""),
        (&["inc"], &["shared/n", "3"], 0, ""),
        (&["get"], &["shared/n"], 0, "8"),
        (&["unset"], &["shared/n"], 0, ""),
        (&["unset"], &["shared/n"], 0, ""),
        (&["get"], &["shared/n"], 68, ""),
        (&["set", "-u", JANE], &["priv/k", "hers"], 0, ""),
        (&["get", "-u", JANE], &["priv/k"], 0, "hers"),
        (&["get", "-u", "joe@example.org"], &["priv/k"], 68, ""),
        (&["get"], &["shared/../passwd"], 68, ""),
        (&["set"], &["shared/../passwd", "x"], 75, ""),
    ] {
        let said = doveadm(&lab, system, command, rest);
        let seen = (said.status, said.out.trim_end());
        assert_eq!(
            seen,
            (Some(status), out),
            "{command:?} {rest:?}: {}",
            said.err
        );
    }
    for (key, value) in [("a", "1"), ("b", "tab\there"), ("c/d", "3"), ("c/e/f", "4")] {
        let said = doveadm(&lab, system, &["set"], &[&format!("shared/l/{key}"), value]);
        assert_eq!(said.status, Some(0), "{said:?}");
    }
    for (command, key, expected) in [
        (
            &["iter"][..],
            "shared/l/",
            &["shared/l/a\t1", "shared/l/b\ttab\there"][..],
        ),
        (
            &["iter", "-R"],
            "shared/l/",
            &[
                "shared/l/a\t1",
                "shared/l/b\ttab\there",
                "shared/l/c/d\t3",
                "shared/l/c/e/f\t4",
            ],
        ),
        (
            &["iter", "-V", "-R"],
            "shared/l/c/",
            &["shared/l/c/d", "shared/l/c/e/f"],
        ),
        (&["iter", "-1"], "shared/l/a", &["shared/l/a\t1"]),
        (&["iter", "-1"], "shared/l/none", &[]),
        (&["iter", "-R"], "shared/none/", &[]),
    ] {
        let said = doveadm(&lab, system, command, &[key]);
        assert_eq!(said.status, Some(0), "{said:?}");
        assert_eq!(rows(&said), expected, "{command:?} {key}");
    }
    assert!(asked(&lab).contains(&"PUT metadata/shared/k one\\n\\ttwo".to_owned()));
    no_crash(&lab);
}

/// Speaks IMAP or LMTP: all lines at once, and what was answered until the server closed.
fn say(lab: &Lab, port: u16, lines: &[&str]) -> String {
    lab.write(
        "/tmp/said",
        &lines
            .iter()
            .map(|line| format!("{line}\r\n"))
            .collect::<String>(),
    );
    lab.sh(&format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; cat /tmp/said >&3; timeout 40 cat <&3"
    ))
}

fn imap(lab: &Lab, lines: &[&str]) -> String {
    let login = format!("a LOGIN {JANE} pw");
    say(
        lab,
        143,
        &[&[login.as_str()], lines, &["z LOGOUT"]].concat(),
    )
}

/// Delivers a mail; returns the replies to RCPT and to the mail.
fn deliver(lab: &Lab, recipient: &str) -> String {
    let recipient = format!("RCPT TO:<{recipient}>");
    let mail = "Subject: hello\r\n\r\nhello\r\n.";
    let lines = [
        "LHLO lab.test",
        "MAIL FROM:<someone@elsewhere.test>",
        &recipient,
        "DATA",
        mail,
        "QUIT",
    ];
    say(lab, 2424, &lines)
}

fn a_login_and_a_delivery_use_every_dict(system: System) {
    let Some(lab) = start(system) else { return };
    let said = imap(
        &lab,
        &[
            "b SETMETADATA INBOX (/private/comment \"hi there\" /shared/comment \"ours\")",
            "c SETMETADATA INBOX (/private/vendor/example/color \"red\")",
            "d GETMETADATA INBOX (/private/comment /shared/comment)",
            "e GETMETADATA (DEPTH infinity) INBOX (/private)",
            "f SETMETADATA INBOX (/private/comment NIL)",
            "g GETMETADATA INBOX (/private/comment)",
        ],
    );
    for tag in ["a", "b", "c", "d", "e", "f", "g"] {
        assert!(said.contains(&format!("\r\n{tag} OK")), "{tag}: {said}");
    }
    for text in ["hi there", "ours", "/private/vendor/example/color", "red"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let login = format!("PUT lastlogin/last-login/{JANE} 1");
    assert!(
        asked(&lab).iter().any(|line| line.starts_with(&login)),
        "{:?}",
        asked(&lab)
    );

    let script = "require [\"fileinto\", \"mailbox\"];\nfileinto :create \"Projects\";\n";
    put(&lab, &format!("sieve/sieve/name/default/{JANE}"), "17");
    put(&lab, &format!("sieve/sieve/data/17/{JANE}"), script);
    let said = deliver(&lab, JANE);
    assert!(said.contains("\r\n250 2.0.0"), "{said}");
    assert!(said.contains(" Saved"), "{said}");
    let found = lab.sh(&format!(
        "ls /srv/mail/{JANE}/Maildir/.Projects/new | wc -l"
    ));
    assert_eq!(found.trim(), "1", "{said}");
    // The quota is written when the mailbox closes.
    for written in [
        "storage/jane@example.org [1-9][0-9]*",
        "messages/jane@example.org 1",
    ] {
        lab.until(&format!(
            "journalctl -u lab-backend --since @$(cat /run/began) -o cat |
                grep -qx 'kv PUT quota/quota/{written}'"
        ));
    }
    // Without a script mail is delivered as it is.
    let said = deliver(&lab, "joe@example.org");
    assert!(said.contains(" Saved"), "{said}");
    if matches!(system, System::Host) {
        users_of_2_3(&lab);
    }
    no_crash(&lab);
}

fn a_whole_transaction_is_one_call(system: System) {
    let Some(lab) = start(system) else { return };
    let set =
        "set = { target = \"http://127.0.0.1:8080/kv/quota{/path*}{/user}\", body = \"{value}\" }";
    let config = config();
    assert!(config.contains(set), "{config}");
    // As the page says.
    let commit = "commit = { target = \"http://127.0.0.1:8080/kv/quota\" }";
    lab.write("/etc/postgate/config.toml", &config.replace(set, commit));
    lab.sh("systemctl try-restart postgate-dict");
    // Only 2.4 has an expiry.
    let (dict, expiry, expires) = match system {
        System::Host => ("proxy:/run/postgate/dict:quota", &[][..], 0),
        System::Debian13 => ("quota_clone", &["-e", "60"][..], 60),
    };
    for (command, rest, operation) in [
        (
            "set",
            &["priv/quota/storage", "5"][..],
            r#"{"op":"set","key":"priv/quota/storage","value":"5"}"#,
        ),
        (
            "inc",
            &["priv/n", "3"],
            r#"{"op":"increment","key":"priv/n","by":3}"#,
        ),
        ("unset", &["shared/k"], r#"{"op":"unset","key":"shared/k"}"#),
    ] {
        let (expiry, expires) = match command {
            "set" => (expiry, expires),
            _ => (&[][..], 0),
        };
        let head = ["doveadm", "dict", command, "-u", JANE];
        let said = lab.run(&[&head, expiry, &[dict], rest].concat());
        assert_eq!(said.status, Some(0), "{said:?}");
        let body = format!(
            r#"{{"user":"{JANE}","dict":"quota","operations":[{operation}],"expires":{expires}}}"#
        );
        let call = format!("POST quota {}", body.escape_debug());
        assert_eq!(asked(&lab).last(), Some(&call));
    }
    no_crash(&lab);
}

/// Passwords and users, which only 2.3 takes from a dict.
fn users_of_2_3(lab: &Lab) {
    for (command, status) in [
        (&["auth", "test", JANE, "pw"][..], 0),
        (&["auth", "test", JANE, "wrong"], 77),
        (&["auth", "test", "nobody@example.org", "pw"], 77),
        (&["user", JANE], 0),
        (&["user", "nobody@example.org"], 67),
        (&["user", "../passdb/jane@example.org"], 67),
        (&["user", "%2e%2e/x"], 67),
    ] {
        let said = lab.run(&[&["doveadm"], command].concat());
        assert_eq!(said.status, Some(status), "{command:?}: {said:?}");
    }
    let users = lab.sh("doveadm user '*'");
    assert_eq!(users.lines().collect::<Vec<_>>(), [JANE, "joe@example.org"]);
    let said = deliver(lab, "nobody@example.org");
    assert!(said.contains("\r\n550 5.1.1 "), "{said}");
}

fn while_the_api_fails_everything_waits_and_nothing_is_unknown(system: System) {
    let Some(lab) = start(system) else { return };
    let said = doveadm(&lab, system, &["set"], &["shared/k", "v"]);
    assert_eq!(said.status, Some(0), "{said:?}");
    put(&lab, &format!("sieve/sieve/name/default/{JANE}"), "18");
    for failure in [
        "500 text/plain\nsorry",
        "503 text/html\n<html>away</html>",
        "401 application/json\n{}",
        "405 text/plain\nno",
        "429 text/plain\nslow down",
        "301 text/plain\nelsewhere",
        "200 text/html\n<html>welcome</html>",
        "200 application/json\n{\"a\": ",
        "raw\nHTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\"a",
        "raw\nSSH-2.0-x\r\n",
        "hang",
        "away",
    ] {
        match failure {
            "away" => drop(lab.sh("systemctl stop lab-backend")),
            says => lab.backend_says("kv", says),
        }
        fails(&lab, system, failure);
        lab.backend_is_well();
        // Nobody has to start or to repair anything.
        let said = doveadm(&lab, system, &["set"], &["shared/k", "v"]);
        assert_eq!(said.status, Some(0), "{failure}: {said:?}");
    }
    no_crash(&lab);
}

fn fails(lab: &Lab, system: System, failure: &str) {
    // The body of a 2xx says nothing about a write, unless it is a page.
    let is_written = failure.starts_with("200 application/json");
    for (command, rest, is_write) in [
        (&["get"][..], &["shared/k"][..], false),
        (&["set"], &["shared/k", "w"], true),
        (&["inc"], &["shared/k", "1"], true),
        (&["unset"], &["shared/k"], true),
        (&["iter"], &["shared/"], false),
    ] {
        let said = doveadm(lab, system, command, rest);
        let expected = if is_write && is_written { 0 } else { 75 };
        assert_eq!(
            said.status,
            Some(expected),
            "{failure}: {command:?}: {said:?}"
        );
    }
    let said = deliver(lab, JANE);
    assert!(said.contains("\r\n451 4."), "{failure}: {said}");
    assert!(
        !said.contains("\r\n550") && !said.contains("Saved"),
        "{failure}: {said}"
    );
    match system {
        System::Host => {
            let said = imap(lab, &[]);
            assert!(said.contains("\r\na NO [UNAVAILABLE]"), "{failure}: {said}");
            let said = lab.run(&["doveadm", "user", JANE]);
            assert_eq!(said.status, Some(75), "{failure}: {said:?}");
            let said = lab.run(&["doveadm", "auth", "test", JANE, "pw"]);
            assert!(said.out.contains("code=temp_fail"), "{failure}: {said:?}");
        }
        // The login itself asks no dict there.
        System::Debian13 => {
            let said = imap(lab, &["b GETMETADATA INBOX (/private/comment)"]);
            assert!(said.contains("\r\na OK"), "{failure}: {said}");
            assert!(said.contains("\r\nb NO"), "{failure}: {said}");
        }
    }
}

fn a_restart_or_a_reload_under_load_costs_nothing(system: System) {
    let Some(lab) = start(system) else { return };
    let dict = metadata(system);
    let load = |number: usize| {
        let step = format!(
            "doveadm dict set {dict} shared/load{number} $n || echo failed: set
            [ $(doveadm dict get {dict} shared/load{number}) = $n ] || echo failed: get"
        );
        begin_load(&lab, &step)
    };
    lab.sh("rm -f /tmp/over");
    let loads = [0, 1].map(load);
    for round in 0..4 {
        lab.sh("systemctl restart postgate-dict");
        let count = format!(
            "[ $(journalctl -u lab-backend -o cat | grep -c 'kv PUT metadata/shared/load') -gt {} ]",
            10 * (round + 1)
        );
        lab.until(&count);
        lab.write(
            "/etc/postgate/config.toml",
            &format!("{}# {round}\n", config()),
        );
        lab.sh("systemctl reload postgate-dict");
    }
    lab.write("/tmp/over", "");
    for load in loads {
        let said: Said = load.wait_with_output().expect("a child").into();
        assert_eq!(
            (said.err.as_str(), said.out.contains("failed")),
            ("", false),
            "{said:?}"
        );
        let count: usize = said.out.trim().parse().expect("a count");
        assert!(count > 10, "{said:?}");
    }
    no_crash(&lab);
}

/// Repeats a step until there is a file `/tmp/over`, and then prints how often.
fn begin_load(lab: &Lab, step: &str) -> Child {
    let script = format!(
        "n=0
        until [ -e /tmp/over ]; do
            n=$((n + 1))
            {step}
        done
        echo $n"
    );
    let mut command = lab.command(&["timeout", "200", "bash", "-c", &script]);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
        .stderr(Stdio::piped())
        .spawn()
        .expect("lab.sh starts")
}

fn an_api_that_goes_and_comes_back_under_load_is_never_not_found(system: System) {
    let Some(lab) = start(system) else { return };
    let well = "200 application/json\n\"v\"";
    lab.backend_says("kv", well);
    let dict = metadata(system);
    let step = format!(
        "value=$(doveadm dict get {dict} shared/k 2>/dev/null); echo get $? $value >>/tmp/statuses
        doveadm dict set {dict} shared/k v 2>/dev/null; echo set $? >>/tmp/statuses"
    );
    lab.sh("rm -f /tmp/over; : >/tmp/statuses");
    let loads = [0, 1].map(|_| begin_load(&lab, &step));
    // Each of these lines comes so many times more, whatever was under way before.
    let comes = |line: &str| {
        let count = format!("$(grep -cx '{line}' /tmp/statuses)");
        lab.until(&format!(
            "n={count}; until [ {count} -gt $((n + 2)) ]; do sleep 0.05; done"
        ));
    };
    for fault in ["away", "503 text/plain\nbusy", "hang", "away"] {
        comes("get 0 v");
        comes("set 0");
        match fault {
            "away" => drop(lab.sh("systemctl stop lab-backend")),
            says => lab.backend_says("kv", says),
        }
        comes("get 75");
        comes("set 75");
        lab.backend_says("kv", well);
        lab.sh("systemctl start lab-backend");
    }
    lab.backend_says("kv", &format!("slow\n{well}"));
    comes("get 0 v");
    comes("set 0");
    lab.backend_says("kv", well);
    comes("get 0 v");
    comes("set 0");
    lab.write("/tmp/over", "");
    for load in loads {
        let said: Said = load.wait_with_output().expect("a child").into();
        assert_eq!((said.status, said.err.as_str()), (Some(0), ""), "{said:?}");
    }
    let others = lab.sh("sort /tmp/statuses | uniq -c | sort -n");
    for line in others.lines() {
        let seen = line.trim_start().split_once(' ').expect("a count").1;
        let is_right = ["get 0 v", "set 0", "get 75", "set 75"].contains(&seen);
        assert!(is_right, "{others}");
    }
    no_crash(&lab);
}

fn only_dovecot_can_connect(system: System) {
    let Some(lab) = start(system) else { return };
    let mode = lab.sh("stat -c '%U:%G %a' /run/postgate /run/postgate/dict");
    assert_eq!(mode, "root:root 755\nroot:dovecot 660\n");
    lab.sh("systemctl start postgate-dict@quota.socket 2>/dev/null || {
        systemctl stop postgate-dict.service
        systemctl start postgate-dict@quota.socket
    }");
    let more = lab.sh("stat -c '%U:%G %a' /run/postgate/dict-quota");
    assert_eq!(more, "root:dovecot 660\n");
    let asks = "doveadm dict get proxy:/run/postgate/dict-quota:quota shared/none";
    if matches!(system, System::Host) {
        assert_eq!(lab.run(&["bash", "-c", asks]).status, Some(68));
    }
}

/// Dovecot 2.3 crashes if a server answers what it did not ask.
fn no_crash(lab: &Lab) {
    let crashes = lab.sh(
        "grep -E 'signal 11|signal 6|Panic|Fatal: master|core dumped' /var/log/dovecot.log || true",
    );
    assert_eq!(crashes, "");
    let log = lab.sh("journalctl --sync
        journalctl -u postgate-dict --since @$(cat /run/began) -o cat -p err || true");
    assert_eq!(log, "");
}
