//! The other end of one connection: its bytes, and the time that it has for them.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use secrecy::zeroize::Zeroize as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::select;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::connections::{ConnectionGuard, Notice};

/// How much is read at a time onto the stack, and into the input itself; and how much of what a peer
/// sends ahead is kept during a call.
const READ: usize = 8 * 1024;
const ROOM: usize = 2 * 1024;
const READ_AHEAD: usize = 64 * 1024;

/// The largest buffer that an idle connection keeps: room for any request that Postfix makes
/// by itself.
const MAX_IDLE_BUFFER: usize = 4 * 1024;

/// How long a connection that has asked nothing yet does not count as idle: its first request is
/// on its way.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(200);

/// Bytes that come within this time came at once.
const SAME_ARRIVAL: Duration = Duration::from_millis(10);

/// How long after a shutdown an incomplete request may take to become complete.
const INCOMPLETE_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// Why a connection is over.
#[derive(Debug)]
pub enum End {
    /// The peer has closed its side. An incomplete request is dropped.
    Eof,
    /// The connection broke.
    Broken(io::Error),
    /// The peer's request was refused.
    Refused,
    /// The reply was to close.
    Closed,
    /// The peer was too slow to ask or to take its reply.
    TooSlow,
    /// The peer asked nothing for longer than allowed.
    Idle,
    /// The connection was closed to make room for another one.
    Evicted,
    /// The program stops.
    Shutdown,
}

/// How long a connection waits for its peer.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From a request's first byte to its last, and for writing a reply.
    pub read: Duration,
    /// For the first byte; for ever if absent.
    pub idle: Option<Duration>,
}

/// The peer of one connection.
pub struct Peer<'g, S> {
    stream: S,
    guard: &'g ConnectionGuard,
    /// The bytes that were received and are not parsed yet.
    pub input: BytesMut,
    /// How many bytes have been received in all.
    received: u64,
    /// When those in the input came: each up to which byte, and the time.
    arrivals: VecDeque<(u64, Instant)>,
    /// Whether they may be secrets, of which no copy must stay in memory.
    has_secrets: bool,
    /// How many bytes were taken from the input before the request that is in it, and when its first
    /// byte was read.
    first_byte: Option<(u64, Instant)>,
    /// Whether the first read has had its grace period.
    has_begun: bool,
    has_asked: bool,
    /// Whether the peer has closed its side.
    has_ended: bool,
    /// Goes off when the peer is too slow, or idle for too long, if either has a limit.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<'g, S> Peer<'g, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Makes the peer of a connection that has just been admitted.
    pub fn new(stream: S, guard: &'g ConnectionGuard) -> Self {
        Self {
            stream,
            guard,
            input: BytesMut::new(),
            received: 0,
            arrivals: VecDeque::new(),
            has_secrets: false,
            first_byte: None,
            has_begun: false,
            has_asked: false,
            has_ended: false,
            timer: None,
        }
    }

    /// Says whether the peer sends secrets. The reader of the input overwrites what it takes; this
    /// overwrites the rest.
    pub fn sends_secrets(mut self, has_secrets: bool) -> Self {
        self.has_secrets = has_secrets;
        self
    }

    /// Reads while nothing of this connection is in flight.
    ///
    /// With an empty input the connection is idle: it may be evicted, and a shutdown ends it once
    /// the bytes that arrived before have been read. An incomplete request has a timeout.
    pub async fn read(&mut self, timeouts: Timeouts) -> Result<(), End> {
        let before = self.input.len();
        self.read_some(timeouts).await?;
        self.note_arrival(before);
        Ok(())
    }

    async fn read_some(&mut self, timeouts: Timeouts) -> Result<(), End> {
        if self.has_ended {
            return Err(End::Eof);
        }
        let is_idle = self.input.is_empty();
        if is_idle && self.input.try_reclaim(MAX_IDLE_BUFFER + 1) {
            self.input = BytesMut::new();
        }
        self.make_room();
        if !self.has_begun {
            self.has_begun = true;
            // Not idle yet, so that a burst of new connections does not evict its own members.
            let first = read(&mut self.stream, &mut self.input, self.has_secrets);
            if let Ok(read) = timeout(FIRST_REQUEST_GRACE, first).await {
                return some_bytes(read);
            }
        }
        let deadline = if is_idle {
            self.first_byte = None;
            self.guard.mark_idle();
            timeouts.idle.map(|idle| Instant::now() + idle)
        } else {
            // A line that is taken and not answered ends a request as well.
            let taken = self.taken();
            let first_byte = self.first_byte.filter(|(before, _)| *before == taken);
            let (_, first_byte) = *self
                .first_byte
                .insert(first_byte.unwrap_or_else(|| (taken, Instant::now())));
            Some(first_byte + timeouts.read)
        };
        let read = select! {
            biased;
            read = read(&mut self.stream, &mut self.input, self.has_secrets) => read,
            notice = self.guard.notice(), if is_idle => match notice {
                Notice::Evict => return Err(End::Evicted),
                Notice::Shutdown => self.final_read().await?,
            },
            since = self.guard.stopped(), if !is_idle => self.final_piece(since).await?,
            () = until(&mut self.timer, deadline) => {
                return Err(if is_idle { End::Idle } else { End::TooSlow });
            }
        };
        // A connection at its end stays marked idle: evicting it makes room sooner.
        if read.as_ref().is_ok_and(|count| *count > 0) {
            self.guard.mark_busy();
        }
        some_bytes(read)
    }

    /// Reads ahead while requests of this connection are in flight. Never returns once the peer has
    /// closed its side, or has sent more than a request ahead.
    ///
    /// This is also how a reset is noticed, which cancels the calls.
    pub async fn read_ahead(&mut self) -> Result<(), End> {
        if self.has_ended || self.input.len() >= READ_AHEAD {
            return std::future::pending().await;
        }
        self.make_room();
        let before = self.input.len();
        let read = read(&mut self.stream, &mut self.input, self.has_secrets).await;
        self.has_ended = read.map_err(End::Broken)? == 0;
        self.note_arrival(before);
        Ok(())
    }

    /// Notes that more bytes have come than there were before.
    fn note_arrival(&mut self, before: usize) {
        let count = self.input.len().saturating_sub(before);
        self.received += u64::try_from(count).unwrap_or(u64::MAX);
        if before == 0 {
            self.arrivals.clear();
        }
        let now = Instant::now();
        match self.arrivals.back_mut() {
            // A peer that sends byte by byte must not make a long list.
            Some((end, at)) if now < *at + SAME_ARRIVAL => *end = self.received,
            _ => self.arrivals.push_back((self.received, now)),
        }
    }

    /// Returns when the last byte had arrived of the request that was taken from the input just now.
    /// It may have waited there for those before it.
    pub fn arrived_at(&mut self) -> Instant {
        let taken = self.taken();
        while self.arrivals.front().is_some_and(|(end, _)| *end < taken) {
            self.arrivals.pop_front();
        }
        let first = self.arrivals.front();
        first.map_or_else(Instant::now, |(_, at)| *at)
    }

    /// Returns how many bytes have been taken from the input.
    fn taken(&self) -> u64 {
        self.received - u64::try_from(self.input.len()).unwrap_or_default()
    }

    /// Makes room for the next read if it may have secrets.
    fn make_room(&mut self) {
        let room = self.input.capacity().saturating_sub(self.input.len());
        if self.has_secrets && room < ROOM / 2 {
            // A buffer that grows by itself leaves a copy behind.
            let mut larger = BytesMut::with_capacity(self.input.len().saturating_add(ROOM));
            larger.extend_from_slice(&self.input);
            self.empty_input();
            self.input = larger;
        }
    }

    /// Notes that a request was taken from the input: the next one has its time to itself.
    pub fn mark_asked(&mut self) {
        self.has_asked = true;
        self.first_byte = None;
    }

    /// Sends a reply.
    pub async fn send(
        &mut self,
        bytes: &[u8],
        timeouts: impl FnOnce() -> Timeouts,
    ) -> Result<(), End> {
        self.first_byte = None;
        self.guard.mark_replied();
        let mut writing = pin!(self.stream.write_all(bytes));
        // Most are sent at once, and need no timer.
        let sent = poll_fn(|cx| Poll::Ready(writing.as_mut().poll(cx))).await;
        let sent = match sent {
            Poll::Ready(sent) => sent,
            Poll::Pending => {
                let slow = Box::pin(timeout(timeouts().read, writing)).await;
                slow.map_err(|_| End::TooSlow)?
            }
        };
        sent.map_err(End::Broken)
    }

    /// Reads what a peer asked before the shutdown: it may have arrived without being noticed yet,
    /// and the first request of a new connection is on its way.
    async fn final_read(&mut self) -> Result<io::Result<usize>, End> {
        let grace = if self.has_asked {
            Duration::ZERO
        } else {
            FIRST_REQUEST_GRACE
        };
        tokio::task::yield_now().await;
        select! {
            biased;
            read = read(&mut self.stream, &mut self.input, self.has_secrets) => Ok(read),
            () = sleep(grace) => Err(End::Shutdown),
        }
    }

    /// Reads the rest of an incomplete request, until a second after the shutdown.
    async fn final_piece(&mut self, since: Instant) -> Result<io::Result<usize>, End> {
        select! {
            biased;
            read = read(&mut self.stream, &mut self.input, self.has_secrets) => Ok(read),
            () = sleep_until(since + INCOMPLETE_REQUEST_GRACE) => Err(End::Shutdown),
        }
    }

    /// Reads and drops some of what the peer still sends: closing with unread bytes would reset the
    /// connection and could cost the peer its last reply.
    pub async fn linger(&mut self) {
        const LONGEST: Duration = Duration::from_secs(1);
        const MOST: usize = 256 * 1024;
        // Before the peer learns that it is over.
        self.empty_input();
        let drop_the_rest = async {
            self.stream.shutdown().await?;
            let mut dropped = 0;
            while dropped < MOST {
                self.empty_input();
                self.input.reserve(ROOM);
                match self.stream.read_buf(&mut self.input).await? {
                    0 => break,
                    read => dropped += read,
                }
            }
            io::Result::Ok(())
        };
        // The connection is over either way.
        let _ = timeout(LONGEST, drop_the_rest).await;
    }
}

impl<S> Peer<'_, S> {
    /// Drops the input. Of secrets nothing stays, not even behind its end: a buffer that was emptied
    /// before may have had more.
    fn empty_input(&mut self) {
        if self.has_secrets {
            self.input.as_mut().zeroize();
            self.input.spare_capacity_mut().zeroize();
        }
        self.input.clear();
    }
}

/// Without its input, which may have a secret.
impl<S> fmt::Debug for Peer<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut peer = f.debug_struct("Peer");
        peer.field("unread", &self.input.len())
            .finish_non_exhaustive()
    }
}

impl<S> Drop for Peer<'_, S> {
    fn drop(&mut self) {
        self.empty_input();
    }
}

/// Reads what a peer has sent. Secrets are read into the input itself. Everything else is read into an
/// array on the stack first, so that a peer which has asked nothing needs no buffer.
async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut BytesMut,
    has_secrets: bool,
) -> io::Result<usize> {
    if has_secrets {
        return stream.read_buf(input).await;
    }
    poll_fn(|cx| {
        let mut space = [const { MaybeUninit::uninit() }; READ];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
        input.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
    .await
}

fn some_bytes(read: io::Result<usize>) -> Result<(), End> {
    match read {
        Ok(0) => Err(End::Eof),
        Ok(_) => Ok(()),
        Err(error) => Err(End::Broken(error)),
    }
}

/// Waits for a deadline, with a timer that stays from request to request: moving it is cheaper than
/// setting another one.
async fn until(timer: &mut Option<Pin<Box<Sleep>>>, deadline: Option<Instant>) {
    let Some(deadline) = deadline else {
        return std::future::pending().await;
    };
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
    timer.as_mut().reset(deadline);
    timer.await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::serve::connections::Connections;

    const TIMEOUTS: Timeouts = Timeouts {
        read: Duration::from_secs(10),
        idle: None,
    };

    #[tokio::test(start_paused = true)]
    async fn a_request_has_arrived_when_its_last_byte_was_read() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let guard = Arc::new(Connections::default()).admit(|| 1).await;
        let mut peer = Peer::new(ours, &guard);
        let began = Instant::now();
        let second = Duration::from_secs(1);
        // Two requests at once, the beginning of a third, its rest later.
        theirs.write_all(b"aabbc").await.unwrap();
        peer.read(TIMEOUTS).await.unwrap();
        tokio::time::advance(second).await;
        theirs.write_all(b"cdd").await.unwrap();
        peer.read_ahead().await.unwrap();
        tokio::time::advance(second).await;
        for (request, after) in [("aa", 0), ("bb", 0), ("cc", 1), ("dd", 1)] {
            assert_eq!(peer.input.split_to(2), request);
            assert_eq!(peer.arrived_at(), began + second * after);
        }
        theirs.write_all(b"e").await.unwrap();
        peer.read(TIMEOUTS).await.unwrap();
        assert_eq!(peer.input.split_to(1), "e");
        assert_eq!(peer.arrived_at(), began + second * 2);
    }

    /// A request of many lines of which none is answered, such as a transaction, whose lines come in
    /// pieces.
    #[tokio::test(start_paused = true)]
    async fn each_line_has_the_time_of_a_request() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let guard = Arc::new(Connections::default()).admit(|| 1).await;
        let mut peer = Peer::new(ours, &guard);
        theirs.write_all(b"aab").await.unwrap();
        peer.read(TIMEOUTS).await.unwrap();
        for _ in 0..5 {
            assert_eq!(peer.input.len(), 3);
            let _line = peer.input.split_to(2);
            let late = async {
                sleep(TIMEOUTS.read - Duration::from_secs(1)).await;
                theirs.write_all(b"bb").await.unwrap();
            };
            let (read, ()) = tokio::join!(peer.read(TIMEOUTS), late);
            read.unwrap();
        }
        // One that does not end has its time as well.
        let end = peer.read(TIMEOUTS).await;
        let end = match end {
            Ok(()) => peer.read(TIMEOUTS).await,
            end => end,
        };
        assert!(matches!(end, Err(End::TooSlow)), "{end:?}");
    }

    #[tokio::test]
    async fn a_peer_that_has_asked_nothing_needs_no_buffer() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let guard = Arc::new(Connections::default()).admit(|| 1).await;
        let mut peer = Peer::new(ours, &guard);
        let sent: Vec<u8> = (0..10_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        for _ in 0..2 {
            assert!(peer.read(TIMEOUTS).now_or_never().is_none());
            assert_eq!(peer.input.capacity(), 0);
            theirs.write_all(&sent).await.unwrap();
            peer.read(TIMEOUTS).await.unwrap();
            while peer.input.len() < sent.len() {
                peer.read_ahead().await.unwrap();
            }
            assert_eq!(peer.input.split(), sent);
        }
    }

    #[tokio::test]
    async fn a_buffer_with_secrets_grows_and_keeps_what_was_read() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let guard = Arc::new(Connections::default()).admit(|| 1).await;
        let mut peer = Peer::new(ours, &guard).sends_secrets(true);
        let sent: Vec<u8> = (0..50_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        theirs.write_all(&sent).await.unwrap();
        while peer.input.len() < 20_000 {
            peer.read(TIMEOUTS).await.unwrap();
        }
        while peer.input.len() < sent.len() {
            peer.read_ahead().await.unwrap();
        }
        assert_eq!(peer.input, sent);
        // An idle connection gives its large buffer back.
        peer.input.clear();
        theirs.write_all(b"a").await.unwrap();
        peer.read(TIMEOUTS).await.unwrap();
        assert_eq!(peer.input, "a");
        assert!(peer.input.capacity() <= MAX_IDLE_BUFFER);
    }
}
