//! The other end of a connection to a program: Postfix, or a hostile client.

use std::{io, os::fd::AsFd, path::Path, time::Duration};

use bytes::{Buf, BytesMut};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

pub(crate) use crate::client::{framed, netstring, question};

use super::{program::Binary, same, shown, soon};
use crate::client::reply_length;

/// Where a program listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(std::net::SocketAddr),
    Unix(std::path::PathBuf),
}

trait Stream: AsyncRead + AsyncWrite + AsFd + Unpin + Send {}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// One connection.
pub(crate) struct Peer {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    speaks: Binary,
    stuffed: usize,
}

impl Peer {
    pub(crate) async fn connect(address: &Address, speaks: Binary) -> Self {
        match address {
            Address::Tcp(address) => {
                let stream = soon("a connection", TcpStream::connect(address)).await;
                let stream = stream.expect("a connection");
                stream.set_nodelay(true).expect("no delay");
                Self::over(Box::new(stream), speaks)
            }
            Address::Unix(path) => Self::unix(path, speaks).await,
        }
    }

    async fn unix(path: &Path, speaks: Binary) -> Self {
        let stream = soon("a connection", UnixStream::connect(path)).await;
        Self::over(Box::new(stream.expect("a connection")), speaks)
    }

    fn over(stream: Box<dyn Stream>, speaks: Binary) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            speaks,
            stuffed: 0,
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = soon("sending", self.stream.write_all(bytes.as_ref())).await;
        sent.unwrap_or_else(|error| panic!("sending {}: {error}", shown(bytes.as_ref())));
    }

    /// Sends as much as the program takes before it closes; tells whether that was all.
    pub(crate) async fn send_what_it_takes(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = soon("sending", self.stream.write_all(bytes.as_ref())).await;
        sent.is_ok()
    }

    /// Sends these bytes again and again and reads nothing, until something else has happened or
    /// the program has closed; called again, it goes on where it was.
    pub(crate) async fn stuff(&mut self, bytes: &[u8], until: impl Future<Output = ()>) {
        let stuffing = async {
            while let Ok(count) = self.stream.write(&bytes[self.stuffed..]).await {
                self.stuffed = (self.stuffed + count) % bytes.len();
            }
        };
        tokio::select! {
            () = stuffing => {}
            () = until => {}
        }
    }

    /// Says that nothing more will be asked, and still listens.
    pub(crate) async fn finish(&mut self) {
        let finished = soon("half-closing", self.stream.shutdown()).await;
        finished.expect("a half-closed connection");
    }

    /// Breaks the connection so that the program sees a reset; only TCP knows one.
    pub(crate) fn reset(self) {
        sockopt::set_socket_linger(self.stream.as_fd(), Some(Duration::ZERO)).expect("linger");
    }

    /// Reads exactly these bytes.
    pub(crate) async fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let expected = bytes.as_ref();
        while self.buffer.len() < expected.len() && expected.starts_with(&self.buffer) {
            match self.read().await {
                Ok(true) => {}
                end => panic!(
                    "expected {}, the connection ended ({end:?}) after {}",
                    shown(expected),
                    shown(&self.buffer)
                ),
            }
        }
        let length = expected.len().min(self.buffer.len());
        same("on the connection", &self.buffer[..length], expected);
        self.buffer.advance(length);
    }

    /// Reads one whole reply, framing included.
    pub(crate) async fn reply(&mut self) -> Vec<u8> {
        match self.reply_or_end().await {
            Ok(reply) => reply,
            Err(end) => panic!(
                "no reply, the connection ended ({end}) after {}",
                shown(&self.buffer)
            ),
        }
    }

    /// Reads one whole reply; an error where the connection ends before it.
    pub(crate) async fn reply_or_end(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match reply_length(self.speaks, &self.buffer) {
                Ok(Some(length)) => return Ok(self.buffer.split_to(length).to_vec()),
                Ok(None) => {}
                Err(fault) => panic!("{fault}: {}", shown(&self.buffer)),
            }
            if !self.read().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Sends a request and reads its reply.
    pub(crate) async fn ask(&mut self, request: impl AsRef<[u8]>) -> Vec<u8> {
        self.send(request).await;
        self.reply().await
    }

    /// Demands an orderly end and nothing before it.
    pub(crate) async fn expect_eof(&mut self) {
        let end = self.rest().await;
        same("before the end", &self.buffer, b"");
        end.expect("an orderly end");
    }

    /// Demands an end, orderly or reset, and nothing before it. A program that closes while bytes
    /// of ours are unread makes the kernel reset the connection.
    pub(crate) async fn expect_closed(&mut self) {
        let _either = self.rest().await;
        same("before the end", &self.buffer, b"");
    }

    /// Reads whatever comes until the connection ends, in whichever way.
    pub(crate) async fn everything(&mut self) -> Vec<u8> {
        let _either = self.rest().await;
        self.buffer.split().to_vec()
    }

    async fn rest(&mut self) -> io::Result<()> {
        while self.read().await? {}
        Ok(())
    }

    async fn read(&mut self) -> io::Result<bool> {
        let shown_so_far = format!("a byte after {}", shown(&self.buffer));
        let count = soon(&shown_so_far, self.stream.read_buf(&mut self.buffer)).await?;
        Ok(count > 0)
    }
}
