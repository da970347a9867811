//! Random messages of SMTP clients: what is asked has a name and a secret that an account can have,
//! and is what the message has. Random names and words: every reply is one whole line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::BytesMut;
use fastrand::Rng;
use postgate::outcome::{Outcome, Reason};
use postgate::protocol::sasl::Sasl;
use postgate::protocol::sasl::rules::{Logins, Mechanism};
use postgate::protocol::{Protocol, Step, Tag, say};
use postgate::reply::Reply;

use super::{runs, seed};

/// Rules that offer every mechanism.
pub(crate) fn all() -> Logins {
    Logins {
        mechanisms: Mechanism::WORDS.map(|(_, mechanism)| mechanism).to_vec(),
        ..Logins::default()
    }
}

/// A message: pieces of those of all mechanisms, and of anything.
fn message(rng: &mut Rng) -> Vec<u8> {
    const PIECES: [&[u8]; 22] = [
        b"joe",
        b"joe@example.org",
        b"\0",
        b"\0",
        b"\0pw",
        b"\x01",
        b"\x01",
        b"\x01\x01",
        b"user=",
        b"auth=",
        b"Bearer ",
        b"bearer t.k",
        b"n,",
        b"y,",
        b"a=",
        b",",
        b"=2C",
        b"=3D",
        b"\t",
        b"\n",
        b"\xff",
        "\u{fc}".as_bytes(),
    ];
    let whole: [&[u8]; 4] = [
        b"\0joe\0pw",
        b"user=joe\x01auth=Bearer t\x01\x01",
        b"n,a=joe,\x01auth=Bearer t\x01\x01",
        b"",
    ];
    let mut message = whole[rng.usize(..4)].to_vec();
    for _ in 0..rng.usize(..6) {
        let at = rng.usize(..=message.len());
        let piece = PIECES[rng.usize(..PIECES.len())];
        message.splice(at..at, piece.iter().copied());
        if rng.bool() && !message.is_empty() {
            message.remove(rng.usize(..message.len()));
        }
    }
    message
}

#[test]
fn what_is_asked_is_a_login_that_the_client_has_sent() {
    let mut rng = Rng::with_seed(seed());
    let mut asked = [0; 4];
    for run in 0..runs() {
        let message = message(&mut rng);
        let number = rng.usize(..4);
        let (word, mechanism) = Mechanism::WORDS[number];
        let (mut sasl, _) = Sasl::open(&all());
        let base64 = BASE64.encode(&message);
        let mut line = format!("VERSION\t1\t0\nAUTH\t7\t{word}\trip=::1\tresp={base64}\n");
        if mechanism == Mechanism::Login {
            line += &format!("CONT\t7\t{}\n", BASE64.encode("pw"));
        }
        let mut input = BytesMut::from(line.as_bytes());
        let mut step = sasl.next_step(&mut input);
        if matches!(step, Step::Send(_)) {
            step = sasl.next_step(&mut input);
        }
        let place = format!("run {run}: {word} {}", message.escape_ascii());
        match step {
            Step::Ask(Tag(7), request) => {
                asked[number] += 1;
                let name = request.value("username").expect("a name");
                let secret = request.secret.as_ref().expect("a secret");
                let secret = (secret.name(), secret.expose().as_bytes());
                for value in [name, secret.1] {
                    assert!(!value.is_empty() && !value.contains(&0), "{place}");
                }
                let expected = match mechanism {
                    Mechanism::Plain => {
                        let parts: Vec<_> = message.split(|byte| *byte == 0).collect();
                        assert!(parts[0].is_empty() || parts[0] == name, "{place}");
                        assert_eq!(parts, [parts[0], name, secret.1], "{place}");
                        "password"
                    }
                    Mechanism::Login => {
                        assert_eq!((name, secret.1), (&*message, &b"pw"[..]), "{place}");
                        "password"
                    }
                    Mechanism::Xoauth2 | Mechanism::Oauthbearer => {
                        let field = [b" ", secret.1, b"\x01"].concat();
                        let mut fields = message.windows(field.len());
                        assert!(fields.any(|some| some == field), "{place}");
                        assert!(!secret.1.contains(&1), "{place}");
                        "token"
                    }
                };
                assert_eq!(secret.0, expected, "{place}");
            }
            Step::Answer(Tag(7), Outcome::NotFound | Outcome::Refused(_)) => {}
            other => panic!("{place}: {other:?}"),
        }
    }
    assert!(asked.iter().all(|count| *count > runs() / 100), "{asked:?}");
}

#[test]
fn every_reply_to_a_login_is_one_whole_line() {
    const PIECES: [&str; 16] = [
        "joe", "\t", "\n", "\r", "\0", "user=", "OK\t7\t", "reason=", " ", ",", "\u{fc}", "\u{85}",
        "\u{7f}", "\u{2028}", "\x01", "=",
    ];
    let mut rng = Rng::with_seed(seed());
    let text = |rng: &mut Rng| {
        let count = rng.usize(..6);
        let pieces = (0..count).map(|_| PIECES[rng.usize(..PIECES.len())]);
        let mut text: String = pieces.collect();
        if rng.u8(..20) == 0 {
            text = text.repeat(rng.usize(1..3_000));
        }
        text
    };
    let rules = Logins::default();
    for run in 0..runs() {
        let (mut sasl, _) = Sasl::open(&rules);
        let name = text(&mut rng).replace('\0', "");
        let message = BASE64.encode(format!("\0{name}\0pw"));
        let line = format!("VERSION\t1\t0\nAUTH\t7\tPLAIN\tresp={message}\n");
        let mut input = BytesMut::from(line.as_bytes());
        let _ = sasl.next_step(&mut input);
        let outcome = match rng.u8(..4) {
            0 => Outcome::NotFound,
            1 => Outcome::Refused(text(&mut rng)),
            2 => Outcome::Found(text(&mut rng)),
            _ => Outcome::Temporary(Reason::TimedOut.into()),
        };
        let place = format!("run {run}: {name:.100?} {outcome:.100?}");
        let (said, reply) = say(&mut sasl, Tag(7), outcome.clone(), &rules);
        let line = match (&said, reply) {
            (Outcome::Temporary(_), Reply::Close) => continue,
            (_, Reply::Send(line)) => String::from_utf8(line.to_vec()).expect("text"),
            (said, Reply::Close) => panic!("{place}: closed for {said:?}"),
        };
        let line = line.strip_suffix('\n').expect("a whole line");
        assert!(line.len() < 8_192, "{place}");
        let is_odd = |c: char| c.is_control() && c != '\t';
        assert!(!line.contains(is_odd), "{place}: {line:?}");
        let fields: Vec<_> = line.split('\t').collect();
        match (&*fields, &outcome) {
            (["OK", "7", user], Outcome::Found(found)) => {
                assert_eq!(user.strip_prefix("user="), Some(found.as_str()), "{place}");
                assert!(!found.trim_matches([' ', ',']).is_empty(), "{place}");
            }
            (["FAIL", "7", user @ .., reason], Outcome::NotFound | Outcome::Refused(_)) => {
                let reason = reason.strip_prefix("reason=").expect("a reason");
                assert!(!reason.is_empty() && reason.len() <= 200, "{place}");
                match user {
                    [] => {}
                    [user] => assert_eq!(user.strip_prefix("user="), Some(&*name), "{place}"),
                    _ => panic!("{place}: {line:?}"),
                }
            }
            _ => panic!("{place}: {line:?}"),
        }
    }
}
