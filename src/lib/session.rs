//! One connection, first byte to last: the line that the data takes, as one loop.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::observe::log::{Record, Recorder, RequestId};
use crate::outcome::{Outcome, Row};
use crate::protocol::{Protocol, Step, Tag, say};
use crate::reply::Reply;
use crate::request::{Kind, Request};
use crate::serve::connections::ConnectionGuard;
use crate::serve::peer::{End, Peer};
use crate::table::{Asked, Backend, Rules, Table, login};

/// What a connection shares with the rest of the program.
#[derive(Debug)]
pub struct Context<'s> {
    /// Its place among the connections.
    pub guard: &'s ConnectionGuard,
    /// Where every request is recorded.
    pub recorder: &'s Recorder,
}

/// Serves one connection until it ends: exactly one reply for each request, in the order of the
/// requests.
///
/// A peer that closes its side gets the replies to what it has asked; one that resets the
/// connection cancels its calls. When the program stops, what has been asked is still answered.
pub async fn serve<P, B, S>(stream: S, backend: &B, context: Context<'_>) -> End
where
    P: Protocol,
    B: Backend,
    B::Table: Rules<P::Rules>,
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (protocol, greeting) = match backend.table(None) {
        Some(table) => P::open(table.rules()),
        None => P::open(&P::Rules::default()),
    };
    let mut session = Session {
        protocol,
        opened: Instant::now(),
        peer: Peer::new(stream, context.guard).sends_secrets(!P::FACTS.secrets.is_empty()),
        backend,
        recorder: context.recorder,
        queue: VecDeque::new(),
    };
    match session.run(greeting).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

struct Session<'s, P, B: Backend, S> {
    protocol: P,
    opened: Instant,
    peer: Peer<'s, S>,
    backend: &'s B,
    recorder: &'s Recorder,
    /// What is to be sent, in the order in which it was asked for.
    queue: VecDeque<Queued<B::Table>>,
}

impl<P, B, S> Session<'_, P, B, S>
where
    P: Protocol,
    B: Backend,
    B::Table: Rules<P::Rules>,
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    async fn run(&mut self, greeting: Bytes) -> Result<Infallible, End> {
        // Past the queue, for which a connection that never asks needs no memory.
        if !greeting.is_empty() {
            self.send(&greeting).await?;
        }
        loop {
            // The input is left alone until there is room, so that a peer which sends requests
            // without reading replies is stopped by its own full socket.
            if !self.has_room() {
                self.reply_or_read_ahead().await?;
                continue;
            }
            if P::FACTS.keeps_time {
                self.protocol.at(self.opened.elapsed());
            }
            match self.protocol.next_step(&mut self.peer.input) {
                Step::NeedMore if self.queue.is_empty() => {
                    self.peer.read(self.backend.timeouts()).await?;
                }
                Step::NeedMore => self.reply_or_read_ahead().await?,
                Step::Send(bytes) => self.push(Queued::Bytes(bytes)),
                Step::Ask(tag, request) => self.ask(tag, request),
                Step::Answer(tag, outcome) => self.answer(tag, outcome),
                Step::Refuse(outcome) => self.refuse(outcome),
            }
        }
    }

    /// Puts something at the end of the queue.
    fn push(&mut self, queued: Queued<B::Table>) {
        if self.queue.capacity() == 0 {
            // A queue grows to four at first, and most peers have one request at a time.
            self.queue.reserve_exact(1);
        }
        self.queue.push_back(queued);
    }

    /// Returns whether the next step may be taken: not with as many requests in flight as the
    /// protocol allows, and not after one that ends the connection.
    fn has_room(&self) -> bool {
        let is_over = self.queue.back().is_some_and(Queued::closes);
        self.queue.len() < P::FACTS.max_in_flight && !is_over
    }

    /// Begins the call that answers a request.
    fn ask(&mut self, tag: Tag, request: Request) {
        self.peer.mark_asked();
        let asked = Asked::at(self.peer.arrived_at());
        // Picked for each request, so that a reload takes effect on open connections.
        let table = self.backend.table(request.table.as_deref());
        let is_barrier = request.is_write();
        let mut rows = None;
        let answer = match table.clone() {
            None => Answer::Ready(Outcome::Permanent(P::FACTS.unknown.into()), Some(request)),
            Some(table) => Answer::InFlight(if matches!(request.kind, Kind::List(_)) {
                let (sender, receiver) = mpsc::channel(ROWS_AHEAD);
                rows = Some(Rows::new(receiver));
                Box::pin(async move {
                    let outcome = table.list(&request, asked, sender).await;
                    (outcome, Some(request))
                })
            } else if P::FACTS.has_logins() {
                let deadline = asked.at + Duration::from_secs(P::FACTS.max_secs);
                Box::pin(login::answer(table, request, asked, deadline))
            } else {
                Box::pin(async move {
                    let outcome = table.answer(&request, asked).await;
                    (outcome, Some(request))
                })
            }),
        };
        self.push(Queued::Reply(Pending {
            tag,
            table,
            id: Some(asked.id),
            started: asked.at,
            answer,
            rows,
            is_barrier,
            closes: false,
        }));
    }

    /// Queues an outcome that took no call.
    fn answer(&mut self, tag: Tag, outcome: Outcome) {
        let mut pending = self.pending_answer(tag, outcome);
        if let (Some(table), Answer::Ready(outcome, _)) = (&pending.table, &pending.answer)
            && let Some(pause) = table.pause_before(outcome)
        {
            let outcome = login::after(pause, outcome.clone());
            pending.answer = Answer::InFlight(Box::pin(async { (outcome.await, None) }));
        }
        self.push(Queued::Reply(pending));
    }

    /// Queues the last reply of this connection.
    fn refuse(&mut self, outcome: Outcome) {
        let pending = Pending {
            closes: true,
            ..self.pending_answer(Tag::default(), outcome)
        };
        self.push(Queued::Reply(pending));
    }

    fn pending_answer(&self, tag: Tag, outcome: Outcome) -> Pending<B::Table> {
        Pending {
            tag,
            table: self.backend.table(None),
            id: None,
            started: Instant::now(),
            answer: Answer::Ready(outcome, None),
            rows: None,
            is_barrier: false,
            closes: false,
        }
    }

    /// Waits for the first in the queue and sends it, or reads what the peer sends meanwhile.
    async fn reply_or_read_ahead(&mut self) -> Result<(), End> {
        let queue = &mut self.queue;
        select! {
            // Replies first: a peer that sends without pause must not keep them from going out.
            biased;
            () = poll_fn(|cx| poll_first(queue, cx)) => {}
            read = self.peer.read_ahead() => return read,
        }
        let (reply, is_last) = match self.rows() {
            Some(rows) => (Reply::Send(rows), false),
            None => match self.queue.pop_front() {
                Some(Queued::Reply(pending)) => self.reply(pending),
                Some(Queued::Bytes(bytes)) => (Reply::Send(bytes), false),
                None => return Ok(()),
            },
        };
        match reply {
            Reply::Send(bytes) => self.send(&bytes).await?,
            Reply::Close if is_last => {}
            Reply::Close => return Err(End::Closed),
        }
        if is_last {
            // The bytes after a malformed request may be anything, even another sender's text, so
            // none of them is parsed.
            Box::pin(self.peer.linger()).await;
            return Err(End::Refused);
        }
        Ok(())
    }

    /// Takes the rows that the first in the queue has at this moment, if it is a list.
    fn rows(&mut self) -> Option<Bytes> {
        let Some(Queued::Reply(Pending {
            rows: Some(rows), ..
        })) = self.queue.front_mut()
        else {
            return None;
        };
        let mut bytes = BytesMut::new();
        for row in rows.received.drain(..) {
            self.protocol.put_row(&row, &mut bytes);
        }
        (!bytes.is_empty()).then(|| bytes.freeze())
    }

    /// Records an outcome, and returns the reply that says it and whether the connection ends with it.
    fn reply(&mut self, pending: Pending<B::Table>) -> (Reply, bool) {
        let Answer::Ready(outcome, request) = pending.answer else {
            unreachable!("the first in the queue was ready");
        };
        let table = pending.table.as_deref();
        let (outcome, reply) = match table {
            Some(table) => say(&mut self.protocol, pending.tag, outcome, table.rules()),
            None => say(
                &mut self.protocol,
                pending.tag,
                outcome,
                &P::Rules::default(),
            ),
        };
        let record = Record {
            request: request.as_ref(),
            protocol: P::FACTS,
            id: pending.id,
            started: pending.started,
        };
        let (name, meter) = (table.map(Table::name), table.and_then(Table::meter));
        // Before the reply is sent: a client that has its reply finds the request counted.
        self.recorder.record(name, meter, &outcome, &record);
        (reply, pending.closes)
    }

    /// Sends bytes, while the calls behind them go on: a peer that does not read must not make them
    /// miss their deadlines, which would be blamed on a healthy target.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        let queue = &mut self.queue;
        let mut sending = pin!(self.peer.send(bytes, || self.backend.timeouts()));
        poll_fn(|cx| {
            // First: a write must not begin if the peer is gone, who could not learn its end.
            let sent = sending.as_mut().poll(cx);
            if sent.is_pending() {
                let _first = poll_first(queue, cx);
            }
            sent
        })
        .await
    }
}

/// What is to be sent when its turn comes.
enum Queued<T> {
    Bytes(Bytes),
    Reply(Pending<T>),
}

/// A request without its reply.
struct Pending<T> {
    tag: Tag,
    table: Option<Arc<T>>,
    /// Absent where the backend is not asked.
    id: Option<RequestId>,
    /// When the request was complete.
    started: Instant,
    answer: Answer,
    /// The rows that come before the answer to a list.
    rows: Option<Rows>,
    /// Whether this waits for all before it, and all after it wait for this.
    is_barrier: bool,
    /// Whether the connection ends with the reply.
    closes: bool,
}

/// How many rows a list may have made that are not sent yet.
const ROWS_AHEAD: usize = 8;

/// The rows of a list.
struct Rows {
    receiver: mpsc::Receiver<Row>,
    /// Those that are to be sent.
    received: Vec<Row>,
}

impl Rows {
    fn new(receiver: mpsc::Receiver<Row>) -> Self {
        Self {
            receiver,
            received: Vec::new(),
        }
    }

    /// Ready when there are rows to be sent. No more are taken before these have been sent, so that
    /// a peer which does not read stops the list.
    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let rows = &mut self.received;
        if rows.is_empty() {
            let count = task::ready!(self.receiver.poll_recv_many(cx, rows, ROWS_AHEAD));
            if count == 0 {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

enum Answer {
    /// Boxed: an idle connection has no room for a call, and the queue moves.
    InFlight(Pin<Box<dyn Future<Output = (Outcome, Option<Request>)> + Send>>),
    /// The outcome, and the request if it was one.
    Ready(Outcome, Option<Request>),
}

impl<T> Queued<T> {
    fn closes(&self) -> bool {
        matches!(self, Self::Reply(pending) if pending.closes)
    }

    fn is_barrier(&self) -> bool {
        matches!(self, Self::Reply(pending) if pending.is_barrier)
    }

    fn poll_rows(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        match self {
            Self::Reply(Pending {
                rows: Some(rows), ..
            }) => rows.poll(cx),
            _ => Poll::Pending,
        }
    }
}

/// Drives the calls in the queue, up to the next that has to wait for others; ready when the first
/// has something to be sent.
fn poll_first<T>(queue: &mut VecDeque<Queued<T>>, cx: &mut task::Context<'_>) -> Poll<()> {
    let mut is_ready = false;
    // Not only the first: the others have deadlines of their own.
    for (i, queued) in queue.iter_mut().enumerate() {
        let is_barrier = queued.is_barrier();
        if is_barrier && i > 0 {
            break;
        }
        let is_done = match queued {
            Queued::Bytes(_) => true,
            Queued::Reply(pending) => pending.answer.poll(cx).is_ready(),
        };
        if i == 0 {
            let has_rows = queued.poll_rows(cx).is_ready();
            is_ready = is_done || has_rows;
        }
        if is_barrier {
            break;
        }
    }
    if is_ready {
        Poll::Ready(())
    } else {
        Poll::Pending
    }
}

impl Answer {
    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        if let Self::InFlight(call) = self {
            let (outcome, request) = task::ready!(call.as_mut().poll(cx));
            *self = Self::Ready(outcome, request);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;
    use crate::protocol::tcp_lookup::TcpLookup;
    use crate::serve::connections::Connections;
    use crate::serve::peer::Timeouts;

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

        async fn answer(&self, _: &Request, _: Asked) -> Outcome {
            sleep(self.0).await;
            Outcome::NotFound
        }
    }

    impl Rules<()> for Slow {
        fn rules(&self) -> &() {
            &()
        }
    }

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
        assert!(matches!(serving.await.unwrap(), End::Shutdown));
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
        assert!(matches!(serving.await.unwrap(), End::Shutdown));
    }
}
