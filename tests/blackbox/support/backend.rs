//! An HTTP backend made of bytes, so that it can fail in any way: it records each request, and
//! then plays the script for it.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{Seen, program::Reserved, shown};

/// One step of an answer.
#[derive(Clone)]
pub(crate) enum Act {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes one by one, slowly; when they end, the last one again and again.
    Drip(Vec<u8>),
    /// Sends these bytes in a few pieces, slowly.
    Crawl(Vec<u8>),
    /// Sends these bytes again and again, until the program has had enough.
    Endless(Vec<u8>),
    /// Waits at a gate.
    Wait(Gate),
    /// Says no more, until the program hangs up.
    Hang,
    /// Ends its side in order and waits until the program has noticed.
    Finish,
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
}

/// The backend's acts for one request; afterwards it reads the next one.
pub(crate) type Script = Vec<Act>;

/// A gate that is shut until a test lets requests through.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn shut() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets so many requests through.
    pub(crate) fn pass(&self, count: usize) {
        self.0.add_permits(count);
    }

    async fn wait(&self) {
        self.0.acquire().await.expect("a gate").forget();
    }
}

/// A whole response.
pub(crate) fn response(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Script {
    let body = body.as_ref();
    let mut head = format!("HTTP/1.1 {status} Text\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if status != 204 && status != 304 {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    vec![Act::Send([head.as_bytes(), body].concat())]
}

/// A status with a body of this type.
pub(crate) fn typed(status: u16, content_type: &str, body: impl AsRef<[u8]>) -> Script {
    response(status, &[("Content-Type", content_type)], body)
}

/// 200 with JSON.
pub(crate) fn json(body: impl AsRef<[u8]>) -> Script {
    typed(200, "application/json", body)
}

/// 200 with plain text.
pub(crate) fn plain(body: impl AsRef<[u8]>) -> Script {
    typed(200, "text/plain; charset=utf-8", body)
}

/// A status without a body.
pub(crate) fn status(status: u16) -> Script {
    response(status, &[], "")
}

/// The answer that every program says as `DUNNO`.
pub(crate) fn dunno() -> Script {
    json("\"DUNNO\"")
}

/// The answer that every program says as found.
pub(crate) fn good(binary: super::program::Binary, value: &str) -> Script {
    match binary {
        super::program::Binary::Policy => plain(value),
        _ => json(format!("\"{value}\"")),
    }
}

/// Bytes as they are.
pub(crate) fn raw(bytes: impl AsRef<[u8]>) -> Act {
    Act::Send(bytes.as_ref().to_vec())
}

/// One request as the backend saw it.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query, byte for byte.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The number of the connection it came over.
    pub(crate) connection: usize,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let target = shown(self.target.as_bytes());
        write!(f, "{} {target} over {}", self.method, self.connection)
    }
}

impl Request {
    /// The value of a header that may stand once at most.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} twice: {:?}", self.headers);
        value
    }

    /// The body as a form: names and values as bytes, in order. A character that could change the
    /// form's shape fails the test.
    pub(crate) fn form(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        assert_eq!(
            self.header("content-type"),
            Some("application/x-www-form-urlencoded")
        );
        pairs(&self.body)
    }

    /// The query, as `form` does.
    pub(crate) fn query(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (_, query) = self.target.split_once('?').expect("a query");
        pairs(query.as_bytes())
    }
}

fn pairs(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let split = |pair: &[u8]| {
        let at = pair.iter().position(|&byte| byte == b'=').expect("a pair");
        (unquoted(&pair[..at]), unquoted(&pair[at + 1..]))
    };
    bytes.split(|&byte| byte == b'&').map(split).collect()
}

fn unquoted(bytes: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => value.push(b' '),
            b'%' => {
                let digits = str::from_utf8(&tail[..2]).expect("two digits");
                value.push(u8::from_str_radix(digits, 16).expect("two digits"));
                rest = &tail[2..];
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                value.push(first);
            }
            other => panic!("{:?} is not escaped in {}", other as char, shown(bytes)),
        }
    }
    value
}

/// Makes the answer to each request.
type Answers = Box<dyn FnMut(&Request) -> Script + Send>;

struct State {
    answers: Mutex<Answers>,
    requests: Seen<Request>,
    /// Connections the program has left while the backend was still to speak.
    abandoned: Seen<usize>,
    /// How many requests are being answered, and the most there have been at once.
    busy: Mutex<(usize, usize)>,
    /// Bytes that are no HTTP request, which the programs must not send.
    faults: Mutex<Vec<String>>,
}

/// A running backend.
pub(crate) struct Backend {
    address: SocketAddr,
    /// Keeps the address for as long as the backend is away.
    place: Option<Reserved>,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backend {
    /// Answers each request as the function says.
    pub(crate) fn new(answers: impl FnMut(&Request) -> Script + Send + 'static) -> Self {
        Self::at(Reserved::new(), answers)
    }

    /// Answers at this address, where nobody listened before.
    pub(crate) fn at(
        reserved: Reserved,
        answers: impl FnMut(&Request) -> Script + Send + 'static,
    ) -> Self {
        let address = reserved.address();
        let place = Some(reserved.again());
        let state = Arc::new(State {
            answers: Mutex::new(Box::new(answers)),
            requests: Seen::new(),
            abandoned: Seen::new(),
            busy: Mutex::default(),
            faults: Mutex::new(Vec::new()),
        });
        let task = tokio::spawn(accept(reserved.listen(), Arc::clone(&state)));
        Self {
            address,
            place,
            state,
            task,
        }
    }

    /// Answers every request the same way.
    pub(crate) fn always(script: Script) -> Self {
        Self::new(move |_| script.clone())
    }

    /// Answers the first requests in these ways, every further one in the last way.
    pub(crate) fn in_turn(scripts: impl IntoIterator<Item = Script>) -> Self {
        let mut scripts: VecDeque<_> = scripts.into_iter().collect();
        Self::new(move |_| {
            if scripts.len() > 1 {
                scripts.pop_front().expect("a script")
            } else {
                scripts.front().expect("a script").clone()
            }
        })
    }

    /// Closes every connection before it has read anything.
    pub(crate) fn unwelcoming() -> Self {
        let reserved = Reserved::new();
        let address = reserved.address();
        let listener = reserved.listen();
        let task = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let state = Arc::new(State {
            answers: Mutex::new(Box::new(|_| Script::new())),
            requests: Seen::new(),
            abandoned: Seen::new(),
            busy: Mutex::default(),
            faults: Mutex::new(Vec::new()),
        });
        Self {
            address,
            place: None,
            state,
            task,
        }
    }

    /// Ends with every connection and begins anew at the same address, answering every request this
    /// way.
    pub(crate) async fn restart(mut self, script: Script) -> Self {
        let place = self.place.take().expect("a place to come back to");
        self.close().await;
        Self::at(place, move |_| script.clone())
    }

    /// Ends with every connection, and listens no more.
    pub(crate) async fn close(&mut self) {
        self.task.abort();
        // Every conversation has a hold on it.
        while Arc::strong_count(&self.state) > 1 {
            tokio::task::yield_now().await;
        }
    }

    /// From here on answers every request this way.
    pub(crate) fn set(&self, script: Script) {
        *self.state.answers.lock().expect("a lock") = Box::new(move |_| script.clone());
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let faults = self.state.faults.lock().expect("a lock").clone();
        assert_eq!(faults, Vec::<String>::new(), "what is not HTTP");
        self.state.requests.all()
    }

    /// How many requests came so far.
    pub(crate) fn count(&self) -> usize {
        self.requests().len()
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }

    /// Waits for so many requests.
    pub(crate) async fn asked(&self, count: usize) -> Vec<Request> {
        let what = format!("{count} requests at the backend");
        self.state.requests.at_least(count, &what).await;
        self.requests()
    }

    /// The most requests that were being answered at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.state.busy.lock().expect("a lock").1
    }

    /// Waits until the program has left so many connections in the middle of an answer, or after
    /// `Finish`.
    pub(crate) async fn left(&self, count: usize) {
        let what = format!("{count} connections left by the program");
        self.state.abandoned.at_least(count, &what).await;
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // A set of its own ends every conversation together with the backend.
    let mut conversations = tokio::task::JoinSet::new();
    let mut number = 0;
    while let Ok((stream, _)) = listener.accept().await {
        conversations.spawn(converse(stream, number, Arc::clone(&state)));
        number += 1;
    }
}

/// A request that is being answered.
struct Busy<'s>(&'s State);

impl<'s> Busy<'s> {
    fn begin(state: &'s State) -> Self {
        let mut busy = state.busy.lock().expect("a lock");
        busy.0 += 1;
        busy.1 = busy.1.max(busy.0);
        Self(state)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.lock().expect("a lock").0 -= 1;
    }
}

async fn converse(mut stream: TcpStream, connection: usize, state: Arc<State>) {
    stream.set_nodelay(true).expect("no delay");
    let mut buffer = Vec::new();
    loop {
        let request = match read_request(&mut stream, &mut buffer, connection).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(fault) => {
                state.faults.lock().expect("a lock").push(fault);
                return;
            }
        };
        let script = {
            let mut answers = state.answers.lock().expect("a lock");
            answers(&request)
        };
        let _busy = Busy::begin(&state);
        state.requests.push(request);
        for act in script {
            if play(act, &mut stream).await.is_err() {
                state.abandoned.push(connection);
                return;
            }
        }
    }
}

/// Plays one act; an error ends the conversation.
async fn play(act: Act, stream: &mut TcpStream) -> io::Result<()> {
    match act {
        Act::Send(bytes) => stream.write_all(&bytes).await,
        Act::Drip(bytes) => {
            let (&last, _) = bytes.split_last().expect("a byte");
            let mut pace = interval(Duration::from_millis(10));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut bytes = bytes.into_iter();
            loop {
                pace.tick().await;
                stream.write_all(&[bytes.next().unwrap_or(last)]).await?;
            }
        }
        Act::Crawl(bytes) => {
            let mut pace = interval(Duration::from_millis(10));
            for piece in bytes.chunks(bytes.len().div_ceil(5).max(1)) {
                pace.tick().await;
                stream.write_all(piece).await?;
            }
            Ok(())
        }
        Act::Endless(bytes) => loop {
            stream.write_all(&bytes).await?;
        },
        Act::Wait(gate) => {
            gate.wait().await;
            Ok(())
        }
        Act::Hang => end_of(stream).await,
        Act::Finish => {
            stream.shutdown().await?;
            end_of(stream).await
        }
        Act::Close => Err(io::ErrorKind::Other.into()),
        Act::Reset => {
            stream.set_zero_linger()?;
            Err(io::ErrorKind::Other.into())
        }
    }
}

/// Reads until the program is gone.
async fn end_of(stream: &mut TcpStream) -> io::Result<()> {
    let mut sink = [0; 4096];
    while stream.read(&mut sink).await? > 0 {}
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Reads one request; `None` at the end of the connection, a text where it is no HTTP.
async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    connection: usize,
) -> Result<Option<Request>, String> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
            return Ok(None);
        }
    };
    let fault = |buffer: &[u8]| shown(buffer);
    let head = str::from_utf8(&buffer[..end - 4]).map_err(|_| fault(buffer))?;
    let mut lines = head.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.1"] = first[..] else {
        return Err(fault(buffer));
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| fault(buffer))?;
        headers.push((name.to_owned(), value.to_owned()));
    }
    let length = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Ok(0), |(_, length)| length.parse::<usize>())
        .map_err(|_| fault(buffer))?;
    while buffer.len() < end + length {
        if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
            return Ok(None);
        }
    }
    let body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    Ok(Some(Request {
        method,
        target,
        headers,
        body,
        connection,
    }))
}
