//! Plays every dialog under `tests/dialogs`, whole and in pieces, through the loop that serves.
//!
//! A dialog is a text: what Postfix sends, what the backend answers, what Postfix gets.
//!
//! ```text
//! # what it shows
//! W: permit               the operator allows permissive actions; "silent": says nothing on failure;
//!                         "offers LOGIN ...": these mechanisms; "refuses by ...": with these words
//! C: get k\n              sent; \n \r \t \0 \\ \xNN, and \{x*3} is xxx
//! Q: k                    asked, as it was understood: "map key", "key" or "name=value name=value";
//!                         lists and writes begin with that word
//! R: key=value            a row of the list before its outcome
//! B: found v              the backend's outcome: found, done, not-found, refused (words),
//!                         temporary, permanent or uncertain (a reason); "hangs": there is none
//! S: 200 v\n              received
//! T: 61                   what follows is sent after all of this is received, and so many seconds
//! X:                      we hang up, before the client does
//! ```

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postgate::observe::log::Recorder;
use postgate::outcome::{Effect, Failure, Outcome, Reason, Row};
use postgate::protocol::Protocol;
use postgate::protocol::dict::Dict;
use postgate::protocol::policy::Policy;
use postgate::protocol::policy::rules::{FallbackAction, PolicyActions};
use postgate::protocol::sasl::Sasl;
use postgate::protocol::sasl::rules::{Logins, Mechanism};
use postgate::protocol::socketmap::Socketmap;
use postgate::protocol::tcp_lookup::TcpLookup;
use postgate::request::{Change, Kind, List, Request, Write};
use postgate::serve::connections::Connections;
use postgate::serve::peer::{End, Timeouts};
use postgate::session::{Context, serve};
use postgate::table::{Asked, Backend, Rules, Table};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// How the client's bytes are cut: whole, or into pieces of so many.
const CUTS: [usize; 5] = [usize::MAX, 1, 2, 3, 7];

#[tokio::test(start_paused = true)]
async fn tcp_lookup() {
    play_all::<TcpLookup>("tcp-lookup").await;
}

#[tokio::test(start_paused = true)]
async fn socketmap() {
    play_all::<Socketmap>("socketmap").await;
}

#[tokio::test(start_paused = true)]
async fn policy() {
    play_all::<Policy>("policy").await;
}

#[tokio::test(start_paused = true)]
async fn dict() {
    play_all::<Dict>("dict").await;
}

#[tokio::test(start_paused = true)]
async fn sasl() {
    play_all::<Sasl>("sasl").await;
}

async fn play_all<P: Protocol>(folder: &str)
where
    Script: Rules<P::Rules>,
{
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/dialogs")
        .join(folder);
    let mut played = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder of dialogs") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a dialog");
        let dialog = Dialog::parse(&text, &path);
        for cut in CUTS {
            dialog.play::<P>(cut, &path).await;
        }
        played += 1;
    }
    assert!(played > 5, "only {played} dialogs in {}", folder.display());
}

#[derive(Default)]
struct Dialog {
    actions: PolicyActions,
    logins: Logins,
    /// What is sent, after so many bytes are received and so many seconds have passed.
    sent: Vec<(usize, u64, Vec<u8>)>,
    asked: Vec<String>,
    rows: Vec<Row>,
    outcomes: VecDeque<(Vec<Row>, Option<Outcome>)>,
    received: Vec<u8>,
    hangs_up: bool,
}

impl Dialog {
    fn parse(text: &str, path: &Path) -> Self {
        let mut dialog = Self::default();
        assert!(
            text.starts_with("# "),
            "{}: begins with what it shows",
            path.display()
        );
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (kind, rest) = line.split_once(':').expect("a kind of line");
            let rest = rest.strip_prefix(' ').unwrap_or(rest);
            match kind {
                "W" if rest == "permit" => dialog.actions.permit_actions = true,
                "W" if rest == "silent" => {
                    dialog.actions.on_temporary = FallbackAction::Disconnect;
                    dialog.actions.on_permanent = FallbackAction::Disconnect;
                }
                "W" if rest.starts_with("offers ") => {
                    let names = rest.split(' ').skip(1);
                    let names = names.map(|name| Mechanism::named(name.as_bytes()).expect(name));
                    dialog.logins.mechanisms = names.collect();
                }
                "W" if rest.starts_with("refuses by ") => {
                    dialog.logins.refusal = rest["refuses by ".len()..].to_owned();
                }
                "C" => match dialog.sent.last_mut() {
                    Some((_, _, sent)) => sent.extend(unescape(rest)),
                    None => dialog.sent.push((0, 0, unescape(rest))),
                },
                "T" => {
                    let seconds = if rest.is_empty() { "0" } else { rest };
                    let seconds = seconds.parse().expect("seconds");
                    let received = dialog.received.len();
                    dialog.sent.push((received, seconds, Vec::new()));
                }
                "Q" => dialog.asked.push(rest.to_owned()),
                "R" => {
                    let (key, value) = rest.split_once('=').expect("a key and a value");
                    dialog.rows.push(Row {
                        key: unescape(key),
                        value: String::from_utf8(unescape(value)).expect("text"),
                    });
                }
                "B" => {
                    let rows = std::mem::take(&mut dialog.rows);
                    let outcome = (rest != "hangs").then(|| outcome(rest));
                    dialog.outcomes.push_back((rows, outcome));
                }
                "S" => dialog.received.extend(unescape(rest)),
                "X" => dialog.hangs_up = true,
                _ => panic!("{}: {line}", path.display()),
            }
        }
        dialog
    }

    async fn play<P: Protocol>(&self, cut: usize, path: &Path)
    where
        Script: Rules<P::Rules>,
    {
        let scripted = Scripted(Arc::new(Script {
            actions: self.actions.clone(),
            logins: self.logins.clone(),
            outcomes: Mutex::new(self.outcomes.clone()),
            asked: Mutex::new(Vec::new()),
        }));
        let asked = scripted.clone();
        let (ours, mut client) = tokio::io::duplex(1 << 20);
        let serving = tokio::spawn(async move {
            let guard = Arc::new(Connections::default()).admit(|| 1).await;
            let context = Context {
                guard: &guard,
                recorder: &Recorder::default(),
            };
            serve::<P, _, _>(ours, &scripted, context).await
        });
        let place = format!("{} in pieces of {cut}", path.display());
        let mut received = Vec::new();
        for (after, seconds, sent) in &self.sent {
            while !is_received(&received, &self.received[..*after]) {
                let count = client.read_buf(&mut received).await.expect("replies");
                assert_ne!(count, 0, "{place}: the end after {}", show(&received));
            }
            tokio::time::sleep(Duration::from_secs(*seconds)).await;
            for piece in sent.chunks(cut.min(sent.len().max(1))) {
                // The other side may have hung up already, as some dialogs show.
                if client.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        if !self.hangs_up {
            client.shutdown().await.expect("a side to close");
        }
        client.read_to_end(&mut received).await.expect("replies");
        let end = serving.await.expect("a session without a fault");
        let received = without_numbers(&received);
        assert_eq!(show(&received), show(&self.received), "{place}");
        assert_eq!(*asked.0.asked.lock().unwrap(), self.asked, "{place}");
        assert!(
            asked.0.outcomes.lock().unwrap().is_empty(),
            "{place}: not all was asked"
        );
        match (self.hangs_up, &end) {
            (true, End::Refused | End::Closed) | (false, End::Eof) => {}
            _ => panic!("{place}: ended with {end:?}"),
        }
    }
}

/// Returns whether so much is received, or more.
fn is_received(received: &[u8], expected: &[u8]) -> bool {
    without_numbers(received).len() >= expected.len()
}

/// Replaces what differs from greeting to greeting: the id of the process, the number of the
/// connection, and its cookie.
fn without_numbers(received: &[u8]) -> Vec<u8> {
    let lines = received.split_inclusive(|byte| *byte == b'\n');
    let plain = lines.map(|line| {
        let (head, rest) = line.split_at(line.iter().position(|b| *b == b'\t').unwrap_or(0));
        let rest = match rest {
            [b'\t', number @ .., b'\n'] => number,
            _ => &[],
        };
        let is_right = match head {
            b"SPID" => rest == std::process::id().to_string().as_bytes(),
            b"CUID" => !rest.is_empty() && rest.iter().all(u8::is_ascii_digit),
            b"COOKIE" => rest.len() == 32 && rest.iter().all(u8::is_ascii_hexdigit),
            _ => false,
        };
        match is_right {
            true => [head, b"\t*\n"].concat(),
            false => line.to_vec(),
        }
    });
    plain.collect::<Vec<_>>().concat()
}

/// A backend that says what the dialog has.
#[derive(Clone)]
struct Scripted(Arc<Script>);

struct Script {
    actions: PolicyActions,
    logins: Logins,
    outcomes: Mutex<VecDeque<(Vec<Row>, Option<Outcome>)>>,
    asked: Mutex<Vec<String>>,
}

impl Backend for Scripted {
    type Table = Script;

    fn table(&self, map: Option<&[u8]>) -> Option<Arc<Script>> {
        (map != Some(b"unknown")).then(|| Arc::clone(&self.0))
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts {
            read: Duration::from_secs(10),
            idle: None,
        }
    }
}

impl Table for Script {
    fn name(&self) -> &str {
        "scripted"
    }

    async fn answer(&self, request: &Request, _: Asked) -> Outcome {
        let (rows, outcome) = self.next(request).await;
        assert!(rows.is_empty(), "rows of no list");
        outcome
    }

    async fn list(&self, request: &Request, _: Asked, sender: mpsc::Sender<Row>) -> Outcome {
        let (rows, outcome) = self.next(request).await;
        for row in rows {
            sender.send(row).await.expect("a client");
        }
        outcome
    }
}

impl Script {
    async fn next(&self, request: &Request) -> (Vec<Row>, Outcome) {
        // Long enough for the client's next pieces to arrive during the call.
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        self.asked.lock().unwrap().push(asked(request));
        let next = self.outcomes.lock().unwrap().pop_front();
        match next.expect("an outcome for every question") {
            (rows, Some(outcome)) => (rows, outcome),
            (_, None) => std::future::pending().await,
        }
    }
}

/// A request as a dialog has it.
fn asked(request: &Request) -> String {
    let values = request.values.iter().map(|(name, value)| match &name[..] {
        b"key" => show(value),
        name => format!("{}={}", show(name), show(value)),
    });
    let table = request.table.as_deref().map(show);
    let secret = request.secret.iter();
    let secret = secret.map(|s| format!("{}={}", s.name(), show(s.expose().as_bytes())));
    let words: Vec<_> = table.into_iter().chain(values).chain(secret).collect();
    let needs = request
        .needs
        .map_or(String::new(), |name| format!(" needs {name}"));
    let words = format!("{}{needs}", words.join(" "));
    match &request.kind {
        Kind::Lookup => words,
        Kind::List(list) => format!("list {words}{}", asked_list(list)),
        Kind::Write(write) => format!("write {words}{}", asked_write(write)),
    }
}

fn asked_list(list: &List) -> String {
    let flags = [
        (list.is_recursive, " recursive"),
        (list.is_exact, " exact"),
        (!list.has_values, " names"),
    ];
    let flags: String = flags
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, word)| *word)
        .collect();
    let order = list
        .order
        .map_or(String::new(), |order| format!(" by {order:?}"));
    let most = list
        .most
        .map_or(String::new(), |most| format!(" most {most}"));
    let more = list
        .more
        .iter()
        .map(|list| format!(" then {}", asked(list)));
    let more: String = more.collect();
    format!(" under {}{flags}{order}{most}{more}", show(&list.prefix))
}

fn asked_write(write: &Write) -> String {
    let operations = write.operations.iter().map(|operation| {
        let value = operation.request.value("value").expect("a value");
        let needs = operation.request.needs.map_or("", |_| "*");
        let (key, value) = (show(&operation.key), show(value));
        match operation.change {
            Change::Set => format!(" set {key}{needs}={value}"),
            Change::Unset => format!(" unset {key}{needs}"),
            Change::Increment => format!(" increment {key}{needs} by {value}"),
        }
    });
    let hidden = if write.is_hidden { " hidden" } else { "" };
    let expires = match write.expires {
        0 => String::new(),
        seconds => format!(" expires {seconds}"),
    };
    format!("{hidden}{expires}:{}", operations.collect::<String>())
}

impl Rules<()> for Script {
    fn rules(&self) -> &() {
        &()
    }
}

impl Rules<PolicyActions> for Script {
    fn rules(&self) -> &PolicyActions {
        &self.actions
    }
}

impl Rules<Logins> for Script {
    fn rules(&self) -> &Logins {
        &self.logins
    }
}

fn outcome(text: &str) -> Outcome {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    let reason = || -> Failure {
        match rest {
            "backend timed out" => Reason::TimedOut.into(),
            "backend busy" => Reason::Busy.into(),
            "backend unreachable" => Reason::Unreachable.into(),
            "backend answered 503" => Reason::Answered(503).into(),
            "backend answered 301" => Reason::Answered(301).into(),
            _ => panic!("no reason of these dialogs: {rest}"),
        }
    };
    match kind {
        "found" => Outcome::Found(String::from_utf8(unescape(rest)).expect("text")),
        "done" => Outcome::Done,
        "not-found" => Outcome::NotFound,
        "refused" => Outcome::Refused(String::from_utf8(unescape(rest)).expect("text")),
        "uncertain" => Outcome::Temporary(Failure {
            effect: Effect::Unknown,
            ..reason()
        }),
        "temporary" => Outcome::Temporary(reason()),
        "permanent" => Outcome::Permanent(reason()),
        _ => panic!("no outcome: {text}"),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.extend(plain.as_bytes());
        let (kind, after) = escape.split_at(1);
        rest = after;
        match kind {
            "n" => out.push(b'\n'),
            "r" => out.push(b'\r'),
            "t" => out.push(b'\t'),
            "0" => out.push(0),
            "\\" => out.push(b'\\'),
            "x" => {
                let (digits, after) = rest.split_at(2);
                out.push(u8::from_str_radix(digits, 16).expect("two digits"));
                rest = after;
            }
            "{" => {
                let (repeat, after) = rest.split_once('}').expect("an end");
                let (what, times) = repeat.rsplit_once('*').expect("a number");
                let times = times.parse().expect("a number");
                out.extend(unescape(what).repeat(times));
                rest = after;
            }
            _ => panic!("no escape: \\{kind}"),
        }
    }
    out.extend(rest.as_bytes());
    out
}

/// Shows bytes as a dialog would write them; long runs are cut to their length.
fn show(bytes: &[u8]) -> String {
    let text = bytes
        .utf8_chunks()
        .flat_map(|chunk| {
            let valid = chunk.valid().chars().map(|c| match c {
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '\t' => "\\t".to_owned(),
                '\0' => "\\0".to_owned(),
                '\\' => "\\\\".to_owned(),
                c if c.is_control() => format!("\\x{:02x}", u32::from(c)),
                c => c.to_string(),
            });
            let invalid = chunk.invalid().iter().map(|b| format!("\\x{b:02x}"));
            valid.chain(invalid).collect::<Vec<_>>()
        })
        .collect::<String>();
    if text.len() > 2_000 {
        let start: String = text.chars().take(60).collect();
        return format!("{start}... {} bytes", bytes.len());
    }
    text
}
