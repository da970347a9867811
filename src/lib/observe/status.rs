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
use tokio::select;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::observe::metrics::Metrics;
use crate::serve::connections::Connections;
use crate::serve::socket::{Listener, Stream, Taken};
use crate::table::routes::Live;

/// What the pages show.
#[derive(Clone, Debug)]
pub struct View {
    /// The tables.
    pub live: Arc<Live>,
    /// The connections of Postfix's.
    pub connections: Arc<Connections>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// One for each connection to any of these sockets.
    pub places: Arc<Semaphore>,
}

/// For one request, and for a connection as a whole.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));

/// Serves the pages on one socket until the program stops.
pub async fn listen(listener: Listener, view: View, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted.and_then(Taken::attach) {
            Ok(stream) => stream,
            Err(error) => {
                debug!("metrics: connection lost: {error}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&view.places).try_acquire_owned() else {
            continue;
        };
        let view = view.clone();
        connections.spawn(async move {
            let _place = place;
            let served = match stream {
                Stream::Tcp(stream) => timeout(PATIENCE.1, serve(stream, view)).await,
                Stream::Unix(stream) => timeout(PATIENCE.1, serve(stream, view)).await,
            };
            if let Ok(Err(error)) = served {
                debug!("metrics: connection lost: {error}");
            }
        });
    }
}

async fn serve<S>(stream: S, view: View) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(&request, &view);
        async move { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE.0)
        .max_buf_size(16 * 1024)
        // Who has asked and ends its side is answered.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer(request: &Request<Incoming>, view: &View) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refusal = page(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        let methods = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, methods);
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => {
            let states = view.live.routes().states();
            page(
                StatusCode::OK,
                view.metrics.page(view.connections.count(), &states),
            )
        }
        "/health" => page(StatusCode::OK, "alive\n".into()),
        "/ready" => {
            let mut text = "ready\n".to_owned();
            if request
                .uri()
                .query()
                .is_some_and(|q| q.split('&').any(|q| q == "backends"))
            {
                for state in view.live.routes().states() {
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
