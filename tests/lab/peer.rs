//! A connection from Postfix to a program in the lab.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::client::{Binary, question, reply_length, unframed};
use crate::lab::Lab;

pub(crate) struct Peer {
    stream: UnixStream,
    binary: Binary,
    received: Vec<u8>,
}

impl Peer {
    /// Connects to a socket in Postfix's private folder.
    pub(crate) fn connect(lab: &Lab, binary: Binary, socket: &str) -> io::Result<Self> {
        let path = lab.path(&format!("/var/spool/postfix/private/{socket}"));
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self {
            stream,
            binary,
            received: Vec::new(),
        })
    }

    pub(crate) fn send(&mut self, request: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(request.as_ref())
    }

    /// Returns what the next reply says, without its framing.
    pub(crate) fn receive(&mut self) -> io::Result<String> {
        loop {
            let length = reply_length(self.binary, &self.received).map_err(io::Error::other)?;
            if let Some(length) = length {
                let reply: Vec<u8> = self.received.drain(..length).collect();
                let said = unframed(self.binary, &reply).expect("a whole reply");
                return String::from_utf8(said.to_vec()).map_err(io::Error::other);
            }
            let mut some = [0; 4096];
            match self.stream.read(&mut some)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.received.extend(&some[..count]),
            }
        }
    }

    pub(crate) fn ask(&mut self, table: &str, key: &str) -> io::Result<String> {
        self.send(question(self.binary, table, key))?;
        self.receive()
    }
}
