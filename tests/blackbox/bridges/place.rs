//! One of our programs in the place of another bridge: asked what Postfix asks, with an API behind
//! it that has seen nothing but the other bridge so far.

use percent_encoding::percent_decode_str;

use super::page::Ready;
use crate::support::{
    Directory, Wrong,
    backend::{Backend, Request, Script},
    peer::{Peer, framed, question},
    program::{Binary, Launch, Program},
};

/// What every API here demands, and every ready table is given.
pub(crate) const TOKEN: &str = "right-token";

/// Keys that have broken bridges before. Every API here knows exactly these, so that a hit proves
/// that the key has arrived as it is.
pub(crate) const ODD: [&str; 16] = [
    "a b@example.org",
    "\"john doe\"@example.org",
    "\"a\\\"b\"@example.org",
    "50%@example.org",
    "%41%2f@example.org",
    "a&name=b@example.org",
    "a+b@example.org",
    "a=b;c,d@example.org",
    "a?b#c@example.org",
    "a/b@example.org",
    "../../admin",
    "a@b@example.org",
    "@example.org",
    "user@[192.0.2.1]",
    "grüße@example.org",
    "{key}@example.org",
];

/// Whether a key is one of the odd ones.
pub(crate) fn is_odd(key: &[u8]) -> bool {
    ODD.iter().any(|odd| odd.as_bytes() == key)
}

/// What a program is given besides its configuration: credentials, as systemd hands them over, and
/// the same values in the environment.
pub(crate) struct Secrets {
    directory: Directory,
    token: &'static str,
}

impl Default for Secrets {
    fn default() -> Self {
        Self::new(TOKEN)
    }
}

impl Secrets {
    fn new(token: &'static str) -> Self {
        let directory = Directory::new();
        for name in ["api-token", "api-password", "oidc-secret"] {
            directory.write(name, token);
        }
        Self { directory, token }
    }

    /// Adds them to a program about to be started.
    pub(crate) fn given_to(&self, launch: Launch) -> Launch {
        launch
            .environment("CREDENTIALS_DIRECTORY", self.directory.path())
            .environment("USERLI_TOKEN", self.token)
    }
}

/// A program, its API, and one connection of Postfix, over which everything is asked.
pub(crate) struct Place {
    binary: Binary,
    backend: Backend,
    program: Program,
    peer: Peer,
    wrong: Wrong,
    _secrets: Secrets,
}

impl Place {
    /// Starts a program with a configuration from a page and with the right token.
    pub(crate) async fn taken(
        binary: Binary,
        ready: Ready,
        api: impl FnMut(&Request) -> Script + Send + 'static,
    ) -> Self {
        Self::taken_with(TOKEN, binary, ready, api).await
    }

    /// Starts a program with this token.
    pub(crate) async fn taken_with(
        token: &'static str,
        binary: Binary,
        ready: Ready,
        api: impl FnMut(&Request) -> Script + Send + 'static,
    ) -> Self {
        let backend = Backend::new(api);
        let secrets = Secrets::new(token);
        let launch = Launch::new(binary);
        let mut config = ready.asking(backend.address());
        if config.contains(".limits]]") {
            let file = launch.directory().join("limits.sqlite");
            config += &format!("\n[store]\npath = \"{}\"\n", file.display());
        }
        let launch = launch.config(config);
        let launch = match binary {
            Binary::TcpLookup => launch.tcp4("9001"),
            Binary::Socketmap | Binary::Policy => launch.unix(binary.name()),
        };
        let program = secrets.given_to(launch).ready().await;
        let peer = program.peer().await;
        Self {
            binary,
            backend,
            program,
            peer,
            wrong: Wrong::default(),
            _secrets: secrets,
        }
    }

    /// Looks a key up: exactly one call, and this reply.
    pub(crate) async fn looks_up(
        &mut self,
        table: &str,
        key: impl AsRef<[u8]>,
        expected_reply: &str,
    ) {
        self.asks(table, key.as_ref(), expected_reply, Some(1))
            .await;
    }

    /// Looks a key up that the API is not asked for.
    pub(crate) async fn answers_itself(
        &mut self,
        table: &str,
        key: impl AsRef<[u8]>,
        expected_reply: &str,
    ) {
        self.asks(table, key.as_ref(), expected_reply, Some(0))
            .await;
    }

    async fn asks(&mut self, table: &str, key: &[u8], expected_reply: &str, calls: Option<usize>) {
        let row = format!("{table} {}", key.escape_ascii());
        let question = question(self.binary, table, key);
        self.says(&row, &question, expected_reply, calls).await;
    }

    /// Asks about attributes, a line each: exactly one call, and this action.
    pub(crate) async fn decides(&mut self, attributes: impl AsRef<[u8]>, action: &str) {
        self.asks_about(attributes.as_ref(), action, 1).await;
    }

    /// Asks about attributes that the API is not asked about.
    pub(crate) async fn decides_itself(&mut self, attributes: impl AsRef<[u8]>, action: &str) {
        self.asks_about(attributes.as_ref(), action, 0).await;
    }

    async fn asks_about(&mut self, attributes: &[u8], action: &str, calls: usize) {
        let row = attributes.escape_ascii().to_string();
        let question = [attributes, b"\n"].concat();
        self.says(&row, &question, action, Some(calls)).await;
    }

    /// Looks a key up that the API sends elsewhere at first.
    pub(crate) async fn is_led_to(
        &mut self,
        table: &str,
        key: impl AsRef<[u8]>,
        expected_reply: &str,
    ) {
        self.asks(table, key.as_ref(), expected_reply, Some(2))
            .await;
    }

    /// What is said when the API answers everything in this way from here on.
    pub(crate) async fn when(
        &mut self,
        table: &str,
        row: &str,
        script: Script,
        expected_reply: &str,
    ) {
        let key = "user@example.org";
        self.when_asked(table, key, row, script, expected_reply)
            .await;
    }

    /// The same with a key of one's own.
    pub(crate) async fn when_asked(
        &mut self,
        table: &str,
        key: &str,
        row: &str,
        script: Script,
        expected_reply: &str,
    ) {
        self.backend.set(script);
        let question = question(self.binary, table, key);
        self.says(row, &question, expected_reply, None).await;
    }

    async fn says(
        &mut self,
        row: &str,
        question: &[u8],
        expected_reply: &str,
        calls: Option<usize>,
    ) {
        let before = self.backend.count();
        let reply = self.peer.ask(question).await;
        self.wrong
            .compare(row, &reply, &framed(self.binary, expected_reply));
        let seen = self.backend.count() - before;
        if let Some(calls) = calls {
            self.wrong
                .require(row, seen == calls, || format!("{seen} calls, not {calls}"));
        }
    }

    /// The connection, for bytes of one's own.
    pub(crate) fn peer(&mut self) -> &mut Peer {
        &mut self.peer
    }

    /// Every request at the API so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.backend.requests()
    }

    /// Ends the program and fails if anything was wrong.
    pub(crate) async fn left(mut self) {
        self.wrong.none();
        self.peer.finish().await;
        self.peer.expect_eof().await;
        self.program.stop().await;
    }
}

/// The path of a request, without its query.
pub(crate) fn path(request: &Request) -> &str {
    request.target.split('?').next().expect("a path")
}

/// What follows this in the path of a request, if it is one segment: the bytes it stands for.
pub(crate) fn segment(request: &Request, before: &str) -> Option<Vec<u8>> {
    let rest = request.target.strip_prefix(before)?;
    let is_one = !rest.is_empty() && !rest.contains(['/', '?', '#']);
    is_one.then(|| percent_decode_str(rest).collect())
}

/// What a lookup says of a failure: the word only socketmap has, and the reason.
pub(crate) fn failure(binary: Binary, word: &str, reason: &str) -> String {
    match binary {
        Binary::TcpLookup => format!("400 {}", reason.replace(' ', "%20")),
        Binary::Socketmap => format!("{word} {reason}"),
        Binary::Policy => panic!("policy has actions"),
    }
}

/// The value of this name in a query or form, if it stands there once.
pub(crate) fn one<'p>(pairs: &'p [(Vec<u8>, Vec<u8>)], name: &str) -> Option<&'p [u8]> {
    let mut values = pairs.iter().filter(|(found, _)| found == name.as_bytes());
    match (values.next(), values.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}
