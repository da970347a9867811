//! Metrics and health over HTTP, on sockets named `metrics`: never on those of the protocols.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::debug;

use super::metrics::Metrics;
use super::state::State;

/// What the pages show.
#[derive(Clone)]
pub struct View {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Takes a snapshot of everything else.
    pub look: Arc<dyn Fn() -> Snapshot + Send + Sync>,
}

/// The state at this moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The open connections from the mail server.
    pub connections: usize,
    /// Whether the store is up, if there is one.
    pub store: Option<bool>,
    /// The tables.
    pub tables: Vec<State>,
}

/// For the head of one request, and for a connection as a whole: a client that holds a connection
/// takes it from others that read the metrics.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const LIFETIME: Duration = Duration::from_secs(30);

/// Serves the pages on one connection.
pub async fn serve<S>(stream: S, view: View)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(&request, &view);
        async move { Ok::<_, Infallible>(answer) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        // A client that half-closes after asking still gets its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(LIFETIME, serving).await {
        debug!("metrics: connection lost: {error}");
    }
}

fn answer(request: &Request<Incoming>, view: &View) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refusal = page(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
        let methods = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, methods);
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => {
            let now = (view.look)();
            let text = view.metrics.page(now.connections, now.store, &now.tables);
            page(StatusCode::OK, text)
        }
        "/health" => page(StatusCode::OK, "alive\n".into()),
        "/ready" => {
            let mut text = "ready\n".to_owned();
            if request
                .uri()
                .query()
                .is_some_and(|q| q.split('&').any(|q| q == "backends"))
            {
                for state in (view.look)().tables {
                    for (target, is_up) in &state.targets {
                        let word = if *is_up { "up" } else { "down" };
                        let _ = writeln!(text, "{} {target} {word}", state.table);
                    }
                }
            }
            page(StatusCode::OK, text.into_bytes())
        }
        _ => page(StatusCode::NOT_FOUND, "/metrics, /health, /ready\n".into()),
    }
}

fn page(status: StatusCode, text: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
