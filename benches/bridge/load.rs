//! The mail server's side: many connections, each with one request in flight, and every reply checked.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::process::Process;
use crate::wire::Question;

/// The result of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Replies in a second.
    pub(crate) rate: f64,
    /// The server's processor time for each reply, in microseconds.
    pub(crate) cpu: f64,
    /// The part of it outside the kernel.
    pub(crate) user: f64,
    /// Microseconds from request to reply.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Peak memory in megabytes.
    pub(crate) peak: f64,
}

/// The requests, and how they are sent.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) questions: &'static [Question],
    pub(crate) connections: usize,
    pub(crate) measured: Duration,
    /// Whether every request has been sent before.
    pub(crate) is_repeated: bool,
}

/// How long the load runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(400);
/// Half of the backlog of the standard library.
const AT_ONCE: usize = 64;
/// Longer than any server takes that answers at all.
const LONGEST: Duration = Duration::from_secs(10);

/// The state that the connections of a run share.
struct Tally {
    questions: &'static [Question],
    asked: Cell<usize>,
    is_measuring: Cell<bool>,
    is_over: Cell<bool>,
    latencies: RefCell<Vec<Duration>>,
}

impl Load {
    /// Puts the load on a server.
    pub(crate) async fn run(self, server: &Process) -> io::Result<Figures> {
        let streams = connect(server, self.connections).await?;
        LocalSet::new()
            .run_until(measure(server, self, streams))
            .await
    }
}

/// Opens this many connections, a few at a time: an overflow of the backlog would cost a second.
pub(crate) async fn connect(server: &Process, connections: usize) -> io::Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(connections);
    for number in 0..connections {
        if number % AT_ONCE == AT_ONCE - 1 {
            sleep(Duration::from_millis(2)).await;
        }
        let stream = timeout(LONGEST, TcpStream::connect(server.address)).await??;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    Ok(streams)
}

async fn measure(server: &Process, load: Load, streams: Vec<TcpStream>) -> io::Result<Figures> {
    let tally = Rc::new(Tally {
        questions: load.questions,
        asked: Cell::new(0),
        is_measuring: Cell::new(false),
        is_over: Cell::new(false),
        latencies: RefCell::default(),
    });
    let mut asking = JoinSet::new();
    for stream in streams {
        asking.spawn_local(keep_asking(stream, Rc::clone(&tally)));
    }
    let warming_up = Instant::now();
    // Until then, bridges open connections to the backend.
    let mut at_least = 10 * load.connections;
    if load.is_repeated {
        at_least = at_least.max(load.questions.len() + load.connections);
    }
    while warming_up.elapsed() < WARM_UP || tally.asked.get() < at_least {
        if let Some(ended) = asking.try_join_next() {
            return Err(failure(ended));
        }
        if warming_up.elapsed() > 3 * LONGEST {
            return Err(io::Error::other("too few replies"));
        }
        sleep(Duration::from_millis(20)).await;
    }
    let before = (Instant::now(), server.cpu()?, server.user()?);
    tally.is_measuring.set(true);
    sleep(load.measured).await;
    tally.is_measuring.set(false);
    let (time, cpu) = (before.0.elapsed(), server.cpu()?.saturating_sub(before.1));
    let user = server.user()?.saturating_sub(before.2);
    tally.is_over.set(true);
    let all_ended = async {
        while let Some(ended) = asking.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        io::Result::Ok(())
    };
    timeout(LONGEST, all_ended).await??;
    let mut latencies = tally.latencies.take();
    latencies.sort_unstable();
    let count = latencies.len();
    let at = |share: f64| match latencies.get((count as f64 * share) as usize) {
        Some(latency) => latency.as_secs_f64() * 1e6,
        None => f64::NAN,
    };
    Ok(Figures {
        rate: count as f64 / time.as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1e6 / count as f64,
        user: user.as_secs_f64() * 1e6 / count as f64,
        p50: at(0.5),
        p99: at(0.99),
        peak: server.peak_memory()?,
    })
}

fn failure(ended: Result<io::Result<()>, tokio::task::JoinError>) -> io::Error {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => io::Error::other("a connection sent no more requests"),
        Err(error) => io::Error::other(error),
    }
}

async fn keep_asking(mut stream: TcpStream, tally: Rc<Tally>) -> io::Result<()> {
    let (mut request, mut reply) = (Vec::new(), Vec::with_capacity(512));
    if let Some(first) = tally.questions.first() {
        greet(&mut stream, first).await?;
    }
    while !tally.is_over.get() {
        let number = tally.asked.replace(tally.asked.get() + 1);
        let question = &tally.questions[number % tally.questions.len()];
        question.write(number, &mut request);
        let asked_at = Instant::now();
        exchange(&mut stream, &request, question, &mut reply).await?;
        if tally.is_measuring.get() {
            tally.latencies.borrow_mut().push(asked_at.elapsed());
        }
    }
    Ok(())
}

/// Sends and reads what comes before the first request.
async fn greet(stream: &mut TcpStream, question: &Question) -> io::Result<()> {
    stream.write_all(&question.hello).await?;
    let mut greeting = Vec::new();
    while !greeting.ends_with(question.greeting) {
        if stream.read_buf(&mut greeting).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Sends one request. Anything but the right reply is an error.
async fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    question: &Question,
    reply: &mut Vec<u8>,
) -> io::Result<()> {
    reply.clear();
    stream.write_all(request).await?;
    while *reply != question.expected {
        if stream.read_buf(reply).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !question.expected.starts_with(reply) {
            return Err(io::Error::other(format!(
                "asked {:?}, expected {:?}, got {:?}",
                String::from_utf8_lossy(request),
                String::from_utf8_lossy(&question.expected),
                String::from_utf8_lossy(reply)
            )));
        }
    }
    Ok(())
}

/// Sends a server its first request as soon as it listens, and returns the time from its start to
/// the reply.
pub(crate) async fn first_answer(
    server: &mut Process,
    question: &Question,
) -> io::Result<Duration> {
    server.wait()?;
    let mut stream = TcpStream::connect(server.address).await?;
    let mut reply = Vec::new();
    timeout(LONGEST, async {
        greet(&mut stream, question).await?;
        exchange(&mut stream, &question.asked, question, &mut reply).await
    })
    .await??;
    Ok(server.started.elapsed())
}
