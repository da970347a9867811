//! The least that a bridge on tokio can do, over hyper alone or over reqwest: no deadline, retry,
//! limit, log or configuration. It is a measure, not a product.
//!
//! Over hyper each connection from the mail server has a connection to the backend of its own, in
//! the same task. Over reqwest all share one client, as Postgate's programs do; the difference is
//! what reqwest itself costs.

use std::io;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use memchr::{memchr, memmem};
use percent_encoding::percent_encode;
use postgate::http::call::ESCAPED;
use reqwest::{Url, redirect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;

use crate::client::{Binary, framed};
use crate::wire::Program;

/// Bridges connections over hyper until the process ends.
pub(crate) async fn over_hyper(
    listener: TcpListener,
    program: Program,
    backend: SocketAddr,
) -> io::Result<()> {
    loop {
        let stream = accepted(&listener).await?;
        tokio::spawn(async move {
            let upstream = TcpStream::connect(backend).await.ok()?;
            upstream.set_nodelay(true).ok()?;
            let (sender, upstream) = http1::handshake(TokioIo::new(upstream)).await.ok()?;
            select! {
                ended = connection(stream, program, Upstream::Hyper(sender)) => ended,
                _ = upstream => None,
            }
        });
    }
}

/// Bridges connections over reqwest until the process ends.
pub(crate) async fn over_reqwest(
    listener: TcpListener,
    program: Program,
    backend: SocketAddr,
) -> io::Result<()> {
    let base = Url::parse(&format!("http://{backend}/")).map_err(io::Error::other)?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .tls_certs_only([])
        .build()
        .map_err(io::Error::other)?;
    loop {
        let stream = accepted(&listener).await?;
        let upstream = Upstream::Reqwest(client.clone(), base.clone());
        tokio::spawn(connection(stream, program, upstream));
    }
}

async fn accepted(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Bridges one connection; any error ends it.
async fn connection(mut stream: TcpStream, program: Program, mut upstream: Upstream) -> Option<()> {
    if program == Program::Sasl {
        let greeting = b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nDONE\n";
        stream.write_all(greeting).await.ok()?;
    }
    let mut input = Vec::with_capacity(2048);
    loop {
        let (used, call) = loop {
            if let Some(asked) = call(program, &input) {
                break asked;
            }
            if stream.read_buf(&mut input).await.ok()? == 0 {
                return None;
            }
        };
        input.drain(..used);
        let body = upstream.ask(call).await?;
        stream.write_all(&reply(program, &body)?).await.ok()?;
    }
}

/// The way to the backend.
enum Upstream {
    Hyper(SendRequest<Full<Bytes>>),
    Reqwest(reqwest::Client, Url),
}

impl Upstream {
    /// Returns the body of the answer.
    async fn ask(&mut self, call: Call) -> Option<Bytes> {
        match self {
            Self::Hyper(sender) => {
                let response = sender.send_request(call.for_hyper()?).await.ok()?;
                Some(response.into_body().collect().await.ok()?.to_bytes())
            }
            Self::Reqwest(client, base) => {
                let response = client.execute(call.for_reqwest(base)).await.ok()?;
                response.bytes().await.ok()
            }
        }
    }
}

/// What to ask the backend.
struct Call {
    method: Method,
    query: String,
    body: String,
}

impl Call {
    fn get(query: String) -> Self {
        Self {
            method: Method::GET,
            query,
            body: String::new(),
        }
    }

    fn post(body: String) -> Self {
        Self {
            method: Method::POST,
            query: String::new(),
            body,
        }
    }

    fn for_hyper(self) -> Option<Request<Full<Bytes>>> {
        let request = Request::builder()
            .method(self.method)
            .uri(format!("/?{}", self.query))
            .header("host", "backend");
        request.body(self.body.into()).ok()
    }

    fn for_reqwest(self, base: &Url) -> reqwest::Request {
        let mut url = base.clone();
        url.set_query(Some(&self.query));
        let mut request = reqwest::Request::new(self.method, url);
        *request.body_mut() = Some(self.body.into());
        request
    }
}

/// Returns the length of the request at the front of the input, and the call that it becomes.
fn call(program: Program, input: &[u8]) -> Option<(usize, Call)> {
    Some(match program {
        Program::Postfix(Binary::TcpLookup) => {
            let end = memchr(b'\n', input)?;
            let key = escape(input[..end].strip_prefix(b"get ")?);
            (end + 1, Call::get(format!("key={key}")))
        }
        Program::Postfix(Binary::Socketmap) => {
            let colon = memchr(b':', input)?;
            let length: usize = std::str::from_utf8(&input[..colon]).ok()?.parse().ok()?;
            let end = colon + 1 + length;
            let (payload, _comma) = (input.get(colon + 1..end)?, input.get(end)?);
            let blank = memchr(b' ', payload)?;
            let (map, key) = (escape(&payload[..blank]), escape(&payload[blank + 1..]));
            (end + 1, Call::get(format!("name={map}&key={key}")))
        }
        Program::Postfix(Binary::Policy) => {
            let end = memmem::find(input, b"\n\n")?;
            let mut form = String::with_capacity(2 * end);
            for line in input[..end].split(|b| *b == b'\n') {
                let equals = memchr(b'=', line)?;
                if !form.is_empty() {
                    form.push('&');
                }
                form.extend(percent_encode(&line[..equals], ESCAPED));
                form.push('=');
                form.extend(percent_encode(&line[equals + 1..], ESCAPED));
            }
            (end + 2, Call::post(form))
        }
        Program::Dict => {
            let hello = match input.first()? {
                b'H' => memchr(b'\n', input)? + 1,
                _ => 0,
            };
            let end = hello + memchr(b'\n', &input[hello..])?;
            let asked = input[hello..end].strip_prefix(b"Lshared/")?;
            let key = escape(&asked[..memchr(b'\t', asked)?]);
            (end + 1, Call::get(format!("name=bench&key={key}")))
        }
        Program::Sasl => {
            // VERSION and CPID come once.
            let mut start = 0;
            while matches!(input.get(start)?, b'V' | b'C') {
                start += memchr(b'\n', &input[start..])? + 1;
            }
            let end = start + memchr(b'\n', &input[start..])?;
            (end + 1, Call::post(login(&input[start..end])?))
        }
    })
}

/// Returns the JSON of a login.
fn login(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?;
    let (head, message) = line.split_once("\tresp=")?;
    let message = String::from_utf8(BASE64.decode(message).ok()?).ok()?;
    let mut parts = message.split('\0').skip(1);
    let field = |name: &str| head.split('\t').find_map(|field| field.strip_prefix(name));
    let members = serde_json::json!({
        "username": parts.next()?,
        "password": parts.next()?,
        "client_address": field("rip=")?,
        "mechanism": head.split('\t').nth(2)?,
        "service": field("service=")?,
    });
    Some(members.to_string())
}

fn escape(text: &[u8]) -> String {
    percent_encode(text, ESCAPED).to_string()
}

fn reply(program: Program, body: &[u8]) -> Option<Vec<u8>> {
    let binary = match program {
        Program::Postfix(Binary::Policy) => return Some(framed(Binary::Policy, body)),
        Program::Postfix(binary) => binary,
        Program::Dict => return Some([b"O", body, b"\n"].concat()),
        Program::Sasl => {
            let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
            let user = answer["user"].as_str()?;
            return Some(format!("OK\t1\tuser={user}\n").into_bytes());
        }
    };
    let values: Vec<String> = serde_json::from_slice(body).ok()?;
    let status = match binary {
        Binary::Socketmap => "OK",
        _ => "200",
    };
    Some(framed(binary, format!("{status} {}", values.join(","))))
}
