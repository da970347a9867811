//! Listening sockets: inherited from systemd by name, or bound for `--listen`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::net::sockopt;

/// A listening socket.
#[derive(Debug)]
pub struct Socket {
    /// Its `FileDescriptorName=`, or the name given with `--listen`.
    pub name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    /// In this order: the path is removed before the listener is closed.
    Unix(Option<Bound>, UnixListener),
}

/// The path of a unix socket that this process has bound. It is removed at the end if it still
/// leads to that socket, and not to a successor's.
///
/// Drop it before the listener: until that is closed, no other socket can have its inode number.
#[derive(Debug)]
struct Bound {
    path: PathBuf,
    inode: (u64, u64),
}

impl Bound {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            inode: inode(path)?,
        })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // The holder of the lock may be binding this path. Do not wait for it: the next start
        // replaces a path that is left behind.
        let Ok(_alone) = lock_directory_of(&self.path, 1) else {
            return;
        };
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // The program ends, so an error changes nothing.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Keeps other starting programs away from a path until the lock is dropped. Without it, a program
/// that finds a socket unused and removes it could remove the one that another has just bound.
///
/// Any user with read access to the directory can hold this lock, so it is tried a number of times
/// and never waited for without end. On a file system without locks there is none.
fn lock_directory_of(path: &Path, tries: usize) -> Result<Option<OwnedFd>, InUse> {
    const PAUSE: Duration = Duration::from_millis(50);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = path.parent().map(|path| open(path, flags, Mode::empty()));
    let Some(Ok(directory)) = directory else {
        return Ok(None);
    };
    for left in (0..tries).rev() {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(directory)),
            Err(Errno::WOULDBLOCK | Errno::INTR) if left > 0 => thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(_) => return Ok(None),
        }
    }
    Err(InUse)
}

/// Another process holds the lock.
struct InUse;

/// An accepted connection that belongs to no event loop yet.
#[derive(Debug)]
pub enum Taken {
    /// Over TCP.
    Tcp(std::net::TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Taken {
    /// Registers the connection with the event loop of the calling thread.
    pub fn attach(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(stream) => Stream::Tcp(tokio::net::TcpStream::from_std(stream)?),
            Self::Unix(stream) => Stream::Unix(tokio::net::UnixStream::from_std(stream)?),
        })
    }
}

/// A connection that is registered with an event loop.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(tokio::net::TcpStream),
    /// Over a unix socket.
    Unix(tokio::net::UnixStream),
}

/// A listening socket that is registered with an event loop.
#[derive(Debug)]
pub struct Listener(Waiting);

#[derive(Debug)]
enum Waiting {
    Tcp(tokio::net::TcpListener),
    Unix {
        /// The first field, so that it is dropped first.
        _bound: Option<Bound>,
        listener: tokio::net::UnixListener,
    },
}

impl Listener {
    /// Waits for the next connection. Dropping the future loses no connection.
    pub async fn accept(&self) -> io::Result<Taken> {
        match &self.0 {
            Waiting::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Options of a connection that is reset already cannot be set, and do not matter.
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
    /// Registers the socket with the event loop of the calling thread.
    pub fn listen(self) -> io::Result<Listener> {
        Ok(Listener(match self.kind {
            Kind::Tcp(listener) => Waiting::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Kind::Unix(bound, listener) => Waiting::Unix {
                _bound: bound,
                listener: tokio::net::UnixListener::from_std(listener)?,
            },
        }))
    }

    fn tcp(name: &str, listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            name: name.to_owned(),
            kind: Kind::Tcp(listener),
        })
    }

    fn unix(name: &str, bound: Option<Bound>, listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            name: name.to_owned(),
            kind: Kind::Unix(bound, listener),
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(listener) => listener.as_fd(),
            Kind::Unix(_, listener) => listener.as_fd(),
        }
    }
}

/// Sets keep-alive, so that a peer that has vanished is noticed after some minutes and a firewall
/// does not forget an idle connection, and no delay: a reply or a question is one small segment, which
/// must not wait for another.
pub fn tune(stream: &tokio::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(20))?;
    Ok(())
}

/// Returns whether systemd has passed sockets to this process that have not been taken yet.
///
/// LISTEN_PID is checked here, since listenfd also takes sockets without one. Those may belong to
/// the parent process.
pub fn is_activated() -> bool {
    std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string())
}

/// Returns why the sockets in the environment are not for this process, if there are any.
pub fn not_ours() -> Option<String> {
    let own = std::process::id();
    match std::env::var_os("LISTEN_PID") {
        None => std::env::var_os("LISTEN_FDS")
            .map(|_| "LISTEN_FDS is set and LISTEN_PID is not".to_owned()),
        Some(pid) => match pid.to_str().map(str::parse::<u32>) {
            Some(Ok(pid)) if pid == own => None,
            Some(Ok(pid)) => Some(format!("LISTEN_PID is {pid}, and this process is {own}")),
            _ => Some(format!("LISTEN_PID is {pid:?}, which is not a process id")),
        },
    }
}

/// Takes the sockets that systemd has passed; none if there are none.
///
/// Call it before there are threads: it removes the variables from the environment.
pub fn from_systemd() -> Result<Vec<Socket>, String> {
    if !is_activated() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = sd_notify::listen_fds_with_names()
        .map_err(|error| format!("LISTEN_FDS and LISTEN_FDNAMES do not match: {error}"))?
        .map(|(_, name)| name)
        .collect();
    let mut listeners = ListenFd::from_env();
    if listeners.len() != names.len() {
        return Err("LISTEN_FDS and LISTEN_FDNAMES do not match".to_owned());
    }
    let take = |(at, name): (usize, &String)| {
        take(&mut listeners, at, name).map_err(|cause| format!("socket \"{name}\": {cause}"))
    };
    names.iter().enumerate().map(take).collect()
}

fn take(listeners: &mut ListenFd, at: usize, name: &str) -> Result<Socket, String> {
    let socket = match listeners.take_tcp_listener(at) {
        Ok(Some(listener)) => Socket::tcp(name, listener),
        Ok(None) => return Err("is not open".to_owned()),
        Err(_) => match listeners.take_unix_listener(at) {
            Ok(Some(listener)) => Socket::unix(name, None, listener),
            _ => {
                return Err("is neither a TCP nor a unix stream socket; \
                     use ListenStream= in its .socket unit"
                    .to_owned());
            }
        },
    };
    let socket = socket.map_err(|error| error.to_string())?;
    // A connected socket looks like a listener, and would fail only at the first accept.
    match sockopt::socket_acceptconn(&socket) {
        Ok(true) => Ok(socket),
        Ok(false) => Err("is not listening; set Accept=no in its .socket unit".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Where to listen without systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The name of the socket; empty if the option has none.
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
                    "{text:?} is not an address; write [NAME=]127.0.0.1:9001, [NAME=][::1]:9001 \
                     or [NAME=]/path/to.sock"
                )
            })?)
        };
        Ok(Self {
            name: name.to_owned(),
            place,
        })
    }

    /// Binds the address and listens.
    pub fn bind(&self) -> Result<Socket, String> {
        let bound = match &self.place {
            Place::Tcp(address) => TcpListener::bind(address)
                .and_then(deepen)
                .and_then(|listener| Socket::tcp(&self.name, listener)),
            Place::Unix(path) => bind_unix(path)
                .and_then(|(bound, listener)| Socket::unix(&self.name, Some(bound), listener)),
        };
        bound.map_err(|error| format!("cannot listen on {self}: {}", plain(&error)))
    }
}

/// The backlog that systemd uses. With the 128 of std, a burst of connections would overflow it,
/// and clients repeat a lost SYN only after a second.
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

fn bind_unix(path: &Path) -> io::Result<(Bound, UnixListener)> {
    // Bind without the lock if another user holds it: it must not keep a program from starting.
    let _alone = lock_directory_of(path, 20);
    replace_left(path)?;
    let listener = deepen(UnixListener::bind(path)?)?;
    Ok((Bound::new(path)?, listener))
}

/// Removes a unix socket on which no process listens.
fn replace_left(path: &Path) -> io::Result<()> {
    let is_socket = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type().is_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !is_socket {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file of another kind has this name",
        ));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another program already listens there",
        )),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
            io::ErrorKind::NotFound => Ok(()),
            // A socket that refuses this user, or is of another type, may be in use.
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

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn of_many_who_listen_at_one_path_at_once_one_does() {
        const STARTS: usize = 4;
        let name = format!("postgate-socket-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("s");
        let address = Address::parse(path.to_str().unwrap()).unwrap();
        for round in 0..100 {
            drop(UnixListener::bind(&path).unwrap());
            let barrier = Barrier::new(STARTS);
            let bound: Vec<_> = thread::scope(|scope| {
                let start = || {
                    barrier.wait();
                    address.bind()
                };
                let starts: Vec<_> = (0..STARTS).map(|_| scope.spawn(start)).collect();
                starts.into_iter().map(|s| s.join().unwrap()).collect()
            });
            let count = bound.iter().filter(|bound| bound.is_ok()).count();
            assert_eq!(count, 1, "round {round}: {bound:?}");
            UnixStream::connect(&path).unwrap();
            drop(bound);
            assert!(!path.exists(), "round {round}");
        }
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn at_the_end_a_path_is_left_behind_where_somebody_holds_the_lock() {
        let name = format!("postgate-lock-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("s");
        let address = Address::parse(path.to_str().unwrap()).unwrap();
        let bound = address.bind().unwrap();
        let Ok(held) = lock_directory_of(&path, 1) else {
            panic!("the lock of a new directory");
        };
        drop(bound);
        assert!(path.exists());
        drop(held);
        drop(address.bind().unwrap());
        assert!(!path.exists());
        std::fs::remove_dir(&directory).unwrap();
    }
}
