//! Feeds each protocol random bytes, cut anywhere: no panic, bounded memory, and the same steps
//! however the bytes arrive and whatever came before them. Then replies with random values: every
//! reply is one whole frame. Then the other side: random answers, URLs and configurations.
//!
//! The seeds are the files under `tests/fuzz` and what the dialogs send. The runs are the same
//! every time; `POSTGATE_FUZZ_SEED` and `POSTGATE_FUZZ_RUNS` choose others. What a run fails on
//! becomes a seed or, better, a dialog.

#[path = "fuzz/answers.rs"]
mod answers;
#[path = "fuzz/configs.rs"]
mod configs;
#[path = "fuzz/logins.rs"]
mod logins;
#[path = "fuzz/targets.rs"]
mod targets;

use std::path::Path;

use bytes::BytesMut;
use fastrand::Rng;
use postgate::outcome::{Outcome, Row};
use postgate::protocol::dict::Dict;
use postgate::protocol::frame::{Frame, take_netstring};
use postgate::protocol::policy::Policy;
use postgate::protocol::policy::rules::PolicyActions;
use postgate::protocol::sasl::Sasl;
use postgate::protocol::socketmap::Socketmap;
use postgate::protocol::tcp_lookup::TcpLookup;
use postgate::protocol::{MAX_REQUEST, Protocol, Step, Tag, say};
use postgate::reply::Reply;

const RUNS: u64 = 20_000;

#[test]
fn tcp_lookup() {
    let words = ["get ", "\n", "%", "%00", "%zz", "\r", " ", "put ", "get"];
    fuzz_requests::<TcpLookup>("tcp-lookup", &words, &());
}

#[test]
fn socketmap() {
    let words = [
        "0:,", ":", ",", "9", "65536:", "65537:", " ", "4:nm a,", "000", "-1:",
    ];
    fuzz_requests::<Socketmap>("socketmap", &words, &());
}

#[test]
fn policy() {
    let words = [
        "=",
        "\n",
        "\n\n",
        "request=",
        "smtpd_access_policy",
        "a=b\n",
        "\r\n",
        "\0",
    ];
    fuzz_requests::<Policy>("policy", &words, &PolicyActions::default());
}

#[test]
fn sasl() {
    let words = [
        "\t",
        "\n",
        "VERSION\t1\t0\n",
        "CPID\t1\n",
        "AUTH\t1\tPLAIN",
        "CONT\t1\t",
        "CANCEL\t1\n",
        "\tresp=",
        "=",
        "AGpvZQBwdw==",
        "\tsecured",
        "\trip=::1",
        "LOGIN",
        "XOAUTH2",
        "OAUTHBEARER",
    ];
    fuzz_requests::<Sasl>("sasl", &words, &logins::all());
}

#[test]
fn dict() {
    let words = [
        "H3\t2\t0\t\td\n",
        "H2\t2\t0\tu\td\n",
        "Lshared/k\tu\n",
        "I1\t0\tpriv/a/\tu\n",
        "B1\tu\n",
        "S1\tshared/k\tv\n",
        "A1\tshared/k\t-1\n",
        "C1\n",
        "\t",
        "\x01",
        "\r\n",
        "\0",
    ];
    fuzz_requests::<Dict>("dict", &words, &());
}

#[test]
fn a_request_is_the_same_whatever_came_before_it() {
    let mut rng = Rng::with_seed(seed());
    for _ in 0..runs() / 10 {
        alone_and_together::<TcpLookup>(&mut rng, |rng| {
            let key: String = (0..rng.usize(1..20)).map(|_| word(rng)).collect();
            let quoted = key.bytes().map(|byte| match byte {
                b'%' | 0..=b' ' | 0x7f.. => format!("%{byte:02x}"),
                _ => char::from(byte).to_string(),
            });
            format!("get {}\n", quoted.collect::<String>()).into_bytes()
        });
        alone_and_together::<Socketmap>(&mut rng, |rng| {
            let payload: String = (0..rng.usize(..20)).map(|_| word(rng)).collect();
            format!("{}:{payload},", payload.len()).into_bytes()
        });
        alone_and_together::<Policy>(&mut rng, |rng| {
            let line = |rng: &mut Rng| {
                let value = word(rng).replace('\n', "");
                format!("a{}={value}\n", rng.u8(..4))
            };
            let lines: String = (0..rng.usize(1..6)).map(|_| line(rng)).collect();
            format!("{lines}\n").into_bytes()
        });
    }
}

fn word(rng: &mut Rng) -> &'static str {
    const WORDS: [&str; 16] = [
        "a",
        "get ",
        "\n",
        "\r",
        "%",
        ":",
        ",",
        "=",
        " ",
        "0:,",
        "5:",
        "\0",
        "\u{fc}",
        "@",
        "4:a b,",
        "request=x",
    ];
    WORDS[rng.usize(..WORDS.len())]
}

/// Several requests in one stream make the steps that each of them makes alone.
fn alone_and_together<P: Protocol>(rng: &mut Rng, request: impl Fn(&mut Rng) -> Vec<u8>) {
    let requests: Vec<Vec<u8>> = (0..rng.usize(2..8)).map(|_| request(rng)).collect();
    let mut alone = Vec::new();
    let rules = P::Rules::default();
    for request in &requests {
        let steps = steps::<P>(request, &rules, |_| usize::MAX);
        assert_eq!(steps.len(), 1, "{}", request.escape_ascii());
        alone.extend(steps);
        if let Some(Step::Refuse(_)) = alone.last() {
            break;
        }
    }
    let size = rng.usize(1..100);
    let together = requests.concat();
    for cut in [1, size, usize::MAX] {
        let seen = steps::<P>(&together, &rules, |_| cut);
        assert_eq!(seen, alone, "{}", together.escape_ascii());
    }
}

#[test]
fn every_reply_is_one_whole_frame() {
    let mut rng = Rng::with_seed(seed());
    for run in 0..runs() {
        let value = value(&mut rng);
        let outcome = Outcome::Found(value.clone());
        let place = format!("run {run}: {value:.100?}");

        let line = reply::<TcpLookup>(&outcome);
        assert!(line.len() <= 4096, "{place}");
        let text = std::str::from_utf8(&line).expect("text");
        let line = text.strip_suffix('\n').expect("a line");
        assert!(
            line.starts_with("200 ") || line.starts_with("400 "),
            "{place}"
        );
        assert!(
            line.bytes().all(|b| b.is_ascii_graphic() || b == b' '),
            "{place}"
        );
        assert_eq!(line.matches(' ').count(), 1, "{place}");

        let payload = reply_of_socketmap(&outcome);
        assert!(payload.len() <= 100_000, "{place}");
        assert!(
            payload == format!("OK {value}") || payload == "TEMP value cannot be sent",
            "{place}"
        );

        assert_eq!(
            fields_of_dict(&reply_of_dict(&outcome)),
            [value.as_bytes()],
            "{place}"
        );
        let mut rows = BytesMut::new();
        let row = Row {
            key: value.clone().into(),
            value: value.clone(),
        };
        Dict::open(&()).0.put_row(&row, &mut rows);
        assert_eq!(
            fields_of_dict(&rows),
            [value.as_bytes(), value.as_bytes()],
            "{place}"
        );

        let text = reply_text(reply::<Policy>(&outcome));
        let action = text
            .strip_prefix("action=")
            .and_then(|r| r.strip_suffix("\n\n"));
        let action = action.expect("an action");
        assert!(
            !action.contains('\n') && !action.is_empty() && action.len() <= 500,
            "{place}"
        );
        let word = action.split([' ', '\t', ',']).next().expect("a word");
        let is_number = word.bytes().all(|b| b.is_ascii_digit());
        assert!(!is_number || action.len() > word.len() + 1, "{place}");
        let permits = ["ok", "relay", "permit"];
        assert!(
            !permits.contains(&word.to_ascii_lowercase().as_str()),
            "{place}"
        );
    }
}

fn reply_of_socketmap(outcome: &Outcome) -> String {
    let mut reply = BytesMut::from(&reply::<Socketmap>(outcome)[..]);
    let Frame::Whole(payload) = take_netstring(&mut reply, 100_000) else {
        panic!("no netstring: {outcome:?}");
    };
    assert!(reply.is_empty());
    reply_text(payload.to_vec())
}

/// The reply to a lookup of a dict.
fn reply_of_dict(outcome: &Outcome) -> Vec<u8> {
    let (mut dict, _) = Dict::open(&());
    let mut input = BytesMut::from("H3\t2\t0\t\td\nLshared/k\t\n");
    let Step::Ask(tag, _) = dict.next_step(&mut input) else {
        panic!("no lookup");
    };
    match say(&mut dict, tag, outcome.clone(), &()) {
        (_, Reply::Send(bytes)) => bytes.to_vec(),
        (_, Reply::Close) => panic!("nothing said of {outcome:?}"),
    }
}

/// The fields of a line that says "found", as Dovecot reads them.
fn fields_of_dict(line: &[u8]) -> Vec<Vec<u8>> {
    let line = line.strip_suffix(b"\n").expect("a line");
    let fields = line.strip_prefix(b"O").expect("found");
    let plain = |field: &[u8]| {
        let mut plain = Vec::new();
        let mut bytes = field.iter();
        while let Some(&byte) = bytes.next() {
            plain.push(match byte {
                b'\n' | b'\r' | 0 => panic!("{} is not escaped", byte),
                1 => match bytes.next() {
                    Some(b'1') => 1,
                    Some(b't') => b'\t',
                    Some(b'n') => b'\n',
                    Some(b'r') => b'\r',
                    Some(b'0') => 0,
                    other => panic!("no escape: {other:?}"),
                },
                byte => byte,
            });
        }
        plain
    };
    fields.split(|byte| *byte == b'\t').map(plain).collect()
}

fn reply<P: Protocol>(outcome: &Outcome) -> Vec<u8> {
    let (mut protocol, _) = P::open(&P::Rules::default());
    let rules = P::Rules::default();
    match say(&mut protocol, Tag::default(), outcome.clone(), &rules) {
        (_, Reply::Send(bytes)) => bytes.to_vec(),
        (_, Reply::Close) => panic!("nothing said of {outcome:?}"),
    }
}

fn reply_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

/// A value of a backend's: pieces of actions, of frames, of anything.
fn value(rng: &mut Rng) -> String {
    const PIECES: [&str; 24] = [
        "DUNNO",
        "REJECT ",
        "action=",
        "450",
        "OK",
        "permit",
        ",",
        " ",
        "\n",
        "\n\n",
        "\r",
        "\0",
        "\t",
        "%",
        "%00",
        "x",
        "\u{fc}",
        "\u{2028}",
        "FILTER ",
        ":",
        "@",
        "PREPEND X: y",
        "\u{1b}",
        "reject_unauth_destination",
    ];
    let count = rng.usize(1..8);
    let mut value: String = (0..count)
        .map(|_| PIECES[rng.usize(..PIECES.len())])
        .collect();
    if rng.u8(..20) == 0 {
        let piece = PIECES[rng.usize(..PIECES.len())];
        value.push_str(&piece.repeat(rng.usize(1..60_000) / piece.len() + 1));
    }
    value
}

fn fuzz_requests<P: Protocol>(name: &str, words: &[&str], rules: &P::Rules) {
    let seeds = seeds(name);
    assert!(seeds.len() > 5, "only {} seeds of {name}", seeds.len());
    let mut rng = Rng::with_seed(seed());
    for seed in &seeds {
        compare::<P>(seed, rules, &mut rng);
    }
    for _ in 0..runs() {
        let mut input = seeds[rng.usize(..seeds.len())].clone();
        // Long seeds show limits; a few of them do.
        if input.len() > 1_000 && rng.u8(..50) > 0 {
            input.truncate(100);
        }
        for _ in 0..rng.usize(1..6) {
            mutate(&mut input, &seeds, words, &mut rng);
        }
        compare::<P>(&input, rules, &mut rng);
    }
}

/// What the dialogs send, and the files.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut seeds = Vec::new();
    for folder in ["dialogs", "fuzz"] {
        let Ok(entries) = std::fs::read_dir(tests.join(folder).join(name)) else {
            continue;
        };
        let mut paths: Vec<_> = entries
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        for path in paths {
            let bytes = std::fs::read(&path).expect("a seed");
            seeds.push(if folder == "fuzz" {
                bytes
            } else {
                sent(&bytes)
            });
        }
    }
    seeds
}

/// The client's lines of a dialog, their line feeds resolved; the rest may stay as it is.
fn sent(dialog: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(dialog)
        .lines()
        .filter_map(|line| line.strip_prefix("C: "))
        .map(|line| {
            line.replace("\\n", "\n")
                .replace("\\t", "\t")
                .replace("\\r", "\r")
                .replace("\\t", "\t")
                .replace("\\0", "\0")
        })
        .collect::<String>()
        .into_bytes()
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&str], rng: &mut Rng) {
    let at = rng.usize(..=input.len());
    match rng.u8(..7) {
        0 => input.insert(at, rng.u8(..)),
        1 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
        2 if at < input.len() => drop(input.remove(at)),
        3 => drop(input.splice(at..at, words[rng.usize(..words.len())].bytes())),
        4 => input.truncate(at),
        5 => {
            let other = &seeds[rng.usize(..seeds.len())];
            input.extend(other.iter().take(200));
        }
        _ => {
            let piece = input[at..].iter().take(40).copied().collect::<Vec<_>>();
            input.splice(at..at, piece);
        }
    }
}

/// The bytes at once, one by one if they are few, and in pieces: always the same steps.
fn compare<P: Protocol>(input: &[u8], rules: &P::Rules, rng: &mut Rng) {
    let whole = steps::<P>(input, rules, |_| usize::MAX);
    let size = rng.usize(1..200);
    let pieces = steps::<P>(input, rules, |rng| rng.usize(1..=size));
    assert_eq!(whole, pieces, "{}", input.escape_ascii());
    if input.len() < 200 {
        let bytes = steps::<P>(input, rules, |_| 1);
        assert_eq!(whole, bytes, "{}", input.escape_ascii());
    }
}

/// Everything a protocol makes of these bytes, up to what it refuses.
fn steps<P: Protocol>(
    input: &[u8],
    rules: &P::Rules,
    cut: impl Fn(&mut Rng) -> usize,
) -> Vec<Step> {
    let mut rng = Rng::with_seed(input.len() as u64);
    let (mut protocol, _) = P::open(rules);
    let mut buffer = BytesMut::new();
    let mut steps = Vec::new();
    let mut rest = input;
    loop {
        let (piece, after) = rest.split_at(cut(&mut rng).min(rest.len()));
        rest = after;
        buffer.extend_from_slice(piece);
        loop {
            match protocol.next_step(&mut buffer) {
                Step::NeedMore => break,
                step @ Step::Refuse(_) => {
                    steps.push(step);
                    return steps;
                }
                step => steps.push(step),
            }
        }
        assert!(
            buffer.len() <= MAX_REQUEST + 16,
            "{} bytes are kept",
            buffer.len()
        );
        if rest.is_empty() {
            return steps;
        }
    }
}

fn seed() -> u64 {
    number("POSTGATE_FUZZ_SEED", 20_261_120)
}

fn runs() -> u64 {
    number("POSTGATE_FUZZ_RUNS", RUNS)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}
