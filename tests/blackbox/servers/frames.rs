//! An HTTP/2 server made of frames (RFC 9113) over plain TCP, so that it can break off where no
//! library would.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{Seen, program::Reserved};

/// RFC 9113, section 7.
pub(crate) const NO_ERROR: u32 = 0x0;
pub(crate) const INTERNAL_ERROR: u32 = 0x2;
pub(crate) const REFUSED_STREAM: u32 = 0x7;
pub(crate) const CANCEL: u32 = 0x8;

/// One step of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// HEADERS of a 200 of this stream, with these fields.
    Head(u32, Vec<(&'static str, String)>),
    /// DATA of this stream, and whether the stream ends with it.
    Data(u32, &'static str, bool),
    /// RST_STREAM with this code.
    Reset(u32, u32),
    /// Nothing, until a permit is added.
    Wait(Arc<Semaphore>),
    /// GOAWAY with the last stream that was processed, and this code.
    GoAway(u32, u32),
    /// The end of the connection.
    Close,
}

/// A whole answer: JSON that every program says as found.
pub(crate) fn dunno(stream: u32) -> Vec<Act> {
    let json = vec![("content-type", "application/json".to_owned())];
    vec![
        Act::Head(stream, json),
        Act::Data(stream, "\"DUNNO\"", true),
    ]
}

/// One request as the server saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    /// The number of its connection.
    pub(crate) connection: usize,
    /// The number of its stream.
    pub(crate) stream: u32,
    /// How many requests came before it, over any connection.
    pub(crate) before: usize,
}

type Script = Box<dyn FnMut(Visit) -> Vec<Act> + Send>;

/// Plays its script for each request that is complete.
pub(crate) struct Frames {
    address: SocketAddr,
    visits: Seen<Visit>,
    task: JoinHandle<()>,
}

impl Frames {
    pub(crate) fn new(script: impl FnMut(Visit) -> Vec<Act> + Send + 'static) -> Self {
        Self::allowing(100, script)
    }

    /// Allows a connection so many streams at once.
    pub(crate) fn allowing(
        streams: u32,
        script: impl FnMut(Visit) -> Vec<Act> + Send + 'static,
    ) -> Self {
        let reserved = Reserved::new();
        let address = reserved.address();
        let listener = reserved.listen();
        let visits = Seen::new();
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let seen = visits.clone();
        let task = tokio::spawn(async move {
            let mut conversations = JoinSet::new();
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let (script, seen) = (Arc::clone(&script), seen.clone());
                conversations.spawn(async move {
                    // A client may leave at any time.
                    let _ = converse(stream, connection, streams, &script, &seen).await;
                });
                connection += 1;
            }
        });
        Self {
            address,
            visits,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/ask", self.address)
    }

    pub(crate) fn count(&self) -> usize {
        self.visits.count()
    }

    /// Waits for so many requests.
    pub(crate) async fn asked(&self, count: usize) -> Vec<Visit> {
        let what = format!("{count} requests at the server");
        self.visits.at_least(count, &what).await
    }

    pub(crate) fn visits(&self) -> Vec<Visit> {
        self.visits.all()
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

async fn converse(
    mut stream: TcpStream,
    connection: usize,
    streams: u32,
    script: &Mutex<Script>,
    seen: &Seen<Visit>,
) -> io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let mut settings = MAX_CONCURRENT_STREAMS.to_be_bytes().to_vec();
    settings.extend(streams.to_be_bytes());
    stream.write_all(&frame(SETTINGS, 0, 0, &settings)).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await?;
        match kind {
            SETTINGS | PING if flags & ACK == 0 => {
                let echo: &[u8] = if kind == PING { &payload } else { &[] };
                stream.write_all(&frame(kind, ACK, 0, echo)).await?;
            }
            HEADERS | DATA if flags & END_STREAM != 0 => {
                let visit = Visit {
                    connection,
                    stream: id,
                    before: seen.count(),
                };
                seen.push(visit);
                let acts = (script.lock().expect("a lock"))(visit);
                let mut bytes = Vec::new();
                let mut is_last = false;
                for act in acts {
                    match act {
                        Act::Close => is_last = true,
                        Act::Wait(gate) => {
                            stream.write_all(&std::mem::take(&mut bytes)).await?;
                            gate.acquire().await.expect("a gate").forget();
                        }
                        act => bytes.extend(encoded(act)),
                    }
                }
                stream.write_all(&bytes).await?;
                if is_last {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
}

fn encoded(act: Act) -> Vec<u8> {
    match act {
        Act::Head(stream, fields) => {
            // The 200 of the static table, then literals without indexing (RFC 7541, section 6).
            let mut block = vec![0x88];
            for (name, value) in fields {
                block.push(0);
                for text in [name.as_bytes(), value.as_bytes()] {
                    block.push(u8::try_from(text.len()).expect("a short text"));
                    block.extend(text);
                }
            }
            frame(HEADERS, END_HEADERS, stream, &block)
        }
        Act::Data(stream, text, is_last) => {
            let flags = if is_last { END_STREAM } else { 0 };
            frame(DATA, flags, stream, text.as_bytes())
        }
        Act::Reset(stream, code) => frame(RST_STREAM, 0, stream, &code.to_be_bytes()),
        Act::GoAway(last, code) => {
            let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
            frame(GOAWAY, 0, 0, &payload)
        }
        Act::Close | Act::Wait(_) => Vec::new(),
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}
