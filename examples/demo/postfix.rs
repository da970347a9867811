//! Sends the requests of a Postfix: lookups with postmap(1) if it is installed, else over the
//! sockets.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;
use tokio::time::timeout;

use crate::client::{Binary, question, rcpt, reply_length, unframed};
use crate::stage::{Address, Addresses, find_program};

/// Well above the request-timeout in demo.toml, so that a program without an answer is noticed.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request from Postfix to a program.
pub(crate) enum Question {
    /// A key, for tcp-lookup.
    Transport(&'static str),
    /// The name of a map and a key, for socketmap.
    Table(&'static str, &'static str),
    /// The same over its unix socket.
    TableOverUnix(&'static str, &'static str),
    /// A mail that a client wants to send, for policy.
    Mail {
        sender: &'static str,
        recipient: &'static str,
        client_address: &'static str,
    },
}

/// The meaning of a reply to Postfix.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// A table's value, or a policy's action.
    Found(String),
    NotFound,
    Temporary,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(value) => write!(f, "{value}"),
            Self::NotFound => write!(f, "not found"),
            Self::Temporary => write!(f, "a temporary failure"),
        }
    }
}

/// A request as it was sent, and its reply as it came.
pub(crate) struct Reply {
    pub(crate) asked: String,
    pub(crate) shown: String,
    /// `None` if Postfix would not understand the reply.
    pub(crate) answer: Option<Answer>,
}

/// The place of Postfix.
pub(crate) struct Asker {
    at: Addresses,
    postmap: Option<Postmap>,
}

struct Postmap {
    program: PathBuf,
    /// Has a main.cf of its own: the system's may be missing or unreadable.
    configuration: PathBuf,
}

impl Asker {
    pub(crate) fn new(at: Addresses, folder: &Path) -> Result<Self, Box<dyn Error>> {
        let postmap = match find_program("postmap") {
            Some(program) => {
                let configuration = folder.join("postfix");
                fs::create_dir(&configuration)?;
                fs::write(configuration.join("main.cf"), "compatibility_level = 2\n")?;
                Some(Postmap {
                    program,
                    configuration,
                })
            }
            None => None,
        };
        Ok(Self { at, postmap })
    }

    pub(crate) async fn ask(&self, question: &Question) -> Reply {
        match (&self.postmap, self.table(question)) {
            (Some(postmap), Some((table, key))) => postmap.query(key, &table).await,
            _ => self.speak(question).await,
        }
    }

    /// Returns a table as main.cf names it, and the key; a policy is no table.
    fn table(&self, question: &Question) -> Option<(String, &'static str)> {
        let at = &self.at;
        match *question {
            Question::Transport(key) => Some((format!("tcp:{}", at.tcp_lookup), key)),
            Question::Table(map, key) => Some((format!("socketmap:{}:{map}", at.socketmap), key)),
            Question::TableOverUnix(map, key) => {
                Some((format!("socketmap:{}:{map}", at.socketmap_unix), key))
            }
            Question::Mail { .. } => None,
        }
    }

    async fn speak(&self, question: &Question) -> Reply {
        let at = &self.at;
        match *question {
            Question::Transport(key) => {
                look_up(Binary::TcpLookup, &Address::Inet(at.tcp_lookup), "", key).await
            }
            Question::Table(map, key) => look_up(Binary::Socketmap, &at.socketmap, map, key).await,
            Question::TableOverUnix(map, key) => {
                look_up(Binary::Socketmap, &at.socketmap_unix, map, key).await
            }
            Question::Mail {
                sender,
                recipient,
                client_address,
            } => ask_policy(&at.policy, sender, recipient, client_address).await,
        }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.postmap {
            Some(postmap) => write!(f, "with {}", postmap.program.display()),
            None => write!(f, "in Postfix's own protocols (postmap is not installed)"),
        }
    }
}

impl Postmap {
    async fn query(&self, key: &str, table: &str) -> Reply {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(&self.configuration);
        command.args(["-q", key, table]).kill_on_drop(true);
        let (shown, answer) = match timeout(PATIENCE, command.output()).await {
            Ok(Ok(output)) => judge(&output),
            Ok(Err(error)) => (error.to_string(), None),
            Err(elapsed) => (elapsed.to_string(), None),
        };
        Reply {
            asked: format!("postmap -q '{key}' {table}"),
            shown,
            answer,
        }
    }
}

/// Tells "not found" and a failure apart: postmap exits with 1 for both, and prints only the
/// failure.
fn judge(output: &Output) -> (String, Option<Answer>) {
    let value = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        let value = value.strip_suffix('\n').unwrap_or(&value);
        (value.to_owned(), Some(Answer::Found(value.to_owned())))
    } else if complaint.is_empty() {
        (
            "(no output, exit status 1)".to_owned(),
            Some(Answer::NotFound),
        )
    } else {
        // For socketmap, postmap names the kind of failure; tcp has only one kind.
        let is_temporary =
            complaint.contains("server temporary error") || complaint.contains("fatal: table tcp:");
        (
            complaint.into_owned(),
            is_temporary.then_some(Answer::Temporary),
        )
    }
}

async fn look_up(binary: Binary, at: &Address, table: &str, key: &str) -> Reply {
    let request = question(binary, table, key);
    let asked = format!("{at}  {}", String::from_utf8_lossy(&request).trim_end());
    let reply = exchange(binary, at, &request).await;
    Reply::new(binary, asked, reply, |said| match said.split_once(' ')? {
        ("200", value) => {
            let value = percent_decode_str(value).decode_utf8().ok()?;
            Some(Answer::Found(value.into_owned()))
        }
        ("OK", value) => Some(Answer::Found(value.to_owned())),
        ("500" | "NOTFOUND", _) => Some(Answer::NotFound),
        ("400" | "TEMP" | "TIMEOUT", _) => Some(Answer::Temporary),
        _ => None,
    })
}

async fn ask_policy(at: &Address, sender: &str, recipient: &str, client_address: &str) -> Reply {
    let request = rcpt(&[
        ("sender", sender),
        ("recipient", recipient),
        ("client_address", client_address),
    ]);
    let asked = format!("{at}  sender={sender} client_address={client_address} ...");
    let reply = exchange(Binary::Policy, at, &request).await;
    Reply::new(Binary::Policy, asked, reply, |action| {
        Some(Answer::Found(action.to_owned()))
    })
}

impl Reply {
    fn new(
        binary: Binary,
        asked: String,
        reply: io::Result<String>,
        understand: impl Fn(&str) -> Option<Answer>,
    ) -> Self {
        match reply {
            Ok(reply) => Self {
                asked,
                answer: unframed(binary, reply.as_bytes())
                    .and_then(|said| understand(str::from_utf8(said).ok()?)),
                shown: reply.trim_end().to_owned(),
            },
            Err(error) => Self {
                asked,
                answer: None,
                shown: error.to_string(),
            },
        }
    }
}

/// Sends a request over a connection of its own and returns the complete reply.
async fn exchange(binary: Binary, at: &Address, request: &[u8]) -> io::Result<String> {
    let talk = async {
        match at {
            Address::Inet(address) => {
                converse(TcpStream::connect(address).await?, binary, request).await
            }
            Address::Unix(path) => {
                converse(UnixStream::connect(path).await?, binary, request).await
            }
        }
    };
    timeout(PATIENCE, talk).await?
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    binary: Binary,
    request: &[u8],
) -> io::Result<String> {
    stream.write_all(request).await?;
    let mut bytes = Vec::new();
    loop {
        let length = reply_length(binary, &bytes).map_err(io::Error::other)?;
        if length.is_some_and(|length| length == bytes.len()) {
            return String::from_utf8(bytes).map_err(io::Error::other);
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::Error::other(format!(
                "closed after \"{}\"",
                bytes.escape_ascii()
            )));
        }
    }
}
