//! A protocol with all that Postfix's three lack, through the loop that serves: a greeting, numbers
//! of requests, and replies in the order of the requests while several are in flight.
//!
//! ```text
//! greeting:  hello LF
//! request:   NUMBER SPACE key LF
//! reply:     NUMBER SPACE value LF
//! ping LF    is answered with "pong LF" in its turn, quit LF with "0 bye LF" and the end
//! ```
//!
//! A key that begins with "+" is a write; one that ends in "/" is a list, with a line "key=value LF"
//! for each row before its reply.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use postgate::observe::log::Recorder;
use postgate::outcome::{Outcome, Reason, Row};
use postgate::protocol::facts::{Content, Meaning, PickedBy};
use postgate::protocol::{Facts, MAX_SECS, POSTFIX_WAITS_SECS, Protocol, Step, Tag, Unsayable};
use postgate::reply::Reply;
use postgate::request::{Kind, Request};
use postgate::serve::connections::Connections;
use postgate::serve::peer::{End, Timeouts};
use postgate::session::{Context, serve};
use postgate::table::{Asked, Backend, Rules, Table};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

struct Numbered;

impl Protocol for Numbered {
    const FACTS: &'static Facts = &Facts {
        name: "numbered",
        client: "Postfix",
        serves: "numbered lookups",
        query: ("NAME KEY", "the value of KEY"),
        picked_by: PickedBy::Socket,
        unknown: Reason::UnknownMap,
        max_in_flight: 4,
        max_secs: MAX_SECS,
        client_waits_secs: POSTFIX_WAITS_SECS,
        keeps_time: false,
        drain_within: None,
        is_repeatable: true,
        values: &["key"],
        secrets: &[],
        constants: &[],
        expansions: &[],
        key: Some("key"),
        shown: &["key"],
        outcomes: Outcome::NAMES,
        is_open: false,
        has_whole_json: false,
        raw_value: None,
        has_actions: false,
        has_cache: true,
        inherits_all: true,
        method: "GET",
        default_query: &[("key", "key")],
        answers_secrets: false,
        object_value: None,
        empty: Meaning::NotFound,
        status_404: Meaning::NotFound,
        unfit: Meaning::NotFound,
        content: Content::Value,
        has_parts: false,
        addresses: &[],
        counting: None,
        operations: &[],
    };

    type Rules = Suffix;

    fn open(_: &Suffix) -> (Self, Bytes) {
        (Self, Bytes::from_static(b"hello\n"))
    }

    fn next_step(&mut self, input: &mut BytesMut) -> Step {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
            return Step::NeedMore;
        };
        let line = input.split_to(end + 1).freeze();
        let line = line.slice(..end);
        if line == "ping" {
            return Step::Send(Bytes::from_static(b"pong\n"));
        }
        if line == "quit" {
            return Step::Refuse(Outcome::Found("bye".to_owned()));
        }
        let text = std::str::from_utf8(&line).expect("text");
        let (number, key) = text.split_once(' ').expect("a number and a key");
        let tag = Tag(number.parse().expect("a number"));
        match key {
            "here" => Step::Answer(tag, Outcome::NotFound),
            key => {
                let kind = if key.starts_with('+') {
                    Kind::Write(Box::default())
                } else if key.ends_with('/') {
                    Kind::List(Box::default())
                } else {
                    Kind::Lookup
                };
                let request = Request::of(None, "key", key.to_owned().into());
                Step::Ask(tag, Request { kind, ..request })
            }
        }
    }

    fn put_row(&self, row: &Row, out: &mut BytesMut) {
        out.extend_from_slice(&row.key);
        out.extend_from_slice(format!("={}\n", row.value).as_bytes());
    }

    fn reply(&mut self, tag: Tag, outcome: &Outcome, rules: &Suffix) -> Result<Reply, Unsayable> {
        let text = match outcome {
            Outcome::Found(value) if value == "unsayable" => {
                return Err(Unsayable(Reason::ValueCannotBeSent.into()));
            }
            Outcome::Found(value) if value == "close" => return Ok(Reply::Close),
            Outcome::Found(value) => format!("{value}{}", rules.0),
            Outcome::Done => "done".to_owned(),
            Outcome::NotFound | Outcome::Refused(_) => "-".to_owned(),
            Outcome::Temporary(failure) | Outcome::Permanent(failure) => failure.reason.to_string(),
        };
        Ok(Reply::Send(format!("{} {text}\n", tag.0).into()))
    }
}

/// What a table of this protocol adds to each value.
#[derive(Default)]
struct Suffix(&'static str);

/// A table whose calls end when the test says so.
#[derive(Clone)]
struct Gated(Arc<Calls>);

struct Calls {
    suffix: Suffix,
    /// The calls in flight, by key.
    open: Mutex<HashMap<String, oneshot::Sender<Outcome>>>,
    /// Where the rows of a list go, by its key.
    lists: Mutex<HashMap<String, mpsc::Sender<Row>>>,
    /// How many calls have begun, and how many have ended.
    begun: watch::Sender<usize>,
    ended: watch::Sender<usize>,
}

impl Backend for Gated {
    type Table = Calls;

    fn table(&self, _: Option<&[u8]>) -> Option<Arc<Calls>> {
        Some(Arc::clone(&self.0))
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts {
            read: Duration::from_secs(10),
            idle: None,
        }
    }
}

impl Table for Calls {
    fn name(&self) -> &str {
        "gated"
    }

    async fn answer(&self, request: &Request, _: Asked) -> Outcome {
        let key = Self::key(request);
        let (say, said) = oneshot::channel();
        self.open.lock().unwrap().insert(key, say);
        self.begun.send_modify(|count| *count += 1);
        let outcome = said.await.expect("an outcome");
        self.ended.send_modify(|count| *count += 1);
        outcome
    }

    async fn list(&self, request: &Request, asked: Asked, rows: mpsc::Sender<Row>) -> Outcome {
        self.lists.lock().unwrap().insert(Self::key(request), rows);
        self.answer(request, asked).await
    }
}

impl Calls {
    fn end(&self, key: &str, outcome: Outcome) {
        let call = self.open.lock().unwrap().remove(key).expect("a call");
        call.send(outcome).expect("somebody who waits");
    }

    fn key(request: &Request) -> String {
        let key = request.value("key").expect("a key");
        String::from_utf8(key.to_vec()).expect("text")
    }
}

impl Rules<Suffix> for Calls {
    fn rules(&self) -> &Suffix {
        &self.suffix
    }
}

/// One connection, and the calls behind it.
struct Connected {
    client: DuplexStream,
    serving: JoinHandle<End>,
    calls: Arc<Calls>,
    connections: Arc<Connections>,
}

impl Connected {
    async fn new() -> Self {
        let calls = Arc::new(Calls {
            suffix: Suffix("!"),
            open: Mutex::default(),
            lists: Mutex::default(),
            begun: watch::Sender::new(0),
            ended: watch::Sender::new(0),
        });
        let (ours, client) = duplex(1 << 16);
        let connections = Arc::new(Connections::default());
        let (backend, all) = (Gated(Arc::clone(&calls)), Arc::clone(&connections));
        let serving = tokio::spawn(async move {
            let guard = all.admit(|| 1).await;
            let context = Context {
                guard: &guard,
                recorder: &Recorder::default(),
            };
            serve::<Numbered, _, _>(ours, &backend, context).await
        });
        let mut connected = Self {
            client,
            serving,
            calls,
            connections,
        };
        connected.receives("hello\n").await;
        connected
    }

    async fn sends(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.expect("sent");
    }

    async fn receives(&mut self, expected: &str) {
        let mut seen = vec![0; expected.len()];
        self.client.read_exact(&mut seen).await.expect("a reply");
        assert_eq!(String::from_utf8_lossy(&seen), expected);
    }

    /// Nothing is received however long the test waits: time is paused.
    async fn receives_nothing(&mut self) {
        let mut byte = [0];
        let read = timeout(Duration::from_secs(3600), self.client.read(&mut byte)).await;
        assert!(read.is_err(), "{read:?}: {:?}", byte[0] as char);
    }

    async fn begun(&self, count: usize) {
        let mut begun = self.calls.begun.subscribe();
        begun
            .wait_for(|begun| *begun >= count)
            .await
            .expect("calls");
    }

    fn keys(&self) -> Vec<String> {
        let open = self.calls.open.lock().unwrap();
        let mut keys: Vec<_> = open.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    fn answer(&self, key: &str, outcome: Outcome) {
        self.calls.end(key, outcome);
    }

    /// Puts a row of a list; fails where the list has made as many as it may.
    fn put_row(&self, list: &str, name: &str) -> Result<(), TrySendError<Row>> {
        let lists = self.calls.lists.lock().unwrap();
        lists[list].try_send(Row {
            key: name.into(),
            value: list.to_owned(),
        })
    }

    /// The end of a list: no row comes after it.
    fn end_list(&self, list: &str) {
        self.calls.lists.lock().unwrap().remove(list);
        self.answer(list, Outcome::Done);
    }

    fn find(&self, key: &str) {
        self.answer(key, Outcome::Found(key.to_uppercase()));
    }
}

#[tokio::test(start_paused = true)]
async fn four_lookups_are_in_flight_and_the_replies_keep_the_order_of_the_requests() {
    let mut all = Connected::new().await;
    all.sends("7 a\n6 b\n5 c\n4 d\n3 e\n2 f\n").await;
    all.begun(4).await;
    all.receives_nothing().await;
    assert_eq!(all.keys(), ["a", "b", "c", "d"]);
    for key in ["d", "c", "b"] {
        all.find(key);
    }
    all.receives_nothing().await;
    assert_eq!(all.keys(), ["a"], "no more than four without their replies");
    all.find("a");
    all.receives("7 A!\n6 B!\n5 C!\n4 D!\n").await;
    all.begun(6).await;
    all.find("f");
    all.find("e");
    all.receives("3 E!\n2 F!\n").await;
    drop(all.client);
    assert!(matches!(all.serving.await.unwrap(), End::Eof));
}

#[tokio::test(start_paused = true)]
async fn what_needs_no_call_waits_for_its_turn() {
    let mut all = Connected::new().await;
    all.sends("ping\n1 a\nping\n2 here\n").await;
    all.receives("pong\n").await;
    all.begun(1).await;
    all.receives_nothing().await;
    all.find("a");
    all.receives("1 A!\npong\n2 -\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_for_what_is_before_it_and_holds_what_is_after_it() {
    let mut all = Connected::new().await;
    all.sends("1 a\n2 b\n3 +c\n4 d\n5 +e\n6 f\n").await;
    all.begun(2).await;
    all.find("b");
    all.receives_nothing().await;
    assert_eq!(all.keys(), ["a"]);
    all.find("a");
    all.receives("1 A!\n2 B!\n").await;
    all.begun(3).await;
    all.receives_nothing().await;
    assert_eq!(all.keys(), ["+c"]);
    all.answer("+c", Outcome::Done);
    all.receives("3 done\n").await;
    all.begun(4).await;
    all.receives_nothing().await;
    assert_eq!(all.keys(), ["d"], "the next write waits for its own turn");
    all.find("d");
    all.receives("4 D!\n").await;
    all.begun(5).await;
    all.answer("+e", Outcome::Done);
    all.receives("5 done\n").await;
    all.begun(6).await;
    all.find("f");
    all.receives("6 F!\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_leaves_no_write_behind() {
    let mut all = Connected::new().await;
    all.sends("1 a\n2 +b\n3 +c\n").await;
    all.begun(1).await;
    let calls = Arc::clone(&all.calls);
    drop(all.client);
    calls.end("a", Outcome::NotFound);
    assert!(matches!(all.serving.await.unwrap(), End::Broken(_)));
    assert_eq!(*calls.begun.borrow(), 1);
}

#[tokio::test(start_paused = true)]
async fn rows_go_out_as_they_come_and_in_the_turn_of_their_list() {
    let mut all = Connected::new().await;
    all.sends("1 a/\n2 b/\n3 c\n").await;
    all.begun(3).await;
    all.find("c");
    all.put_row("b/", "x").expect("room");
    all.receives_nothing().await;
    all.put_row("a/", "y").expect("room");
    all.receives("y=a/\n").await;
    all.put_row("a/", "z").expect("room");
    all.put_row("a/", "zz").expect("room");
    all.end_list("a/");
    all.receives("z=a/\nzz=a/\n1 done\nx=b/\n").await;
    all.receives_nothing().await;
    all.end_list("b/");
    all.receives("2 done\n3 C!\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_list_stops_while_its_rows_are_not_read() {
    let mut all = Connected::new().await;
    all.sends("1 a/\n").await;
    all.begun(1).await;
    let large = "x".repeat(1 << 18);
    // The way to the client is 64 KiB wide.
    let mut put = 0;
    while all.put_row("a/", &large).is_ok() {
        put += 1;
        assert!(put < 100, "{put} rows of 256 KiB are kept");
        tokio::task::yield_now().await;
    }
    let row = format!("{large}=a/\n");
    for _ in 0..put {
        all.receives(&row).await;
    }
    all.end_list("a/");
    all.receives("1 done\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_said_costs_its_own_reply_only() {
    let mut all = Connected::new().await;
    all.sends("1 a\n2 b\n").await;
    all.begun(2).await;
    all.answer("a", Outcome::Found("unsayable".to_owned()));
    all.find("b");
    all.receives("1 value cannot be sent\n2 B!\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_ends_the_connection_is_the_last_and_comes_last() {
    let mut all = Connected::new().await;
    all.sends("1 a\nquit\n2 b\n").await;
    all.begun(1).await;
    all.receives_nothing().await;
    assert_eq!(all.keys(), ["a"]);
    all.find("a");
    all.receives("1 A!\n0 bye!\n").await;
    let mut rest = Vec::new();
    all.client.read_to_end(&mut rest).await.expect("the end");
    assert!(rest.is_empty());
    drop(all.client);
    assert!(matches!(all.serving.await.unwrap(), End::Refused));
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_closes_ends_what_is_in_flight_behind_it() {
    let mut all = Connected::new().await;
    all.sends("1 a\n2 b\n").await;
    all.begun(2).await;
    all.answer("a", Outcome::Found("close".to_owned()));
    assert!(matches!(all.serving.await.unwrap(), End::Closed));
    let behind = all.calls.open.lock().unwrap().remove("b").expect("a call");
    assert!(behind.is_closed(), "its call was cancelled");
}

#[tokio::test(start_paused = true)]
async fn calls_go_on_while_a_client_does_not_read() {
    let mut all = Connected::new().await;
    all.sends("1 a\n2 b\n3 c\n").await;
    all.begun(3).await;
    let large = "x".repeat(1 << 20);
    all.answer("a", Outcome::Found(large.clone()));
    let mut ended = all.calls.ended.subscribe();
    ended.wait_for(|ended| *ended == 1).await.expect("a call");
    all.receives("1 ").await;
    all.find("b");
    all.find("c");
    // The first reply fills the way to the client, who has read two bytes of it.
    let both = ended.wait_for(|ended| *ended == 3);
    let both = timeout(Duration::from_secs(5), both).await;
    assert!(
        both.is_ok(),
        "{:?} calls have ended",
        all.calls.ended.borrow()
    );
    all.receives(&format!("{large}!\n2 B!\n3 C!\n")).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_half_closes_gets_all_its_replies() {
    let mut all = Connected::new().await;
    all.sends("1 a\n2 b\n3 c\n4 d\n5 e\n6 half").await;
    all.client.shutdown().await.expect("a half-closed side");
    all.begun(4).await;
    for key in ["d", "c", "b", "a"] {
        all.find(key);
    }
    all.begun(5).await;
    all.find("e");
    all.receives("1 A!\n2 B!\n3 C!\n4 D!\n5 E!\n").await;
    assert!(matches!(all.serving.await.unwrap(), End::Eof));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_was_asked() {
    let mut all = Connected::new().await;
    all.sends("1 a\n2 b\n").await;
    all.begun(2).await;
    all.connections.stop();
    all.find("b");
    all.receives_nothing().await;
    all.find("a");
    all.receives("1 A!\n2 B!\n").await;
    assert!(matches!(all.serving.await.unwrap(), End::Shutdown));
}
