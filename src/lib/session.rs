//! One connection, first byte to last: frame, request, backend call, outcome, reply, in a loop.

use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::select;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use crate::observe::log::{Record, Recorder, RequestId};
use crate::outcome::{Outcome, Reason};
use crate::protocol::{Protocol, Step, say};
use crate::reply::{PolicyActions, Reply};
use crate::request::Request;
use crate::serve::connections::{ConnectionGuard, Notice};
use crate::table::{Backend, Table};

/// How much is read at a time, and how much of what a peer sends ahead is kept during a call.
const READ: usize = 2 * 1024;
const READ_AHEAD: usize = 64 * 1024;

/// The largest buffer that an idle connection keeps: room for any request that Postfix makes of
/// its own accord.
const KEPT: usize = 4 * 1024;

/// How long a connection that has asked nothing yet is not taken for an idle one.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(200);

/// How long after a stop half a request may take to become whole.
const HALF_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// Why a connection is over.
#[derive(Debug)]
pub enum End {
    /// The peer has said its last; half a request is none.
    Eof,
    /// The connection broke.
    Broken(io::Error),
    /// The peer's request was refused.
    Refused,
    /// The reply was to hang up.
    HungUp,
    /// The peer was too slow to ask or to take its reply.
    TooSlow,
    /// It asked nothing for longer than allowed.
    Idle,
    /// It had to leave for another connection.
    Evicted,
    /// The program stops.
    Stopped,
}

/// What a connection shares with the rest of the program.
#[derive(Debug)]
pub struct Context<'s> {
    /// Its place among the connections.
    pub guard: &'s ConnectionGuard,
    /// Where every request is recorded.
    pub recorder: &'s Recorder,
}

/// Serves one connection until it ends, in order, each request with exactly one reply.
///
/// A peer that closes its side gets the replies to what it has asked; one that resets the
/// connection ends its call. When the program stops, what has been asked is still answered.
pub async fn serve<P, B, S>(stream: S, backend: &B, context: Context<'_>) -> End
where
    P: Protocol,
    B: Backend,
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut session = Session {
        stream,
        backend,
        context,
        input: BytesMut::new(),
        first_byte: None,
        has_come: false,
        has_asked: false,
        has_ended: false,
        timer: None,
    };
    match session.run(P::default()).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

struct Session<'s, B, S> {
    stream: S,
    backend: &'s B,
    context: Context<'s>,
    input: BytesMut,
    /// When the request that is on its way began.
    first_byte: Option<Instant>,
    /// Whether it was given time for its first byte.
    has_come: bool,
    /// Whether anything has been asked on this connection.
    has_asked: bool,
    /// Whether the peer has closed its side.
    has_ended: bool,
    /// Goes off when the peer is too slow, or idle for too long, if anything is.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B, S> Session<'_, B, S>
where
    B: Backend,
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    async fn run<P: Protocol>(&mut self, mut protocol: P) -> Result<std::convert::Infallible, End> {
        loop {
            match protocol.next_step(&mut self.input) {
                Step::NeedMore => self.read().await?,
                Step::Ask(request) => self.ask::<P>(&request).await?,
                Step::Answer(outcome) => self.answer::<P>(outcome).await?,
                Step::Refuse(outcome) => {
                    self.answer::<P>(outcome).await?;
                    self.linger().await;
                    return Err(End::Refused);
                }
            }
        }
    }

    async fn read(&mut self) -> Result<(), End> {
        if self.has_ended {
            return Err(End::Eof);
        }
        let is_idle = self.input.is_empty();
        if is_idle && self.input.try_reclaim(KEPT + 1) {
            self.input = BytesMut::new();
        }
        self.input.reserve(READ);
        if !self.has_come {
            // Who has just connected is about to ask, and is not to leave before.
            self.has_come = true;
            if let Ok(read) =
                timeout(FIRST_REQUEST_GRACE, self.stream.read_buf(&mut self.input)).await
            {
                return taken(read);
            }
        }
        let timeouts = self.backend.timeouts();
        let deadline = if is_idle {
            self.first_byte = None;
            self.context.guard.mark_idle();
            timeouts.idle.map(|idle| Instant::now() + idle)
        } else {
            let first_byte = *self.first_byte.get_or_insert_with(Instant::now);
            Some(first_byte + timeouts.read)
        };
        let read = select! {
            biased;
            read = self.stream.read_buf(&mut self.input) => read,
            notice = self.context.guard.notice(), if is_idle => match notice {
                Notice::Evict => return Err(End::Evicted),
                Notice::Shutdown => self.final_read().await?,
            },
            stopped = self.context.guard.stopped(), if !is_idle => {
                self.final_piece(stopped).await?
            }
            () = until(&mut self.timer, deadline) => {
                return Err(if is_idle { End::Idle } else { End::TooSlow });
            }
        };
        // Who has come to its end leaves by itself.
        if read.as_ref().is_ok_and(|count| *count > 0) {
            self.context.guard.mark_busy();
        }
        taken(read)
    }

    /// What was asked before the stop is answered: it may have arrived without being noticed yet.
    /// Who has just connected is about to ask.
    async fn final_read(&mut self) -> Result<io::Result<usize>, End> {
        let grace = if self.has_asked {
            Duration::ZERO
        } else {
            FIRST_REQUEST_GRACE
        };
        tokio::task::yield_now().await;
        select! {
            biased;
            read = self.stream.read_buf(&mut self.input) => Ok(read),
            () = sleep(grace) => Err(End::Stopped),
        }
    }

    /// Half a request becomes whole soon after the stop, or never.
    async fn final_piece(&mut self, stopped: Instant) -> Result<io::Result<usize>, End> {
        select! {
            biased;
            read = self.stream.read_buf(&mut self.input) => Ok(read),
            () = sleep_until(stopped + HALF_REQUEST_GRACE) => Err(End::Stopped),
        }
    }

    async fn ask<P: Protocol>(&mut self, request: &Request) -> Result<(), End> {
        self.has_asked = true;
        let started = Instant::now();
        let id = RequestId::next();
        let table = self.backend.table(request.table.as_deref());
        let outcome = match &table {
            None => Outcome::Permanent(Reason::UnknownMap.into()),
            Some(table) => {
                let mut answer = pin!(table.answer(request, id));
                loop {
                    select! {
                        biased;
                        outcome = &mut answer => break outcome,
                        // Also how a reset is noticed, which ends the call.
                        read = self.stream.read_buf(&mut self.input),
                            if !self.has_ended && self.input.len() < READ_AHEAD =>
                        {
                            self.has_ended = read.map_err(End::Broken)? == 0;
                        }
                    }
                }
            }
        };
        self.first_byte = None;
        let record = Record {
            request: Some(request),
            shown: P::FACTS.shown,
            id: Some(id),
            started,
        };
        self.say::<P>(table.as_deref(), outcome, record).await
    }

    /// Says what needed no question.
    async fn answer<P: Protocol>(&mut self, outcome: Outcome) -> Result<(), End> {
        self.first_byte = None;
        let table = self.backend.table(None);
        let record = Record {
            request: None,
            shown: P::FACTS.shown,
            id: None,
            started: Instant::now(),
        };
        self.say::<P>(table.as_deref(), outcome, record).await
    }

    async fn say<P: Protocol>(
        &mut self,
        table: Option<&B::Table>,
        outcome: Outcome,
        record: Record<'_>,
    ) -> Result<(), End> {
        let (outcome, reply) = match table {
            Some(table) => say::<P>(outcome, table.words()),
            None => say::<P>(outcome, &PolicyActions::default()),
        };
        self.context.recorder.record(
            table.map(Table::name),
            table.and_then(Table::meter),
            &outcome,
            &record,
        );
        let Reply::Send(bytes) = reply else {
            return Err(End::HungUp);
        };
        self.context.guard.mark_replied();
        match timeout(self.backend.timeouts().read, self.stream.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::Broken(error)),
            Err(_) => Err(End::TooSlow),
        }
    }

    /// Closing with unread bytes would reset the connection and could cost the peer its last
    /// reply, so some of what it still sends is read and dropped.
    async fn linger(&mut self) {
        const LONGEST: Duration = Duration::from_secs(1);
        const MOST: usize = 256 * 1024;
        let drop_the_rest = async {
            self.stream.shutdown().await?;
            let mut dropped = 0;
            while dropped < MOST {
                self.input.clear();
                self.input.reserve(READ);
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

fn taken(read: io::Result<usize>) -> Result<(), End> {
    match read {
        Ok(0) => Err(End::Eof),
        Ok(_) => Ok(()),
        Err(error) => Err(End::Broken(error)),
    }
}

/// Waits for a deadline, with a timer that runs on from request to request: to move it is cheaper
/// than to set it anew.
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

    use tokio::io::{DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::protocol::tcp_lookup::TcpLookup;
    use crate::serve::connections::Connections;
    use crate::table::Timeouts;

    /// Knows no key, and takes its time to say so.
    #[derive(Clone)]
    struct Slow(Duration);

    impl Backend for Slow {
        type Table = Self;

        fn table(&self, _: Option<&[u8]>) -> Option<Arc<Self>> {
            Some(Arc::new(self.clone()))
        }

        fn timeouts(&self) -> Timeouts {
            Timeouts {
                read: Duration::from_secs(60),
                idle: None,
            }
        }
    }

    impl Table for Slow {
        fn name(&self) -> &str {
            "slow"
        }

        fn words(&self) -> &PolicyActions {
            &WORDS
        }

        async fn answer(&self, _: &Request, _: RequestId) -> Outcome {
            sleep(self.0).await;
            Outcome::NotFound
        }
    }

    static WORDS: PolicyActions = PolicyActions {
        on_not_found: crate::reply::FallbackAction::Disconnect,
        on_temporary: crate::reply::FallbackAction::Disconnect,
        on_permanent: crate::reply::FallbackAction::Disconnect,
        permit_actions: false,
        restriction_classes: Vec::new(),
    };

    /// A connection whose calls take so long, its other end, and what stops it.
    fn connection(call: Duration) -> (DuplexStream, JoinHandle<End>, Arc<Connections>) {
        let (ours, peer) = duplex(1024);
        let connections = Arc::new(Connections::default());
        let all = Arc::clone(&connections);
        let serving = tokio::spawn(async move {
            let guard = all.admit(|| 1).await;
            let context = Context {
                guard: &guard,
                recorder: &Recorder::default(),
            };
            serve::<TcpLookup, _, _>(ours, &Slow(call), context).await
        });
        (peer, serving, connections)
    }

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn at_a_stop_half_a_request_gets_a_second_and_not_more() {
        let (mut peer, serving, connections) = connection(Duration::ZERO);
        peer.write_all(b"get a").await.unwrap();
        sleep(300 * MS).await;
        let stopped = Instant::now();
        connections.stop();
        // Each byte comes in time for one that waits for a byte.
        for _ in 0..3 {
            sleep(300 * MS).await;
            peer.write_all(b"b").await.unwrap();
        }
        assert!(matches!(serving.await.unwrap(), End::Stopped));
        assert_eq!(stopped.elapsed().as_millis(), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_becomes_a_request_within_that_second_is_answered() {
        let (mut peer, serving, connections) = connection(5_000 * MS);
        peer.write_all(b"get a").await.unwrap();
        sleep(300 * MS).await;
        connections.stop();
        sleep(900 * MS).await;
        peer.write_all(b"b\nget c").await.unwrap();
        let mut replies = String::new();
        peer.read_to_string(&mut replies).await.unwrap();
        assert_eq!(replies, "500 not%20found\n");
        // What follows has had its second by then.
        assert!(matches!(serving.await.unwrap(), End::Stopped));
    }
}
