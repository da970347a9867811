//! URLs of any template and any key: a URL keeps scheme, host, port and the number of its path's
//! segments, and each of them reads back as what was to stand there.

use fastrand::Rng;
use percent_encoding::percent_decode;
use postgate::config::load;
use postgate::config::{
    Mode, Parameters, Part, Placeholder, Segment, Table, Target, Template, Vocabulary,
};
use postgate::http::call::compose;
use postgate::outcome::Outcome;
use postgate::protocol::Protocol as _;
use postgate::protocol::dict::Dict;
use postgate::protocol::facts::Expansion;
use postgate::protocol::tcp_lookup::TcpLookup;
use postgate::request::Request;
use postgate::table::keys;
use reqwest::Url;

const ORIGINS: [&str; 16] = [
    "http://h",
    "https://h",
    "HTTP://H.Example:8080",
    "http://127.0.0.1:80",
    "http://[::1]:8080",
    "https://\u{e4}.example",
    "http://h:0",
    "http://h:99999",
    "http://joe@h",
    "http://",
    "ftp://h",
    "h",
    "http://h.",
    "http://%41",
    "http://0x7f.1",
    "http://{key}",
];

const PIECES: [&str; 36] = [
    "/", "/", "/", "a", "{key}", "{key}", "{local}", "{domain}", "{name}", ".", "..", "%2e", "%2E",
    "%2F", "%00", "%zz", "%", "?", "?", "&", "=", "+", "{{", "}}", "{", "\u{e4}", "~", "|", "^",
    "'", ";", "@", ":", "\"", "*", "<",
];

const KEYS: [&[u8]; 30] = [
    b"a",
    b"joe@example.com",
    b"@",
    b".",
    b"..",
    b"/",
    b"\\",
    b"?",
    b"#",
    b"%",
    b"%2e",
    b"%2E%2e",
    b" ",
    b"\t",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xc3",
    "\u{e4}".as_bytes(),
    b"&",
    b"=",
    b"+",
    b":",
    b";",
    b"{key}",
    b"//evil.example",
    b"http://evil.example/",
    b"joe:s@evil",
    b"*",
    b"<>",
];

/// The pieces that only targets of dicts have.
const PIECES_OF_DICTS: [&str; 8] = [
    "{/path*}",
    "{/path*}",
    "{/path*}/",
    "{/user}",
    "{user}",
    "{scope}",
    "{dict}",
    "{/key}",
];

#[test]
fn no_key_changes_the_shape_of_a_url() {
    let mut rng = Rng::with_seed(super::seed());
    let mut table = table("[tcp-lookup.users]\ntarget = \"http://h/{key}\"\nspecial-keys = true\n");
    let mut composed = 0;
    for run in 0..super::runs() {
        let text = text(&mut rng, &PIECES);
        let vocabulary = Vocabulary {
            protocols: &[TcpLookup::FACTS],
            extra: &[],
            words: &[],
        };
        let Ok(target) = Target::parse(&text, vocabulary) else {
            continue;
        };
        for _ in 0..3 {
            let key: Vec<u8> = (0..rng.usize(..4))
                .flat_map(|_| KEYS[rng.usize(..KEYS.len())])
                .copied()
                .collect();
            let place = || format!("run {run}: {text} and {}", key.escape_ascii());
            let request = Request::of(None, "key", key.clone().into());
            table.endpoint.targets = vec![target.clone()];
            let call =
                keys::normalise(&request, &table).and_then(|request| compose(&table, &request));
            match (call, expected(&target, &key)) {
                (Ok(call), Some(expected)) => {
                    composed += 1;
                    let [url] = call.urls.as_slice() else {
                        panic!("{}: {:?}", place(), call.urls);
                    };
                    compare(url, &target, &expected, &place);
                }
                (Err(Outcome::NotFound), None) => {}
                (call, expected) => panic!("{}: {call:?}, not {expected:?}", place()),
            }
        }
    }
    assert!(composed > 1_000, "only {composed} calls");
}

#[test]
fn no_key_or_user_changes_the_shape_of_a_url_of_a_dict() {
    let mut rng = Rng::with_seed(super::seed());
    let mut table = table("[dict.d]\ntarget = \"http://h/{key}\"\n");
    let pieces = [&PIECES[..], &PIECES_OF_DICTS, &PIECES_OF_DICTS].concat();
    let (mut composed, mut expanded) = (0, 0);
    for run in 0..super::runs() {
        let text = text(&mut rng, &pieces);
        let vocabulary = Vocabulary {
            protocols: &[Dict::FACTS],
            ..Vocabulary::default()
        };
        let Ok(target) = Target::parse(&text, vocabulary) else {
            continue;
        };
        for _ in 0..3 {
            let mut any = |most| -> Vec<u8> {
                (0..rng.usize(..most))
                    .flat_map(|_| KEYS[rng.usize(..KEYS.len())])
                    .copied()
                    .collect()
            };
            let (key, user) = (any(5), any(3));
            let scope = ["shared/", "priv/"][rng.usize(..2)];
            let key = [scope.as_bytes(), &key].concat();
            let place = || {
                let (key, user) = (key.escape_ascii(), user.escape_ascii());
                format!("run {run}: {text} and {key} of {user}")
            };
            let request = Dict::question(b"d", &[&key, &user]).expect("arguments");
            let request = request.expect("a request");
            table.endpoint.targets = vec![target.clone()];
            let is_carried = request
                .needs
                .is_none_or(|name| !user.is_empty() && table.endpoint.carries(name));
            match (compose(&table, &request), expected_of(&target, &request)) {
                (Err(Outcome::Permanent(_)), _) if !is_carried => {}
                (Ok(call), Some(expected)) => {
                    composed += 1;
                    expanded += usize::from(text.contains("{/"));
                    compare(&call.urls[0], &target, &expected, &place);
                }
                (Err(Outcome::NotFound), None) => {}
                (call, expected) => panic!("{}: {call:?}, not {expected:?}", place()),
            }
        }
    }
    assert!(composed > 1_000, "only {composed} calls");
    assert!(
        expanded > 200,
        "only {expanded} with several segments at once"
    );
}

/// What a URL of a dict has to say; nothing where none may be made.
fn expected_of(target: &Target, request: &Request) -> Option<Shape> {
    let plain = |template: &Template| {
        let parts = template.parts.iter().map(|part| match part {
            Part::Literal(literal) => percent_decode(literal.as_bytes()).collect(),
            Part::Placeholder(Placeholder::Value(name)) => {
                request.value(name).expect(name).to_vec()
            }
            Part::Placeholder(other) => panic!("{other:?} of a dict"),
        });
        parts.collect::<Vec<Vec<u8>>>().concat()
    };
    let value = |name: &str| request.value(name).expect(name).to_vec();
    let mut segments = Vec::new();
    for segment in &target.segments {
        let (whole, is_free): (Vec<Vec<u8>>, _) = match segment {
            Segment::Text(template) => (vec![plain(template)], !template.has_placeholder()),
            Segment::Expansion(_, Expansion::Segments(name)) => {
                let value = value(name);
                let split = value.split(|byte| *byte == b'/');
                (split.map(<[u8]>::to_vec).collect(), false)
            }
            Segment::Expansion(_, Expansion::Needed(name)) if request.needs == Some(name) => {
                (vec![value(name)], false)
            }
            Segment::Expansion(_, Expansion::Needed(_)) => (Vec::new(), false),
        };
        let is_dots = |bytes: &Vec<u8>| [&b""[..], b".", b".."].contains(&bytes.as_slice());
        if !is_free && whole.iter().any(is_dots) {
            return None;
        }
        segments.extend(whole);
    }
    // A path of nothing is "/".
    if segments.is_empty() {
        segments.push(Vec::new());
    }
    Some((segments, target.query.as_ref().map(plain)))
}

/// What stands in a URL, as bytes: its segments, and its query if it has one.
type Shape = (Vec<Vec<u8>>, Option<Vec<u8>>);

fn compare(url: &Url, target: &Target, (segments, query): &Shape, place: &impl Fn() -> String) {
    let origin = Url::parse(&target.origin).expect("an origin");
    let of = |url: &Url| {
        let host = url.host_str().map(str::to_owned);
        (url.scheme().to_owned(), host, url.port_or_known_default())
    };
    assert_eq!(of(url), of(&origin), "{}: {url}", place());
    assert_eq!(url.fragment(), None, "{}: {url}", place());
    let is_plain = url.username().is_empty() && url.password().is_none();
    assert!(is_plain, "{}: {url}", place());
    let seen: Vec<Vec<u8>> = url
        .path_segments()
        .expect("a path")
        .map(|segment| percent_decode(segment.as_bytes()).collect())
        .collect();
    assert_eq!(&seen, segments, "{}: {url}", place());
    let seen = url
        .query()
        .map(|query| percent_decode(query.as_bytes()).collect::<Vec<u8>>());
    assert_eq!(&seen, query, "{}: {url}", place());
}

/// What a URL has to say; nothing where none may be made.
fn expected(target: &Target, key: &[u8]) -> Option<Shape> {
    let segments = target
        .segments
        .iter()
        .map(|segment| {
            let Segment::Text(segment) = segment else {
                panic!("a lookup has no {segment:?}");
            };
            let bytes = bytes(segment, key)?;
            let is_dots = [&b""[..], b".", b".."].contains(&bytes.as_slice());
            (!segment.has_placeholder() || !is_dots).then_some(bytes)
        })
        .collect::<Option<Vec<_>>>()?;
    let query = match &target.query {
        Some(query) => Some(bytes(query, key)?),
        None => None,
    };
    Some((segments, query))
}

fn bytes(template: &Template, key: &[u8]) -> Option<Vec<u8>> {
    let at = key.iter().rposition(|byte| *byte == b'@');
    let mut bytes = Vec::new();
    for part in &template.parts {
        match part {
            Part::Literal(literal) => bytes.extend(percent_decode(literal.as_bytes())),
            Part::Placeholder(Placeholder::Value(_)) => bytes.extend_from_slice(key),
            Part::Placeholder(Placeholder::Part(..)) => panic!("a lookup has no parts"),
            Part::Placeholder(Placeholder::Secret(name)) => panic!("{name} in a URL"),
            Part::Placeholder(Placeholder::Name) => bytes.extend_from_slice(b"users"),
            Part::Placeholder(Placeholder::Local) => {
                let local = &key[..at.unwrap_or(key.len())];
                bytes.extend_from_slice(Some(local).filter(|local| !local.is_empty())?);
            }
            Part::Placeholder(Placeholder::Domain) => {
                let domain = &key[at? + 1..];
                bytes.extend_from_slice(Some(domain).filter(|domain| !domain.is_empty())?);
            }
        }
    }
    Some(bytes)
}

fn text(rng: &mut Rng, pieces: &[&str]) -> String {
    let origin = match rng.u8(..4) {
        0 => ORIGINS[rng.usize(..ORIGINS.len())],
        _ => ORIGINS[rng.usize(..5)],
    };
    let slash = if rng.u8(..4) > 0 { "/" } else { "" };
    let pieces = (0..rng.usize(..8)).map(|_| pieces[rng.usize(..pieces.len())]);
    format!("{origin}{slash}{}", pieces.collect::<String>())
}

/// The only table of a configuration; only its target matters.
fn table(text: &str) -> Table {
    let name = format!(
        "postgate-fuzz-target-{}-{}.toml",
        std::process::id(),
        text.len()
    );
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).expect("a file");
    let (config, report) = load(&path, Mode::Check);
    std::fs::remove_file(&path).expect("the file");
    let config = config.unwrap_or_else(|| panic!("{:?}", report.problems()));
    let mut table = config.tables.into_iter().next().expect("a table");
    table.endpoint.query = Parameters::None;
    table
}
