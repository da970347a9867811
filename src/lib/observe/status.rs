//! Metrics, health and the page for people over HTTP, on sockets named `metrics`: never on those of
//! the protocols.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    self, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::debug;

use super::history::History;
use super::metrics::Metrics;
use super::page::{self, CONTENT_SECURITY_POLICY};
use super::state::Snapshot;

/// What the pages show.
#[derive(Clone)]
pub struct View {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Their recent growth.
    pub history: Arc<History>,
    /// Takes a snapshot of everything else.
    pub look: Arc<dyn Fn() -> Snapshot + Send + Sync>,
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
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
        let methods = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, methods);
        return refusal;
    }
    let has_query = |word: &str| {
        let query = request.uri().query().unwrap_or_default();
        query.split('&').any(|query| query == word)
    };
    match request.uri().path() {
        "/" => {
            let now = (view.look)();
            let stays = has_query("stay");
            document(page::page(&view.metrics, &view.history, &now, stays))
        }
        "/metrics" => {
            let now = (view.look)();
            let page = view.metrics.page(now.connections, now.store, &now.tables);
            text(StatusCode::OK, page)
        }
        "/health" => text(StatusCode::OK, "alive\n".into()),
        "/ready" => {
            let mut lines = "ready\n".to_owned();
            if has_query("backends") {
                for state in (view.look)().tables {
                    for target in &state.targets {
                        let word = if target.is_up() { "up" } else { "down" };
                        let _ = writeln!(lines, "{} {} {word}", state.table, target.name);
                    }
                }
            }
            text(StatusCode::OK, lines.into_bytes())
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "/, /metrics, /health, /ready\n".into(),
        ),
    }
}

fn text(status: StatusCode, text: Vec<u8>) -> Response<Full<Bytes>> {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response(status, kind, text)
}

fn document(html: Vec<u8>) -> Response<Full<Bytes>> {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    let mut response = response(StatusCode::OK, kind, html);
    let headers = response.headers_mut();
    // Letters, digits and quotes are always a value.
    if let Ok(policy) = HeaderValue::from_str(&CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn response(status: StatusCode, kind: HeaderValue, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
