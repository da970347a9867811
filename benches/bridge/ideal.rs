//! The least that a bridge on tokio and hyper can do: one connection to the backend for each
//! connection from the mail server, and no pool, deadline, retry, limit, log or configuration. It is
//! a measure, not a product.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use memchr::{memchr, memmem};
use percent_encoding::percent_encode;
use postgate::http::call::ESCAPED;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;

use crate::client::{Binary, framed};
use crate::wire::Program;

/// Bridges connections until the process ends.
pub(crate) async fn serve(
    listener: TcpListener,
    program: Program,
    backend: SocketAddr,
) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream, program, backend));
    }
}

/// Bridges one connection; any error ends it.
async fn connection(mut stream: TcpStream, program: Program, backend: SocketAddr) -> Option<()> {
    let upstream = TcpStream::connect(backend).await.ok()?;
    upstream.set_nodelay(true).ok()?;
    let (mut sender, upstream) = http1::handshake(TokioIo::new(upstream)).await.ok()?;
    let mut upstream = pin!(upstream);
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
        let mut asked = pin!(async {
            let response = sender.send_request(call).await.ok()?;
            Some(response.into_body().collect().await.ok()?.to_bytes())
        });
        let body = select! {
            body = &mut asked => body?,
            _ = &mut upstream => return None,
        };
        stream.write_all(&reply(program, &body)?).await.ok()?;
    }
}

/// Returns the length of the request at the front of the input, and the call that it becomes.
fn call(program: Program, input: &[u8]) -> Option<(usize, Request<Full<Bytes>>)> {
    let (used, method, target, body) = match program {
        Program::Postfix(Binary::TcpLookup) => {
            let end = memchr(b'\n', input)?;
            let key = escape(input[..end].strip_prefix(b"get ")?);
            (end + 1, Method::GET, format!("/?key={key}"), String::new())
        }
        Program::Postfix(Binary::Socketmap) => {
            let colon = memchr(b':', input)?;
            let length: usize = std::str::from_utf8(&input[..colon]).ok()?.parse().ok()?;
            let end = colon + 1 + length;
            let (payload, _comma) = (input.get(colon + 1..end)?, input.get(end)?);
            let blank = memchr(b' ', payload)?;
            let (map, key) = (escape(&payload[..blank]), escape(&payload[blank + 1..]));
            let target = format!("/?name={map}&key={key}");
            (end + 1, Method::GET, target, String::new())
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
            (end + 2, Method::POST, "/".to_owned(), form)
        }
        Program::Dict => {
            let hello = match input.first()? {
                b'H' => memchr(b'\n', input)? + 1,
                _ => 0,
            };
            let end = hello + memchr(b'\n', &input[hello..])?;
            let asked = input[hello..end].strip_prefix(b"Lshared/")?;
            let key = escape(&asked[..memchr(b'\t', asked)?]);
            let target = format!("/?name=bench&scope=shared&key={key}&user=");
            (end + 1, Method::GET, target, String::new())
        }
        Program::Sasl => {
            // VERSION and CPID come once.
            let mut start = 0;
            while matches!(input.get(start)?, b'V' | b'C') {
                start += memchr(b'\n', &input[start..])? + 1;
            }
            let end = start + memchr(b'\n', &input[start..])?;
            let body = login(&input[start..end])?;
            (end + 1, Method::POST, "/".to_owned(), body)
        }
    };
    let request = Request::builder().method(method).uri(target);
    let request = request.header("host", "backend");
    Some((used, request.body(body.into()).ok()?))
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
