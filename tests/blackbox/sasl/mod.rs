//! Logins: a peer that speaks as smtpd does, and an API that knows one account.

mod answers;
mod cache;
mod contracts;
mod greeting;
mod limits;
mod memory;
mod query;
mod requests;
mod secrets;
mod stopping;
mod times;

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::support::{
    backend::{Request, Script, json, status},
    peer::Peer,
    program::{Launch, Program},
};

/// The one account, and its password.
const JOE: &str = "joe@example.org";
const PASSWORD: &str = "correct horse";

/// What smtpd says about its client.
const CLIENT: &str = "service=smtp\tnologin\tlip=192.0.2.1\trip=198.51.100.7\tsecured";

/// The table `t` of logins at this target, with these keys and without a delay.
fn table(target: &str, keys: &str) -> String {
    format!("[sasl.t]\ntarget = \"{target}\"\nfailure-delay = false\n{keys}\n")
}

/// An API that answers the default request.
fn api(request: &Request) -> Script {
    let login: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
    if login["username"] == JOE && login["password"] == PASSWORD {
        json("{}")
    } else {
        status(401)
    }
}

/// One connection of an smtpd, which has read the greeting.
struct Smtpd {
    peer: Peer,
    last: u64,
    /// The mechanisms that it was offered.
    offered: Vec<String>,
}

impl Smtpd {
    async fn connect(program: &Program) -> Self {
        Self::at(program, 0).await
    }

    /// Connects to the socket with this number.
    async fn at(program: &Program, number: usize) -> Self {
        let mut peer = program.peer_at(number).await;
        // Both sides speak first.
        peer.send("VERSION\t1\t0\nCPID\t339\n").await;
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != "DONE") {
            lines.push(line(&mut peer).await.expect("a greeting"));
        }
        let offered = lines
            .iter()
            .filter_map(|line| line.strip_prefix("MECH\t")?.strip_suffix("\tplaintext"))
            .map(str::to_owned)
            .collect();
        Self {
            peer,
            last: 0,
            offered,
        }
    }

    /// Begins a login and returns the reply without its id, its fields with blanks between them;
    /// `closed` if the connection ends.
    async fn auth(&mut self, mechanism: &str, message: Option<&[u8]>) -> String {
        self.ask(mechanism, message).await;
        self.said().await
    }

    /// Begins a login.
    async fn ask(&mut self, mechanism: &str, message: Option<&[u8]>) {
        self.last += 1;
        let message = message.map(|message| format!("\tresp={}", BASE64.encode(message)));
        let message = message.unwrap_or_default();
        let line = format!("AUTH\t{}\t{mechanism}\t{CLIENT}{message}\n", self.last);
        self.peer.send(line).await;
    }

    /// Goes on with the login that was begun last.
    async fn cont(&mut self, message: impl AsRef<[u8]>) -> String {
        self.send(message).await;
        self.said().await
    }

    /// Answers a challenge of the login that was begun last.
    async fn send(&mut self, message: impl AsRef<[u8]>) {
        let line = format!("CONT\t{}\t{}\n", self.last, BASE64.encode(message));
        self.peer.send(line).await;
    }

    /// Logs in with PLAIN.
    async fn plain(&mut self, name: &str, password: &str) -> String {
        self.auth("PLAIN", Some(&plain(name, password))).await
    }

    /// Reads a reply to the last login.
    async fn said(&mut self) -> String {
        let Some(line) = line(&mut self.peer).await else {
            return "closed".to_owned();
        };
        let mut fields: Vec<_> = line.split('\t').collect();
        assert_eq!(fields.remove(1), self.last.to_string(), "{line}");
        fields.join(" ")
    }
}

/// The message of PLAIN.
fn plain(name: &str, password: &str) -> Vec<u8> {
    format!("\0{name}\0{password}").into_bytes()
}

/// Reads a line without its end; none at the end of the connection.
async fn line(peer: &mut Peer) -> Option<String> {
    let line = peer.reply_or_end().await.ok()?;
    let line = String::from_utf8(line).expect("text");
    Some(line.trim_end_matches('\n').to_owned())
}

/// Logs in once over a connection of its own.
pub(crate) async fn login(program: &Program, name: &str, password: &str) -> String {
    Smtpd::connect(program).await.plain(name, password).await
}

/// Starts the program with one unix socket, which leads to the table `t`.
async fn serve(config: impl Into<String>) -> Program {
    Launch::sasl().config(config).unix("t").ready().await
}

const OK: &str = "OK user=joe@example.org";
const REFUSED: &str = "FAIL user=joe@example.org reason=wrong name or password";

/// The lines of a page of metrics that count the requests of table `t`, by outcome.
fn counted(page: &str) -> Vec<String> {
    let names: HashSet<_> = ["accepted", "refused", "temporary", "permanent"].into();
    let lines = page.lines().filter_map(|line| {
        let rest = line.strip_prefix("postgate_requests_total{")?;
        let (_, rest) = rest.split_once("outcome=\"")?;
        let (outcome, rest) = rest.split_once('"')?;
        assert!(names.contains(outcome), "{line}");
        let is_of_table = rest.contains("table=\"t\"");
        let (_, count) = rest.rsplit_once(' ')?;
        is_of_table.then(|| format!("{outcome} {count}"))
    });
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines
}
