//! Sends the requests of a Postfix: lookups with postmap(1) if it is installed, else over the
//! sockets.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;
use tokio::time::timeout;

use crate::stage::{Address, Addresses, find_program};

/// Well above the request-timeout in demo.toml, so that a program without an answer is noticed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The characters that tcp_table(5) wants as `%XX`; the encoder adds all bytes above ASCII.
const TCP_TABLE: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

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
            Question::Transport(key) => ask_tcp_lookup(at.tcp_lookup, key).await,
            Question::Table(map, key) => ask_socketmap(&at.socketmap, map, key).await,
            Question::TableOverUnix(map, key) => ask_socketmap(&at.socketmap_unix, map, key).await,
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

async fn ask_tcp_lookup(at: SocketAddr, key: &str) -> Reply {
    let request = format!("get {}", utf8_percent_encode(key, TCP_TABLE));
    let line = format!("{request}\n");
    let reply = exchange(&Address::Inet(at), &line, |reply| reply.ends_with('\n')).await;
    Reply::new(format!("{at}  {request}"), reply, |reply| {
        match reply.strip_suffix('\n')?.split_at_checked(4)? {
            ("200 ", value) => {
                let value = percent_decode_str(value).decode_utf8().ok()?;
                Some(Answer::Found(value.into_owned()))
            }
            ("500 ", _) => Some(Answer::NotFound),
            ("400 ", _) => Some(Answer::Temporary),
            _ => None,
        }
    })
}

async fn ask_socketmap(at: &Address, map: &str, key: &str) -> Reply {
    let request = format!("{map} {key}");
    let netstring = format!("{}:{request},", request.len());
    let reply = exchange(at, &netstring, |reply| payload(reply).is_some()).await;
    Reply::new(
        format!("{at}  {netstring}"),
        reply,
        |reply| match payload(reply)?.split_once(' ')? {
            ("OK", value) => Some(Answer::Found(value.to_owned())),
            ("NOTFOUND", _) => Some(Answer::NotFound),
            ("TEMP" | "TIMEOUT", _) => Some(Answer::Temporary),
            _ => None,
        },
    )
}

/// Returns the payload of a netstring once it is complete.
fn payload(netstring: &str) -> Option<&str> {
    let (length, rest) = netstring.split_once(':')?;
    let payload = rest.strip_suffix(',')?;
    (payload.len() == length.parse().ok()?).then_some(payload)
}

async fn ask_policy(at: &Address, sender: &str, recipient: &str, client_address: &str) -> Reply {
    let attributes = format!(
        "request=smtpd_access_policy\n\
         protocol_state=RCPT\n\
         protocol_name=ESMTP\n\
         client_address={client_address}\n\
         client_name=unknown\n\
         reverse_client_name=unknown\n\
         helo_name=mail.example.com\n\
         sender={sender}\n\
         recipient={recipient}\n\
         recipient_count=0\n\
         queue_id=\n\
         instance=1a2b.65f0c3d4.5e6f7.0\n\
         size=0\n\
         \n"
    );
    let asked = format!("{at}  sender={sender} client_address={client_address} ...");
    let reply = exchange(at, &attributes, |reply| reply.ends_with("\n\n")).await;
    Reply::new(asked, reply, |reply| {
        let action = reply.strip_prefix("action=")?.strip_suffix("\n\n")?;
        Some(Answer::Found(action.to_owned()))
    })
}

impl Reply {
    fn new(
        asked: String,
        reply: io::Result<String>,
        understand: impl Fn(&str) -> Option<Answer>,
    ) -> Self {
        match reply {
            Ok(reply) => Self {
                asked,
                answer: understand(&reply),
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
async fn exchange(at: &Address, request: &str, is_whole: fn(&str) -> bool) -> io::Result<String> {
    let talk = async {
        match at {
            Address::Inet(address) => {
                converse(TcpStream::connect(address).await?, request, is_whole).await
            }
            Address::Unix(path) => {
                converse(UnixStream::connect(path).await?, request, is_whole).await
            }
        }
    };
    timeout(PATIENCE, talk).await?
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
    is_whole: fn(&str) -> bool,
) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::Error::other(format!(
                "closed after \"{}\"",
                bytes.escape_ascii()
            )));
        }
        // If this is not UTF-8, the rest of a character has not arrived yet.
        if let Ok(reply) = str::from_utf8(&bytes)
            && is_whole(reply)
        {
            return Ok(reply.to_owned());
        }
    }
}
