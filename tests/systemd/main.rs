//! Postgate as it is installed, under real systemd: activation, reload, restart, drain, watchdog,
//! credentials, the journal.

#[path = "../lab/mod.rs"]
mod lab;

mod activation;
mod credentials;
mod journal;
mod privileges;
mod restarts;

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::Value;

use crate::lab::Lab;

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
