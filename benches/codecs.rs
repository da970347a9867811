//! The cost of one request without a socket: grammars, calls and answers, each by itself.

#[path = "../tests/client/mod.rs"]
#[expect(
    dead_code,
    reason = "the grammars of lookups are measured with their own writers"
)]
mod client;

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use postgate::config::{Mode, Table, load};
use postgate::http::answer::read;
use postgate::http::call::compose;
use postgate::outcome::{Outcome, Reason};
use postgate::protocol::frame::{Lines, put_netstring, take_netstring};
use postgate::protocol::policy::Policy;
use postgate::protocol::quote::{quote, unquote};
use postgate::protocol::socketmap::Socketmap;
use postgate::protocol::tcp_lookup::TcpLookup;
use postgate::protocol::{Facts, MAX_REQUEST, Protocol, Step, Tag};
use postgate::request::Request;

const KEY: &str = "someone+lists@sender.example";
const VALUE: &str = "jane@example.org,joe@example.org";
const ACTION: &str = "PREPEND X-Spam-Score: 3.1";

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = frames, protocols, calls, answers
}
criterion_main!(benches);

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    let line = format!("get {KEY}\n");
    group.bench_function("line", |b| {
        let take = |mut input| Lines::default().take(&mut input, MAX_REQUEST);
        b.iter_batched(|| BytesMut::from(&*line), take, BatchSize::SmallInput);
    });
    let netstring = put_netstring(&[KEY.as_bytes()]);
    group.bench_function("netstring", |b| {
        let take = |mut input| take_netstring(&mut input, MAX_REQUEST);
        b.iter_batched(|| BytesMut::from(&*netstring), take, BatchSize::SmallInput);
    });
    group.bench_function("quote", |b| {
        b.iter(|| {
            let mut out = String::new();
            quote(black_box(VALUE), &mut out);
            out
        });
    });
    group.bench_function("unquote", |b| b.iter(|| unquote(black_box(KEY.as_bytes()))));
    group.finish();
}

fn protocols(criterion: &mut Criterion) {
    protocol::<TcpLookup>(criterion, TcpLookup::FACTS, VALUE);
    protocol::<Socketmap>(criterion, Socketmap::FACTS, VALUE);
    protocol::<Policy>(criterion, Policy::FACTS, ACTION);
}

fn protocol<P: Protocol>(criterion: &mut Criterion, program: &'static Facts, value: &str) {
    let mut group = criterion.benchmark_group(program.name);
    let asked = asked(program);
    let rules = P::Rules::default();
    group.throughput(Throughput::Bytes(asked.len() as u64));
    group.bench_function("request", |b| {
        let step = |mut input| P::open(&rules).0.next_step(&mut input);
        b.iter_batched(|| BytesMut::from(&*asked), step, BatchSize::SmallInput);
    });
    for (name, outcome) in [
        ("reply found", Outcome::Found(value.to_owned())),
        ("reply not found", Outcome::NotFound),
        (
            "reply temporary",
            Outcome::Temporary(Reason::TimedOut.into()),
        ),
    ] {
        group.bench_function(name, |b| {
            let (mut protocol, _) = P::open(&rules);
            b.iter(|| protocol.reply(Tag::default(), black_box(&outcome), &rules));
        });
    }
    group.finish();
}

fn calls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("call");
    for (name, program, keys) in [
        ("lookup: GET with a query", Socketmap::FACTS, ""),
        (
            "lookup: POST of JSON",
            Socketmap::FACTS,
            "method = \"POST\"\njson = { query = { key = \"{key}\" } }",
        ),
        ("policy: POST of a form", Policy::FACTS, ""),
        (
            "policy: POST of JSON",
            Policy::FACTS,
            "json = { mail = \"{*}\" }",
        ),
    ] {
        let table = table(program, keys);
        let request = request(program);
        group.bench_function(name, |b| {
            b.iter(|| compose(&table, black_box(&request)));
        });
    }
    group.finish();
}

fn answers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("answer");
    let json = "application/json";
    let many: Vec<_> = (0..100)
        .map(|n| format!("\"user{n}@example.org\""))
        .collect();
    let many = format!("[{}]", many.join(","));
    let pointed = "value = \"/data/result\"\nmissing = \"not-found\"";
    for (name, program, keys, content_type, body) in [
        ("string", Socketmap::FACTS, "", json, "\"jane@example.org\""),
        (
            "list",
            Socketmap::FACTS,
            "",
            json,
            r#"["jane@example.org","joe@example.org"]"#,
        ),
        ("list of 100", Socketmap::FACTS, "", json, &many),
        (
            "member of an object",
            Socketmap::FACTS,
            pointed,
            json,
            r#"{"status":"ok","took":12,"data":{"id":4711,"result":"jane@example.org"}}"#,
        ),
        (
            "no such member",
            Socketmap::FACTS,
            pointed,
            json,
            r#"{"status":"ok","took":12,"data":{}}"#,
        ),
        ("policy text", Policy::FACTS, "", "text/plain", ACTION),
        (
            "policy object",
            Policy::FACTS,
            "",
            json,
            r#"{"action":"PREPEND X-Spam-Score: 3.1","score":3.1}"#,
        ),
    ] {
        let reading = table(program, keys).endpoint.response_rules;
        group.bench_function(name, |b| {
            b.iter(|| read(content_type, black_box(body.as_bytes()), &reading));
        });
    }
    group.finish();
}

/// Returns the bytes that Postfix sends to a program.
fn asked(program: &'static Facts) -> Bytes {
    match program.name {
        "tcp-lookup" => format!("get {KEY}\n").into(),
        "socketmap" => put_netstring(&[b"users ", KEY.as_bytes()]),
        _ => client::rcpt(&[]).into(),
    }
}

/// Returns the request that a program reads from them.
fn request(program: &'static Facts) -> Request {
    let mut input = BytesMut::from(&*asked(program));
    let step = match program.name {
        "tcp-lookup" => TcpLookup::default().next_step(&mut input),
        "socketmap" => Socketmap.next_step(&mut input),
        _ => Policy::default().next_step(&mut input),
    };
    match step {
        Step::Ask(_, request) => request,
        step => panic!("{step:?} where a question is due"),
    }
}

/// Makes the one table of a configuration.
fn table(program: &'static Facts, keys: &str) -> Table {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("codecs.toml");
    let text = format!(
        "[{}.users]\ntarget = \"http://127.0.0.1/users\"\n{keys}\n",
        program.name
    );
    std::fs::write(&path, text).expect("a file");
    let (config, report) = load(&path, Mode::Serve(Socketmap::FACTS));
    let config = config.unwrap_or_else(|| panic!("{keys}: {:?}", report.problems()));
    config.tables.into_iter().next().expect("a table")
}
