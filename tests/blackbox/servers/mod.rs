//! What the tests of transport and identity share: certificates of their own making, servers that
//! speak TLS, HTTP/2 or over a unix socket, a proxy, and an address that never answers.
#![allow(
    dead_code,
    reason = "several test programs include this, and each needs another part of it"
)]

pub(crate) mod certificates;
pub(crate) mod frames;
pub(crate) mod hole;
pub(crate) mod tunnel;
pub(crate) mod web;

use std::io::{Read, Write};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use crate::support::{
    peer::{framed, question},
    program::{Binary, End, Launch, Program},
    same,
};

/// What a table says, whichever program asks: the reply without its framing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) tcp: &'static str,
    pub(crate) socketmap: &'static str,
    pub(crate) policy: &'static str,
}

impl Said {
    /// The reply of this program with its framing.
    pub(crate) fn by(self, binary: Binary) -> Vec<u8> {
        framed(
            binary,
            match binary {
                Binary::TcpLookup => self.tcp,
                Binary::Socketmap => self.socketmap,
                Binary::Policy => self.policy,
            },
        )
    }
}

/// What policy says for every temporary failure.
pub(crate) const LATER: &str = "DEFER_IF_PERMIT 4.3.0 Policy service temporarily unavailable";
/// What policy says for every permanent failure.
pub(crate) const BROKEN: &str = "DEFER_IF_PERMIT 4.3.5 Policy service configuration problem";

/// The backend's value, which is an action as well.
pub(crate) const DUNNO: Said = Said {
    tcp: "200 DUNNO",
    socketmap: "OK DUNNO",
    policy: "DUNNO",
};
pub(crate) const NOT_FOUND: Said = Said {
    tcp: "500 not%20found",
    socketmap: "NOTFOUND ",
    policy: "DUNNO",
};
pub(crate) const UNREACHABLE: Said = Said {
    tcp: "400 backend%20unreachable",
    socketmap: "TEMP backend unreachable",
    policy: LATER,
};
pub(crate) const TIMED_OUT: Said = Said {
    tcp: "400 backend%20timed%20out",
    socketmap: "TIMEOUT backend timed out",
    policy: LATER,
};
pub(crate) const TOO_LONG: Said = Said {
    tcp: "400 backend%20answer%20too%20long",
    socketmap: "TEMP backend answer too long",
    policy: LATER,
};
pub(crate) const NOT_UNDERSTOOD: Said = Said {
    tcp: "400 backend%20answer%20not%20understood",
    socketmap: "TEMP backend answer not understood",
    policy: LATER,
};
pub(crate) const NO_CREDENTIALS: Said = Said {
    tcp: "400 backend%20credentials%20unavailable",
    socketmap: "TEMP backend credentials unavailable",
    policy: LATER,
};

/// A table `t` with these keys.
pub(crate) fn table(binary: Binary, target: &str, keys: &str) -> String {
    format!("[{}.t]\ntarget = \"{target}\"\n{keys}\n", binary.name())
}

/// Starts a program with one socket, which leads to the table `t`.
pub(crate) async fn serve(binary: Binary, config: impl Into<String>) -> Program {
    Launch::new(binary).config(config).unix("t").ready().await
}

/// Asks once, over a connection of its own.
pub(crate) async fn ask(program: &Program, binary: Binary, key: impl AsRef<[u8]>) -> Vec<u8> {
    let mut peer = program.peer().await;
    peer.ask(question(binary, "t", key)).await
}

/// Starts a program with this configuration, asks once, demands this reply, and ends the program.
pub(crate) async fn expect(binary: Binary, config: impl Into<String>, said: Said) -> End {
    expect_of(Launch::new(binary).config(config), binary, said).await
}

/// As `expect`, of a program prepared otherwise.
pub(crate) async fn expect_of(launch: Launch, binary: Binary, said: Said) -> End {
    let program = launch.unix("t").ready().await;
    let reply = ask(&program, binary, "key").await;
    let end = program.stop().await;
    let stderr = &end.stderr;
    same(
        &format!("{}, which wrote:\n{stderr}", binary.name()),
        &reply,
        &said.by(binary),
    );
    end
}

/// Demands that `--check` refuses a configuration with 78 and says all of these, each with a place
/// and a caret.
pub(crate) async fn refused(config: impl Into<String>, messages: &[&str]) {
    let end = Launch::new(Binary::Socketmap)
        .config(config)
        .argument("--check")
        .end()
        .await;
    end.status(78);
    for message in messages {
        let mut lines = end.stderr.lines();
        let line = lines.find(|line| line.contains(message));
        let line = line.unwrap_or_else(|| panic!("no {message:?} in {end:#?}"));
        let (place, _) = line.split_once(message).expect("the message");
        let numbers: Vec<_> = place
            .split(':')
            .filter(|part| part.parse::<u32>().is_ok())
            .collect();
        assert_eq!(numbers.len(), 2, "line and column in {line:?}");
        let _quoted = lines.next();
        let caret = lines.next().unwrap_or_default();
        assert!(caret.contains('^'), "no caret in {end:#?}");
    }
}

/// Compresses as gzip does.
pub(crate) fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes.as_ref()).expect("compressed bytes");
    encoder.finish().expect("compressed bytes")
}

/// Takes gzip's compression off.
pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut decoder = GzDecoder::new(bytes);
    decoder.read_to_end(&mut plain).expect("gzip");
    plain
}
