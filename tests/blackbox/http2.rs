//! What HTTP/2 alone can do to a call: streams that are reset, connections that go away, and the
//! version that the operator chooses. The real programs, against servers on the loopback.

use std::{collections::HashSet, sync::Arc};

use hyper::Version;
use tokio::sync::Semaphore;

use crate::{
    servers::{
        certificates::authority,
        frames::{Act, CANCEL, Frames, INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM, Visit, dunno},
        web::{Answer, Web},
    },
    support::{
        backend::{Backend, good},
        peer::question,
        program::{ALL, Binary, Launch},
        replies::{DUNNO, NOT_UNDERSTOOD, TIMED_OUT, UNREACHABLE},
        same, soon,
        tables::{ask, expect, serve, table},
    },
};

/// The line of TOML that chooses HTTP/2 over plain TCP.
const HTTP_2: &str = "http-version = \"2\"\n";

#[tokio::test]
async fn the_operator_chooses_the_version_of_http() {
    let (authority, _directory, ca) = authority();
    let both = ["h2", "http/1.1"].as_slice();
    for (chosen, offered, version) in [
        ("auto", both, Version::HTTP_2),
        ("1.1", both, Version::HTTP_11),
        ("2", both, Version::HTTP_2),
        ("1.1", &["http/1.1"], Version::HTTP_11),
        ("2", &["h2"], Version::HTTP_2),
    ] {
        let tls = authority.server().tls().offering(offered).config();
        let server = Web::secure(tls, |_| Answer::dunno());
        let keys = format!("{ca}http-version = \"{chosen}\"\n");
        let config = table(Binary::Socketmap, &server.url("https", "/ask"), &keys);
        expect(Binary::Socketmap, config, DUNNO).await;
        assert_eq!(server.only().version, version, "{chosen} of {offered:?}");
    }
    for (chosen, offered) in [("1.1", "h2"), ("2", "http/1.1")] {
        let tls = authority.server().tls().offering(&[offered]).config();
        let server = Web::secure(tls, |_| Answer::dunno());
        let keys = format!("{ca}http-version = \"{chosen}\"\n");
        let config = table(Binary::Socketmap, &server.url("https", "/ask"), &keys);
        expect(Binary::Socketmap, config, UNREACHABLE).await;
    }
    for binary in ALL {
        let server = Frames::new(|visit| dunno(visit.stream));
        expect(binary, table(binary, &server.url(), HTTP_2), DUNNO).await;
    }
}

fn fields(fields: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let owned = fields
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    owned.collect()
}

#[tokio::test]
async fn a_body_whose_stream_is_reset_is_no_answer() {
    const JSON: (&str, &str) = ("content-type", "application/json");
    const TEXT: (&str, &str) = ("content-type", "text/plain");
    let length = ("content-length", "5");
    for (row, head, pieces) in [
        ("nothing", &[TEXT][..], &[][..]),
        ("nothing of its length", &[TEXT, length], &[]),
        ("a text", &[TEXT], &["DUN"]),
        ("a text below its length", &[TEXT, length], &["DUN"]),
        ("a number", &[JSON], &["12"]),
        ("JSON that could be whole", &[JSON], &["\"DUNNO\""]),
    ] {
        for code in [NO_ERROR, CANCEL, INTERNAL_ERROR] {
            for binary in ALL {
                let (head, pieces) = (fields(head), pieces.to_vec());
                let server = Frames::new(move |Visit { stream, .. }| {
                    let mut acts = vec![Act::Head(stream, head.clone())];
                    acts.extend(pieces.iter().map(|text| Act::Data(stream, text, false)));
                    acts.push(Act::Reset(stream, code));
                    acts
                });
                let keys = format!("{HTTP_2}response = \"auto\"\n");
                println!("{row}, {code}, {binary:?}");
                expect(binary, table(binary, &server.url(), &keys), NOT_UNDERSTOOD).await;
            }
        }
    }
}

/// A server may answer before it has read the request, and reset what is left of it (RFC 9113,
/// section 8.1).
#[tokio::test]
async fn a_body_that_came_to_its_end_is_an_answer_whatever_follows() {
    for binary in ALL {
        let server = Frames::new(|Visit { stream, .. }| {
            let mut acts = dunno(stream);
            acts.push(Act::Reset(stream, NO_ERROR));
            acts
        });
        expect(binary, table(binary, &server.url(), HTTP_2), DUNNO).await;
    }
}

#[tokio::test]
async fn a_call_that_the_server_did_not_process_is_sent_again() {
    let refused: [fn(u32) -> Act; 3] = [
        |stream| Act::Reset(stream, REFUSED_STREAM),
        |_| Act::GoAway(0, NO_ERROR),
        |_| Act::GoAway(0, INTERNAL_ERROR),
    ];
    for act in refused {
        for binary in ALL {
            let server = Frames::new(move |Visit { stream, before, .. }| match before {
                0..3 => vec![act(stream)],
                _ => dunno(stream),
            });
            // It is no retry: nothing can be counted twice.
            let keys = format!("{HTTP_2}retries = 0\n");
            expect(binary, table(binary, &server.url(), &keys), DUNNO).await;
            assert_eq!(server.count(), 4, "{:?}", server.visits());
        }
    }
}

#[tokio::test]
async fn a_call_that_the_server_may_have_processed_is_sent_again_for_lookups_only() {
    let broken: [fn(u32) -> Vec<Act>; 4] = [
        |stream| vec![Act::GoAway(stream, NO_ERROR), Act::Close],
        |stream| vec![Act::Reset(stream, CANCEL)],
        |stream| vec![Act::Reset(stream, INTERNAL_ERROR)],
        |_| vec![Act::Close],
    ];
    for acts in broken {
        for binary in ALL {
            let server = Frames::new(move |Visit { stream, before, .. }| match before {
                0 => acts(stream),
                _ => dunno(stream),
            });
            let (expected_reply, calls) = match binary {
                Binary::Policy => (UNREACHABLE, 1),
                _ => (DUNNO, 2),
            };
            expect(binary, table(binary, &server.url(), HTTP_2), expected_reply).await;
            assert_eq!(server.count(), calls, "{binary:?}: {:?}", server.visits());
        }
    }
}

#[tokio::test]
async fn a_server_that_processes_nothing_is_unreachable_in_the_end() {
    for binary in ALL {
        let server = Frames::new(|Visit { stream, .. }| vec![Act::Reset(stream, REFUSED_STREAM)]);
        let keys = format!("{HTTP_2}retries = 0\n");
        expect(binary, table(binary, &server.url(), &keys), UNREACHABLE).await;
        assert_eq!(server.count(), 33, "{binary:?}");
    }
}

#[tokio::test]
async fn the_next_target_is_asked_where_one_has_processed_nothing() {
    for binary in ALL {
        let first = Frames::new(|_| vec![Act::GoAway(0, NO_ERROR)]);
        let second = Frames::new(|visit| dunno(visit.stream));
        let config = format!(
            "[{}.t]\ntarget = [\"{}\", \"{}\"]\n{HTTP_2}",
            binary.name(),
            first.url(),
            second.url(),
        );
        expect(binary, config, DUNNO).await;
        assert_eq!(second.count(), 1, "{binary:?}");
    }
}

/// A call that waits for its turn among the streams was not sent. hyper drops it with a word of its
/// own when the connection goes away meanwhile.
#[tokio::test]
async fn a_call_that_waits_for_its_stream_is_sent_again_when_the_connection_goes_away() {
    const PEERS: usize = 12;
    for binary in ALL {
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        let server = Frames::allowing(
            1,
            move |Visit {
                      connection, stream, ..
                  }| {
                let mut acts = dunno(stream);
                // The first call of each of the two threads that serve opens its connection.
                if connection < 2 && stream > 1 {
                    acts.insert(0, Act::Wait(Arc::clone(&held)));
                    acts.insert(1, Act::GoAway(stream, NO_ERROR));
                }
                acts
            },
        );
        let other = Backend::always(good(binary, "DUNNO"));
        let keys = format!("{HTTP_2}retries = 0\nbreaker = false\n");
        let config = table(binary, &server.url(), &keys)
            + &table(binary, &other.url("/"), "").replace(".t]", ".other]");
        let launch = Launch::new(binary).config(config).unix("t").unix("other");
        let program = launch.ready().await;
        for peer in &mut program.peers::<2>().await {
            let reply = peer.ask(question(binary, "t", "key")).await;
            same("first", &reply, &DUNNO.by(binary));
        }
        let mut peers = program.asking(PEERS).await;
        server.asked(4).await;
        // One for each thread; by the third answer it has read the earlier bytes.
        let mut others = [program.peer_at(1).await, program.peer_at(1).await];
        for _ in 0..3 {
            for peer in &mut others {
                peer.ask(question(binary, "other", "key")).await;
            }
        }
        gate.add_permits(2);
        for peer in &mut peers {
            same(binary.name(), &peer.reply().await, &DUNNO.by(binary));
        }
    }
}

#[tokio::test]
async fn http_2_is_spoken_where_the_server_offers_it() {
    let (authority, _directory, ca) = authority();
    let identity = authority.server();
    for (offered, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["h2"][..], Version::HTTP_2),
        (&["http/1.1"][..], Version::HTTP_11),
        (&[][..], Version::HTTP_11),
    ] {
        for binary in ALL {
            let tls = identity.tls().offering(offered).config();
            let server = Web::secure(tls, |_| Answer::dunno());
            let keys = format!("{ca}bearer-token = \"a-token\"\n");
            let config = table(binary, &server.url("https", "/ask"), &keys);
            expect(binary, config, DUNNO).await;
            let visit = server.only();
            assert_eq!(visit.version, version, "{binary:?} {offered:?}");
            let host = server.address().to_string();
            assert_eq!(visit.header("host"), Some(host.as_str()));
            assert_eq!(visit.header("authorization"), Some("Bearer a-token"));
            assert!(visit.header("x-request-id").is_some(), "{visit:?}");
            if binary == Binary::Policy {
                let form: &[u8] = b"request=smtpd_access_policy&protocol_state=RCPT&recipient=key";
                same("the form", &visit.body, form);
            }
        }
    }
}

#[tokio::test]
async fn a_connection_of_http_2_carries_many_calls_at_once() {
    const CALLS: usize = 10;
    let (authority, _directory, ca) = authority();
    let tls = authority.server().tls().offering(&["h2"]).config();
    let server = Web::secure(tls, |_| Answer::dunno());
    let binary = Binary::Socketmap;
    let program = serve(binary, table(binary, &server.url("https", "/"), &ca)).await;
    same(
        "alone",
        &ask(&program, binary, "key").await,
        &DUNNO.by(binary),
    );

    let gate = Arc::new(Semaphore::new(0));
    server.set(Answer::After(Arc::clone(&gate), Box::new(Answer::dunno())));
    let peers = program.asking(CALLS).await;
    let visits = server.asked(1 + CALLS).await;
    // Each of the two threads that serve has its own.
    let used: HashSet<_> = visits.iter().map(|visit| visit.connection).collect();
    assert!(used.len() <= 2, "{visits:?}");
    gate.add_permits(CALLS);
    for mut peer in peers {
        same("at once", &peer.reply().await, &DUNNO.by(binary));
    }
}

/// Many calls share a connection of HTTP/2, so that one that has died must not keep the next ones.
#[tokio::test]
async fn a_connection_of_http_2_that_has_fallen_silent_is_left() {
    let (authority, _directory, ca) = authority();
    let tls = authority.server().tls().offering(&["h2"]).config();
    let server = Web::secure(tls, |_| Answer::dunno());
    let binary = Binary::Socketmap;
    let keys = format!("{ca}request-timeout = \"3s\"\n");
    let program = serve(binary, table(binary, &server.url("https", "/"), &keys)).await;
    let mut peer = program.peer().await;
    let request = question(binary, "t", "key");
    same("alive", &peer.ask(&request).await, &DUNNO.by(binary));
    server.set(Answer::Freeze);
    same("dead", &peer.ask(&request).await, &TIMED_OUT.by(binary));
    server.set(Answer::dunno());
    let asking = async { while peer.ask(&request).await != DUNNO.by(binary) {} };
    soon("an answer over another connection", asking).await;
    // On a loaded machine the next connection may time out as well, and yet another one answers.
    let last = server.visits().pop().expect("a visit");
    assert_ne!(last.connection, 0);
}

#[tokio::test]
async fn http_2_connections_that_break_are_retried_as_those_of_http_1_are() {
    let (authority, _directory, ca) = authority();
    for binary in ALL {
        let tls = authority.server().tls().offering(&["h2"]).config();
        let server = Web::secure(tls, |_| Answer::Break);
        let keys = format!("{ca}retries = 2\n");
        let config = table(binary, &server.url("https", "/"), &keys);
        expect(binary, config, UNREACHABLE).await;
        let calls = if binary == Binary::Policy { 1 } else { 3 };
        assert_eq!(server.count(), calls, "{binary:?}");
    }
}
