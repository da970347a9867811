//! Stands between the programs and an API, and keeps what passes.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, Uri, header::HeaderValue};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::document::{Exchange, Headers};
use crate::support::{Seen, soon};

type Api = Client<HttpConnector, Full<Bytes>>;

pub(super) struct Tap {
    address: SocketAddr,
    seen: Seen<Exchange>,
    task: JoinHandle<()>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tap {
    pub(super) async fn before(api: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let seen = Seen::new();
        let task = tokio::spawn(accept(listener, api, seen.clone()));
        Self {
            address,
            seen,
            task,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn exchanges(&self) -> Vec<Exchange> {
        self.seen.all()
    }
}

async fn accept(listener: TcpListener, api: SocketAddr, seen: Seen<Exchange>) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (client, seen) = (client.clone(), seen.clone());
        let service =
            service_fn(move |request| pass_on(request, client.clone(), api, seen.clone()));
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn pass_on(
    request: Request<Incoming>,
    client: Api,
    api: SocketAddr,
    seen: Seen<Exchange>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole request").to_bytes();
    let method = head.method.to_string();
    let target = head.uri.to_string();
    let headers = listed(&head.headers);
    head.uri = format!("http://{api}{target}")
        .parse::<Uri>()
        .expect("a URL");
    let request = Request::from_parts(head, Full::new(body.clone()));
    let answer = client.request(request).await.expect("an answer");
    let (head, answer) = answer.into_parts();
    let answer = answer.collect().await.expect("a whole answer").to_bytes();
    seen.push(Exchange {
        method,
        target,
        headers,
        body: body.to_vec(),
        status: head.status.as_u16(),
        answer_headers: listed(&head.headers),
        answer: answer.to_vec(),
    });
    Ok(Response::from_parts(head, Full::new(answer)))
}

fn listed(headers: &HeaderMap) -> Headers {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
        .collect()
}

/// Asks an API directly, and returns the status, the mark and the text of its answer.
pub(super) async fn answer_to(
    api: SocketAddr,
    method: &str,
    path: &str,
    token: &str,
    body: String,
) -> String {
    let client: Api = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{api}{path}"))
        .header("x-auth-token", token)
        .header("content-type", "application/json")
        .body(Full::from(body))
        .expect("a request");
    let answer = soon("an answer", client.request(request)).await;
    let (head, answer) = answer.expect("an answer").into_parts();
    let answer = answer.collect().await.expect("a whole answer").to_bytes();
    let mark = head.headers.get("x-directory").map(HeaderValue::as_bytes);
    format!(
        "{} {} {}",
        head.status.as_u16(),
        mark.unwrap_or_default().escape_ascii(),
        String::from_utf8_lossy(&answer).replace("\": ", "\":")
    )
}
