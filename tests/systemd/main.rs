//! Postgate as it is installed, under real systemd: activation, reload, restart, drain, watchdog,
//! credentials, the journal.

#[path = "../client/mod.rs"]
#[expect(dead_code, reason = "others speak to all programs")]
mod client;
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../lab/peer.rs"]
mod peer;

mod activation;
mod credentials;
mod journal;
mod privileges;
mod restarts;

use std::{io, time::Duration};

use serde_json::Value;

use crate::{
    client::{Binary, block, question},
    lab::Lab,
    peer::Peer,
};

const SOCKETMAP: &str = "/var/spool/postfix/private/postgate-socketmap";

/// How long a test waits for an event before it fails.
const LOST: Duration = Duration::from_secs(20);

/// Tests append keys to the last table.
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

[sasl.sasl]
target = "http://127.0.0.1:8080/login"
accepted = "/ok"

[policy.submission]
target = "http://127.0.0.1:8080/policy"
on-temporary = "DEFER_IF_PERMIT 4.3.0 submission"
"#;

/// Waits until a program has refused its configuration so many times; returns how many it were.
fn refused(lab: &Lab, program: &str, times: u32) -> u32 {
    let count = format!(
        "journalctl -u postgate-{program} --since @$(cat /run/began) -o cat | grep -c status=78"
    );
    lab.until(&format!("[ $({count}) -ge {times} ]"));
    lab.sh(&count).trim().parse().expect("a count")
}

/// Connects to socketmap.
fn connect(lab: &Lab) -> io::Result<Peer> {
    Peer::connect(lab, Binary::Socketmap, "postgate-socketmap")
}

/// Sends a request to socketmap and leaves its reply for later.
fn asking(lab: &Lab, map: &str, key: &str) -> Peer {
    let mut postfix = connect(lab).expect("a connection");
    let request = question(Binary::Socketmap, map, key);
    postfix.send(request).expect("sent");
    postfix
}

/// One question, one connection.
fn ask(lab: &Lab, map: &str, key: &str) -> String {
    let mut postfix = connect(lab).expect("a connection");
    postfix.ask(map, key).expect("a reply")
}

fn tcp(lab: &Lab, port: u16, key: &str) -> String {
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; echo 'get {key}' >&3; timeout 20 head -n 1 <&3"
    );
    lab.sh(&script).trim_end().to_owned()
}

/// The action for a mail.
fn policy(lab: &Lab, socket: &str) -> String {
    let mut postfix = Peer::connect(lab, Binary::Policy, socket).expect("a connection");
    let mail = [
        ("request", "smtpd_access_policy"),
        ("sender", "a@b"),
        ("queue_id", "4XyZ"),
    ];
    postfix.send(block(mail)).expect("sent");
    postfix.receive().expect("a reply")
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

/// Waits until a unit has written a line, since the test began, that the pattern matches.
fn until_said(lab: &Lab, unit: &str, pattern: &str) {
    lab.until(&format!(
        "journalctl -o cat --since @$(cat /run/began) -u {unit} | grep -e '{pattern}'"
    ));
}

/// The records of a program since the test began.
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
