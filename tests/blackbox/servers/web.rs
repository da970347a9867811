//! A server over TLS or a unix socket, HTTP/1.1 or HTTP/2, that notes each request.

use std::{
    convert::Infallible,
    future::pending,
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Response, Version, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, Semaphore},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::CertificateDer},
};

use crate::support::{Seen, program::Reserved};

/// One request as the server saw it.
#[derive(Clone)]
pub(crate) struct Visit {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// The number of the connection it came over.
    pub(crate) connection: usize,
    /// The certificate of the client.
    pub(crate) client: Option<CertificateDer<'static>>,
}

impl std::fmt::Debug for Visit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            method,
            target,
            version,
            connection,
            ..
        } = self;
        write!(f, "{method} {target} {version:?} over {connection}")
    }
}

impl Visit {
    /// The value of a header that may stand once at most; in HTTP/2 `:authority` is `host`.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(header, _)| header == name);
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice: {:?}", self.headers);
        value.map(|(_, value)| str::from_utf8(value).expect("a header of text"))
    }
}

/// The answer to one request.
#[derive(Clone)]
pub(crate) enum Answer {
    /// A whole response.
    Whole {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// The same, once somebody has added a permit.
    After(Arc<Semaphore>, Box<Self>),
    /// The end of the whole connection.
    Break,
    /// From here on silence on the whole connection, even to pings; it stays open.
    Freeze,
}

impl Answer {
    /// 200 with JSON.
    pub(crate) fn json(body: &str) -> Self {
        Self::Whole {
            status: 200,
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.as_bytes().to_vec(),
        }
    }

    /// The answer that every program says as `DUNNO`.
    pub(crate) fn dunno() -> Self {
        Self::json("\"DUNNO\"")
    }

    pub(crate) fn redirect(status: u16, location: &str) -> Self {
        Self::Whole {
            status,
            headers: vec![("location", location.to_owned())],
            body: Vec::new(),
        }
    }
}

type Answers = Box<dyn FnMut(&Visit) -> Answer + Send>;

struct State {
    answers: Mutex<Answers>,
    visits: Seen<Visit>,
    /// Connections that have ended.
    ended: Seen<usize>,
    /// Why handshakes failed.
    refusals: Seen<String>,
}

/// A running server.
pub(crate) struct Web {
    address: Option<SocketAddr>,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Where connections come from.
trait Door: Send + 'static {
    type Stream: Stream;

    fn next(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Door for TcpListener {
    type Stream = TcpStream;

    async fn next(&mut self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Door for UnixListener {
    type Stream = UnixStream;

    async fn next(&mut self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Web {
    /// Speaks TLS, and HTTP/2 where that was agreed upon.
    pub(crate) fn secure(
        tls: Arc<ServerConfig>,
        answers: impl FnMut(&Visit) -> Answer + Send + 'static,
    ) -> Self {
        Self::secure_at(Reserved::new(), tls, answers)
    }

    /// The same at this address, where nobody listened before.
    pub(crate) fn secure_at(
        reserved: Reserved,
        tls: Arc<ServerConfig>,
        answers: impl FnMut(&Visit) -> Answer + Send + 'static,
    ) -> Self {
        let address = reserved.address();
        Self::start(reserved.listen(), Some(address), Some(tls), answers)
    }

    /// Speaks HTTP/1.1, of which it notes when connections end.
    pub(crate) fn plain(answers: impl FnMut(&Visit) -> Answer + Send + 'static) -> Self {
        let reserved = Reserved::new();
        let address = reserved.address();
        Self::start(reserved.listen(), Some(address), None, answers)
    }

    /// Speaks HTTP/1.1 over a unix socket.
    pub(crate) fn unix(
        path: &Path,
        answers: impl FnMut(&Visit) -> Answer + Send + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).expect("a listening socket");
        Self::start(listener, None, None, answers)
    }

    fn start(
        door: impl Door,
        address: Option<SocketAddr>,
        tls: Option<Arc<ServerConfig>>,
        answers: impl FnMut(&Visit) -> Answer + Send + 'static,
    ) -> Self {
        let state = Arc::new(State {
            answers: Mutex::new(Box::new(answers)),
            visits: Seen::new(),
            ended: Seen::new(),
            refusals: Seen::new(),
        });
        let task = tokio::spawn(accept(door, tls, Arc::clone(&state)));
        Self {
            address,
            state,
            task,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("a server over TCP")
    }

    pub(crate) fn url(&self, scheme: &str, target: &str) -> String {
        format!("{scheme}://{}{target}", self.address())
    }

    /// From here on answers every request this way.
    pub(crate) fn set(&self, answer: Answer) {
        *self.state.answers.lock().expect("a lock") = Box::new(move |_| answer.clone());
    }

    /// Every request so far.
    pub(crate) fn visits(&self) -> Vec<Visit> {
        self.state.visits.all()
    }

    pub(crate) fn count(&self) -> usize {
        self.state.visits.count()
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Visit {
        let visits = self.visits();
        assert_eq!(visits.len(), 1, "{visits:?}");
        visits[0].clone()
    }

    /// Waits for so many requests.
    pub(crate) async fn asked(&self, count: usize) -> Vec<Visit> {
        let what = format!("{count} requests at the server");
        self.state.visits.at_least(count, &what).await
    }

    /// Waits until so many connections have ended.
    pub(crate) async fn left(&self, count: usize) {
        let what = format!("{count} connections to end");
        self.state.ended.at_least(count, &what).await;
    }

    /// Waits for so many failed handshakes and tells why they failed.
    pub(crate) async fn refusals(&self, count: usize) -> Vec<String> {
        let what = format!("{count} failed handshakes");
        self.state.refusals.at_least(count, &what).await
    }
}

async fn accept(mut door: impl Door, tls: Option<Arc<ServerConfig>>, state: Arc<State>) {
    // A set of its own ends every conversation together with the server.
    let mut conversations = JoinSet::new();
    let mut number = 0;
    while let Ok(stream) = door.next().await {
        let state = Arc::clone(&state);
        let connection = number;
        number += 1;
        match tls.clone() {
            None => conversations.spawn(converse(stream, false, None, connection, state)),
            Some(tls) => conversations.spawn(welcome(stream, tls, connection, state)),
        };
    }
}

async fn welcome(
    stream: impl Stream,
    tls: Arc<ServerConfig>,
    connection: usize,
    state: Arc<State>,
) {
    let stream = match TlsAcceptor::from(tls).accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            state.refusals.push(error.to_string());
            return;
        }
    };
    let (_, session) = stream.get_ref();
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let client = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|certificate| certificate.clone().into_owned());
    converse(stream, is_http2, client, connection, state).await;
}

async fn converse(
    stream: impl Stream,
    is_http2: bool,
    client: Option<CertificateDer<'static>>,
    connection: usize,
    state: Arc<State>,
) {
    let broken = Arc::new(Notify::new());
    let frozen = Arc::new(Notify::new());
    let service = service_fn(|request| {
        answer(
            request,
            client.clone(),
            connection,
            Arc::clone(&state),
            Arc::clone(&broken),
            Arc::clone(&frozen),
        )
    });
    let stream = TokioIo::new(stream);
    let conversation = async {
        // How the other side ends a connection is not the server's affair.
        if is_http2 {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(stream, service).await);
        } else {
            let server = hyper::server::conn::http1::Builder::new();
            drop(server.serve_connection(stream, service).await);
        }
    };
    tokio::pin!(conversation);
    tokio::select! {
        () = &mut conversation => {}
        () = broken.notified() => {}
        () = frozen.notified() => pending().await,
    }
    state.ended.push(connection);
}

async fn answer(
    request: hyper::Request<Incoming>,
    client: Option<CertificateDer<'static>>,
    connection: usize,
    state: Arc<State>,
    broken: Arc<Notify>,
    frozen: Arc<Notify>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect();
    if head.version == Version::HTTP_2
        && let Some(authority) = head.uri.authority()
    {
        headers.push(("host".to_owned(), authority.as_str().into()));
    }
    let target = head.uri.path_and_query().map_or("", |text| text.as_str());
    let Ok(body) = body.collect().await else {
        // The client has left in the middle of its request.
        return Ok(Response::default());
    };
    let visit = Visit {
        method: head.method.to_string(),
        target: target.to_owned(),
        version: head.version,
        headers,
        body: body.to_bytes().to_vec(),
        connection,
        client,
    };
    let mut answer = {
        let mut answers = state.answers.lock().expect("a lock");
        answers(&visit)
    };
    state.visits.push(visit);
    loop {
        match answer {
            Answer::Whole {
                status,
                headers,
                body,
            } => {
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                return Ok(response.body(Full::from(body)).expect("a response"));
            }
            Answer::After(gate, next) => {
                gate.acquire().await.expect("a gate").forget();
                answer = *next;
            }
            Answer::Break => {
                broken.notify_one();
                pending::<()>().await;
            }
            Answer::Freeze => {
                frozen.notify_one();
                pending::<()>().await;
            }
        }
    }
}
