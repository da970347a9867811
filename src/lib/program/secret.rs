//! The secret of a `--query`: from the terminal without echo, or a line of standard input.

use std::future::poll_fn;
use std::io::{self, IsTerminal as _};
use std::process::exit;
use std::task::Poll;
use std::thread;

use rustix::stdio::stdin;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::zeroize::Zeroizing;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::messages::prompt;

/// The longest secret. Longer ones do not fit into a line of the protocol.
const MOST: usize = 16 * 1024;

/// Reads the secret of this name.
pub(crate) async fn read(name: &str) -> io::Result<Zeroizing<String>> {
    if !io::stdin().is_terminal() {
        return line();
    }
    let silence = Silence::begin()?;
    let mut signals = Vec::new();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ] {
        signals.push((signal(kind)?, kind.as_raw_value()));
    }
    prompt(&format!("{name}: "));
    let (send, typed) = oneshot::channel();
    // A read of the terminal cannot be given up, so it has a thread that the end of the program ends.
    thread::spawn(move || drop(send.send(line())));
    let any_signal = poll_fn(|cx| {
        let came = signals
            .iter_mut()
            .find_map(|(signal, number)| signal.poll_recv(cx).is_ready().then_some(*number));
        came.map_or(Poll::Pending, Poll::Ready)
    });
    let line = select! {
        line = typed => line.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())),
        number = any_signal => {
            drop(silence);
            // As a shell calls the end by a signal: not one of the statuses of a query.
            exit(128 + number);
        }
    };
    drop(silence);
    line
}

/// Reads a line byte by byte: what is read ahead would stay in a buffer that nothing overwrites.
fn line() -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(Vec::with_capacity(MOST));
    let mut byte = Zeroizing::new([0]);
    while rustix::io::read(stdin(), &mut *byte)? > 0 && byte[0] != b'\n' {
        if line.len() == MOST {
            let text = format!("longer than {MOST} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        line.push(byte[0]);
    }
    let text = std::str::from_utf8(&line);
    let text = text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A terminal without echo, until this is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        // The line feed is shown, so that the next output begins a line.
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // There is nothing else that could be done about a terminal that has gone.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}
