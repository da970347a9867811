//! Metrics, health and the page for people over HTTP, on sockets named `metrics`: never on those of
//! the protocols.

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
use tokio::task::{JoinError, spawn_blocking};
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
    let service = service_fn(move |request| serve_one(request, view.clone()));
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

async fn serve_one(
    request: Request<Incoming>,
    view: View,
) -> Result<Response<Full<Bytes>>, JoinError> {
    match request.uri().path() {
        // With hundreds of tables a page takes a while; keep it off the serving threads.
        "/" | "/metrics" => spawn_blocking(move || answer(&request, &view)).await,
        _ => Ok(answer(&request, &view)),
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

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::protocol::Protocol as _;
    use crate::protocol::socketmap::Socketmap;
    use crate::sync::Mutex;

    #[tokio::test]
    async fn a_page_that_takes_a_while_keeps_no_serving_thread() {
        let here = thread::current().id();
        for path in ["/", "/metrics"] {
            let seen = Arc::new(Mutex::new(None));
            let noted = Arc::clone(&seen);
            let view = View {
                metrics: Arc::new(Metrics::new(Socketmap::FACTS).unwrap()),
                history: Arc::default(),
                look: Arc::new(move || {
                    *noted.lock() = Some(thread::current().id());
                    Snapshot::default()
                }),
            };
            let (mut client, stream) = tokio::io::duplex(1024);
            let ask = async {
                let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n");
                client.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            };
            tokio::join!(serve(stream, view), ask);
            let thread = *seen.lock();
            assert!(thread.is_some_and(|thread| thread != here), "{path}");
        }
    }
}
