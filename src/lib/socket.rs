//! Listening sockets: from systemd by name, or bound because an option says so.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use listenfd::ListenFd;
use rustix::net::sockopt;

/// A socket on which connections arrive.
#[derive(Debug)]
pub struct Socket {
    /// Its `FileDescriptorName=`, or the name given with `--listen`.
    pub name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener, Option<Left>),
}

/// A path that is removed at the end.
#[derive(Debug)]
struct Left(PathBuf);

impl Drop for Left {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A connection that was taken from a socket, and that no loop serves yet.
#[derive(Debug)]
pub enum Taken {
    /// Over TCP.
    Tcp(std::net::TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Taken {
    /// Hands the connection over to the loop that this is called in.
    pub fn attach(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(stream) => Stream::Tcp(tokio::net::TcpStream::from_std(stream)?),
            Self::Unix(stream) => Stream::Unix(tokio::net::UnixStream::from_std(stream)?),
        })
    }
}

/// A connection in the loop that serves it.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(tokio::net::TcpStream),
    /// Over a unix socket.
    Unix(tokio::net::UnixStream),
}

/// A socket in the loop that serves.
#[derive(Debug)]
pub struct Listener(Waiting);

#[derive(Debug)]
enum Waiting {
    Tcp(tokio::net::TcpListener),
    Unix {
        listener: tokio::net::UnixListener,
        _left: Option<Left>,
    },
}

impl Listener {
    /// Waits for the next connection. Nothing is lost when the future is dropped.
    pub async fn accept(&self) -> io::Result<Taken> {
        match &self.0 {
            Waiting::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // A connection that has been reset already takes no options, and needs none.
                let _ = tune(&stream);
                Ok(Taken::Tcp(stream.into_std()?))
            }
            Waiting::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok(Taken::Unix(stream.into_std()?))
            }
        }
    }
}

impl Socket {
    /// Hands the socket over to the loop that serves.
    pub fn listen(self) -> io::Result<Listener> {
        Ok(Listener(match self.kind {
            Kind::Tcp(listener) => Waiting::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Kind::Unix(listener, left) => {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                Waiting::Unix {
                    listener,
                    _left: left,
                }
            }
        }))
    }

    fn tcp(name: &str, listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            name: name.to_owned(),
            kind: Kind::Tcp(listener),
        })
    }

    fn unix(name: &str, listener: UnixListener, path: Option<PathBuf>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            name: name.to_owned(),
            kind: Kind::Unix(listener, path.map(Left)),
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(listener) => listener.as_fd(),
            Kind::Unix(listener, _) => listener.as_fd(),
        }
    }
}

/// A peer that has vanished without a word is noticed in some minutes; a reply is one small
/// segment, and nothing is to be gained by waiting for more.
fn tune(stream: &tokio::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(20))?;
    Ok(())
}

/// Tells whether systemd has handed sockets over to this process, as long as nobody has taken them.
///
/// listenfd would take sockets without a LISTEN_PID, which may be meant for a parent of ours.
pub fn is_activated() -> bool {
    std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string())
}

/// Takes the sockets that systemd has handed over; none if it has not.
///
/// To be called before there are threads: it takes the variables out of the environment.
pub fn from_systemd() -> Result<Vec<Socket>, String> {
    if !is_activated() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = sd_notify::listen_fds_with_names()
        .map_err(|error| format!("LISTEN_FDS and LISTEN_FDNAMES do not fit: {error}"))?
        .map(|(_, name)| name)
        .collect();
    let mut listeners = ListenFd::from_env();
    if listeners.len() != names.len() {
        return Err("LISTEN_FDS and LISTEN_FDNAMES do not fit".to_owned());
    }
    let take = |(at, name): (usize, &String)| {
        take(&mut listeners, at, name).map_err(|cause| format!("socket \"{name}\": {cause}"))
    };
    names.iter().enumerate().map(take).collect()
}

fn take(listeners: &mut ListenFd, at: usize, name: &str) -> Result<Socket, String> {
    let socket = match listeners.take_tcp_listener(at) {
        Ok(Some(listener)) => Socket::tcp(name, listener),
        Ok(None) => return Err("is not there".to_owned()),
        Err(_) => match listeners.take_unix_listener(at) {
            Ok(Some(listener)) => Socket::unix(name, listener, None),
            _ => {
                return Err("is no stream socket of TCP or a unix path; \
                     use ListenStream= in its .socket unit"
                    .to_owned());
            }
        },
    };
    let socket = socket.map_err(|error| error.to_string())?;
    // A connection would pass for a listener, and fail at the first accept.
    match sockopt::socket_acceptconn(&socket) {
        Ok(true) => Ok(socket),
        Ok(false) => Err("is not listening; set Accept=no in its .socket unit".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Where to listen without systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The name the socket gets; empty if none was given.
    pub name: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// Reads `[NAME=]ADDRESS`: an address with a port, or a path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, place) = match text.split_once('=') {
            Some((name, place)) if !name.contains('/') => (name, place),
            _ => ("", text),
        };
        let place = if place.starts_with('/') {
            Place::Unix(place.into())
        } else {
            Place::Tcp(place.parse().map_err(|_| {
                format!(
                    "{text:?} is no address; write [NAME=]127.0.0.1:9001, [NAME=][::1]:9001 or [NAME=]/path/to.sock"
                )
            })?)
        };
        Ok(Self {
            name: name.to_owned(),
            place,
        })
    }

    /// Listens there.
    pub fn bind(&self) -> Result<Socket, String> {
        let bound = match &self.place {
            Place::Tcp(address) => TcpListener::bind(address)
                .and_then(deepen)
                .and_then(|listener| Socket::tcp(&self.name, listener)),
            Place::Unix(path) => replace_left(path)
                .and_then(|()| UnixListener::bind(path))
                .and_then(deepen)
                .and_then(|listener| Socket::unix(&self.name, listener, Some(path.clone()))),
        };
        bound.map_err(|error| format!("cannot listen on {self}: {}", plain(&error)))
    }
}

/// Lets as many connections wait as systemd does; with std's 128 a crowd waits a second.
fn deepen<L: AsFd>(listener: L) -> io::Result<L> {
    const BACKLOG: i32 = 4096;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(address) => address.fmt(f),
            Place::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Removes a unix socket that nobody listens on any more.
fn replace_left(path: &Path) -> io::Result<()> {
    let is_socket = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type().is_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !is_socket {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is something else of that name",
        ));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another program listens there",
        )),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
            io::ErrorKind::NotFound => Ok(()),
            // One that must not be connected to, or is of another type, may be in use.
            kind => Err(io::Error::new(
                kind,
                format!("another program may listen there: {}", plain(&error)),
            )),
        },
    }
}

fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}
