//! Mail through Postfix with the main.cf of README, and the calls that its questions become.

use crate::lab::{Lab, System, Turn, lab};
use crate::postfix::{self, MAIN_CF, Smtp};

pub(crate) const README: &str = include_str!("../../README.md");

/// The tables of README's main.cf. At the backend each has a folder of its name.
const TABLES: [&str; 5] = [
    "socketmap.domains",
    "socketmap.mailboxes",
    "socketmap.aliases",
    "tcp-lookup.transport",
    "policy.policy",
];

const SOCKETS: &str = "postgate-tcp-lookup@9001.socket postgate-socketmap.socket \
    postgate-policy.socket postgate-metrics-{tcp-lookup,socketmap,policy}.socket";

/// Requests share a call, but no answer is kept.
pub(crate) const SHARED: &str = "cache = { ttl = false, negative-ttl = false }";

/// The lab with Postfix as README sets it up, and with this line for every table of lookups.
pub(crate) fn start(system: System, cache: &str) -> Option<Turn> {
    let tables = TABLES.map(|table| {
        let (_, folder) = table.split_once('.').expect("a name");
        format!("[{table}]\ntarget = \"http://127.0.0.1:8080/{folder}\"\n")
    });
    // The last of them is the policy.
    let config = format!("[http]\n{cache}\n{}cache = false\n", tables.concat());
    let lab = lab(system, &config)?;
    postfix::start_with(&lab, SOCKETS, &main_cf());
    // Those of another test do not count.
    calls(&lab);
    Some(lab)
}

/// The main.cf of README, beside what the lab needs.
fn main_cf() -> String {
    let (base, _) = MAIN_CF
        .split_once("virtual_mailbox_domains")
        .expect("tables");
    let (_, section) = README
        .split_once("## Postfix's side: main.cf\n\n")
        .expect("a section");
    let (tables, _) = section.split_once("\n\n").expect("the end of main.cf");
    let tables: Vec<_> = tables.lines().map(|line| &line[4..]).collect();
    format!(
        "{base}{}\nvirtual_transport = discard:\n",
        tables.join("\n")
    )
}

/// Sends a mail, and ends the session.
pub(crate) fn send(mut smtp: Smtp, sender: &str, recipients: &[String]) {
    smtp.expect(&format!("MAIL FROM:<{sender}>"), "250 ");
    for recipient in recipients {
        smtp.expect(&format!("RCPT TO:<{recipient}>"), "250 ");
    }
    smtp.expect("DATA", "354 ");
    smtp.expect("Subject: hello\r\n\r\nhello\r\n.", "250 ");
    smtp.expect("QUIT", "221 ");
}

/// Waits until all mail is delivered, and returns what the backend was asked since the last time,
/// as paths with their queries.
pub(crate) fn calls(lab: &Lab) -> Vec<String> {
    lab.until("postqueue -p | grep -q 'queue is empty'");
    let asked = lab.sh("journalctl --sync
        journalctl -u lab-backend -o cat --cursor-file=/run/asked | sed -n 's/^asked [^ ]* //p'");
    asked.lines().map(str::to_owned).collect()
}
