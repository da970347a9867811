//! No lost mail: a stream of messages through real Postfix, and lookups beside it, while Postgate is
//! restarted, reloaded, killed and stopped, and while its backend is away.

mod lab;
#[path = "lab/postfix.rs"]
mod postfix;

use std::process::Stdio;
use std::sync::mpsc::{self, Sender};
use std::thread;

use lab::{Lab, System, lab, on_each_system};
use postfix::{MAIN_CF, Smtp};

const CONFIG: &str = r#"
[socketmap.echo]
target = "http://127.0.0.1:8080/echo"
[socketmap.domains]
target = "http://127.0.0.1:8080/domains"
[socketmap.users]
target = "http://127.0.0.1:8080/users/{key}"
[socketmap.aliases]
target = "http://127.0.0.1:8080/aliases"

[tcp-lookup.access]
target = "http://127.0.0.1:8080/access"

[policy.policy]
target = "http://127.0.0.1:8080/policy"
"#;

const SOCKETS: &str =
    "postgate-socketmap.socket postgate-tcp-lookup@9002.socket postgate-policy.socket";

const PROGRAMS: [&str; 3] = ["socketmap", "tcp-lookup", "policy"];

/// What Postfix has logged since the test began.
const LOG: &str = "journalctl -u 'postfix*' --since @$(cat /run/began) -o cat";

on_each_system! {
    a_restart_or_a_reload_costs_no_message_and_no_lookup,
    a_program_that_is_killed_or_hangs_costs_no_message,
    while_the_backend_is_away_mail_waits,
    while_the_configuration_is_bad_mail_waits,
}

fn a_restart_or_a_reload_costs_no_message_and_no_lookup(system: System) {
    let Some(lab) = start(system) else { return };
    let bad = CONFIG.replace("http://", "htp://");
    let sent = under_load(&lab, |load| {
        for round in 0..3 {
            for program in PROGRAMS {
                lab.sh(&format!("systemctl restart postgate-{program}"));
                load.go_on(1);
            }
            for config in [&format!("{CONFIG}# {round}\n"), &bad, CONFIG] {
                lab.write("/etc/postgate/config.toml", config);
                lab.sh("systemctl reload postgate-{socketmap,tcp-lookup,policy}");
                load.go_on(2);
            }
        }
    });
    assert_eq!(sent.put_off, Vec::<String>::new());
    let failed: Vec<_> = sent.complaints.lines().collect();
    assert_eq!(failed, Vec::<&str>::new());
    assert!(sent.messages >= 27 && sent.lookups > 50, "{sent:?}");
    all_delivered(&lab, sent.messages);
    // Postfix has had nothing to complain about either.
    let complaints = lab.sh(&format!(
        "{LOG} | grep -E 'reject:|warning:|error:|fatal:|deferred' || true"
    ));
    let complaints: Vec<_> = complaints.lines().filter(is_serious).collect();
    assert_eq!(complaints, Vec::<&str>::new());
    let refused = lab.sh(
        "journalctl -u 'postgate-*' --since @$(cat /run/began) -o cat |
        grep -c 'reload: refused'",
    );
    assert_eq!(refused.trim(), "9");
}

fn a_program_that_is_killed_or_hangs_costs_no_message(system: System) {
    let Some(lab) = start(system) else { return };
    for program in PROGRAMS {
        lab.sh(&format!(
            "d=/etc/systemd/system/postgate-{program}.service.d
            mkdir -p $d; printf '[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\n' > $d/test.conf"
        ));
    }
    lab.sh("systemctl daemon-reload");
    let sent = under_load(&lab, |load| {
        for signal in ["KILL", "STOP"] {
            for program in PROGRAMS {
                lab.sh(&format!("systemctl kill -s {signal} postgate-{program}"));
                load.go_on(4);
            }
        }
    });
    // Postfix asks again by itself; what it cannot bridge is for the client to try again.
    assert!(sent.put_off.len() < sent.messages / 2, "{sent:?}");
    all_delivered(&lab, sent.messages);
    for program in PROGRAMS {
        let restarts = lab.sh(&format!(
            "systemctl show -p NRestarts --value postgate-{program}"
        ));
        assert_ne!(restarts.trim(), "0", "{program}");
    }
}

fn while_the_backend_is_away_mail_waits(system: System) {
    let Some(lab) = start(system) else { return };
    let mut smtp = Smtp::connect(&lab);
    // One message is in the queue when the backend goes, another comes then.
    lab.backend_says("policy", "200 text/plain\nHOLD for the test");
    assert_eq!(message(&mut smtp, "userheld@held.lab.test"), None);
    lab.sh("systemctl stop lab-backend; postsuper -H ALL 2>/dev/null; postqueue -f");
    lab.until(&format!(
        "{LOG} | grep 'to=<userheld@held.lab.test>.*status=deferred'"
    ));
    for _ in 0..12 {
        let refused = message(&mut smtp, "userlate@late.lab.test").expect("no backend");
        assert!(refused.starts_with("45"), "{refused}");
    }

    lab.backend_is_well();
    // What has failed ten times is asked again after a pause only. A client that tries for so long
    // is not welcome in one session.
    let is_taken = || {
        let mut smtp = Smtp::connect(&lab);
        (0..300).any(|_| message(&mut smtp, "userlate@late.lab.test").is_none())
    };
    assert!((0..50).any(|_| is_taken()));
    lab.until(&format!(
        "postqueue -f && {LOG} | grep 'to=<userheld@held.lab.test>.*status=sent'"
    ));
    all_delivered(&lab, 2);
}

fn while_the_configuration_is_bad_mail_waits(system: System) {
    let Some(lab) = start(system) else { return };
    // So that Postfix does not wait for as long as it usually would.
    let impatient = MAIN_CF.replace("service_timeout = 20s", "service_timeout = 1s");
    lab.write("/etc/postfix/main.cf", &impatient);
    lab.sh("postfix reload 2>&1");
    let mut smtp = Smtp::connect(&lab);
    assert_eq!(message(&mut smtp, "user1@first.lab.test"), None);

    lab.write("/etc/postgate/config.toml", "[policy.policy");
    lab.sh("systemctl stop postgate-policy 2>/dev/null");
    let refused = message(&mut smtp, "user2@second.lab.test").expect("nobody answers");
    assert!(refused.starts_with("451 4.3.5 "), "{refused}");
    lab.until("journalctl -u postgate-policy --since @$(cat /run/began) -o cat | grep status=78");

    // Nobody has to start anything.
    lab.write("/etc/postgate/config.toml", CONFIG);
    assert!((0..10).any(|_| message(&mut smtp, "user2@second.lab.test").is_none()));
    all_delivered(&lab, 2);
}

/// What has become of the stream.
#[derive(Debug, Default)]
struct Sent {
    messages: usize,
    /// Replies that made the client try again.
    put_off: Vec<String>,
    lookups: usize,
    /// What postmap had to say, and which keys it did not find.
    complaints: String,
}

/// The stream, as the part of the test sees it that disturbs it.
struct Load(mpsc::Receiver<()>);

impl Load {
    /// Waits until so many more messages are through.
    fn go_on(&self, messages: usize) {
        // Those that came before the disturbance do not count.
        while self.0.try_recv().is_ok() {}
        for _ in 0..messages {
            self.0.recv().expect("the stream goes on");
        }
    }
}

/// Sends messages and asks postmap, both without a pause, while `disturb` runs.
fn under_load(lab: &Lab, disturb: impl FnOnce(&Load)) -> Sent {
    let lookups = lab
        .command(&["timeout", "100", "bash", "-c", LOOKUPS])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("lab.sh starts");
    let mut sent = thread::scope(|scope| {
        let (taken, load) = mpsc::channel();
        let senders: Vec<_> = (0..2)
            .map(|sender| {
                let taken = taken.clone();
                scope.spawn(move || send(lab, sender, &taken))
            })
            .collect();
        drop(taken);
        disturb(&Load(load));
        let mut sum = Sent::default();
        for sender in senders {
            let sent = sender.join().expect("no message refused for good");
            sum.messages += sent.messages;
            sum.put_off.extend(sent.put_off);
        }
        sum
    });
    lab.sh("touch /tmp/over");
    let lookups = lookups.wait_with_output().expect("a child");
    sent.complaints = String::from_utf8_lossy(&lookups.stderr).into_owned();
    let count = String::from_utf8_lossy(&lookups.stdout).into_owned();
    sent.lookups = count.trim().parse().expect("a count");
    sent
}

const LOOKUPS: &str = r#"rm -f /tmp/over
    n=0
    ask() { [ "$(postmap -q "$2" "$1")" = "$3" ] || echo "failed: $*" >&2; n=$((n + 1)); }
    while [ ! -e /tmp/over ]; do
        ask socketmap:unix:/var/spool/postfix/private/postgate-socketmap:echo "$n@x" "$n@x"
        ask tcp:127.0.0.1:9002 "closed$n" "REJECT mailbox closed"
    done
    echo $n"#;

/// A connection of a tcp table ends with the program behind it; Postfix says so and asks again.
fn is_serious(complaint: &&str) -> bool {
    !complaint.contains("warning: read TCP map reply")
}

/// Sends one message after the other until nobody counts any more, some in one session.
fn send(lab: &Lab, sender: usize, taken: &Sender<()>) -> Sent {
    let mut sent = Sent::default();
    let mut smtp = Smtp::connect(lab);
    loop {
        // Postfix remembers answers, so every recipient is another one.
        let n = sent.messages;
        let recipient = format!("user{n}@{sender}-{n}.lab.test");
        while let Some(reply) = message(&mut smtp, &recipient) {
            sent.put_off.push(reply);
        }
        sent.messages += 1;
        if taken.send(()).is_err() {
            return sent;
        }
        if sent.messages.is_multiple_of(5) {
            smtp = Smtp::connect(lab);
        }
    }
}

/// Sends one message. Some: the client has to come back; what Postfix said.
fn message(smtp: &mut Smtp, recipient: &str) -> Option<String> {
    smtp.expect("RSET", "250 ");
    smtp.expect("MAIL FROM:<someone@elsewhere.test>", "250 ");
    let recipient = format!("RCPT TO:<{recipient}>");
    let message = "Subject: hello\r\n\r\nhello\r\n.";
    for line in [recipient.as_str(), "DATA", message] {
        let reply = smtp.say(line);
        assert!(!reply.starts_with('5'), "{line}: {reply}");
        if reply.starts_with('4') {
            return Some(reply);
        }
    }
    None
}

/// Waits until Postfix has delivered every message, and nothing is left behind.
fn all_delivered(lab: &Lab, messages: usize) {
    lab.until(&format!(
        "[ $({LOG} | grep -c 'to=<user.*status=sent') = {messages} ]"
    ));
    lab.until("postqueue -p | grep 'queue is empty'");
    let bounced = lab.sh(&format!("{LOG} | grep -c status=bounced || true"));
    assert_eq!(bounced.trim(), "0");
}

fn start(system: System) -> Option<lab::Turn> {
    let lab = lab(system, CONFIG)?;
    postfix::start(&lab, SOCKETS);
    Some(lab)
}
