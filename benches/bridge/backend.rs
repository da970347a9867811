//! The HTTP service behind the bridges: the least HTTP/1.1 that works, so that it costs almost
//! nothing.

use std::io;
use std::time::Duration;

use memchr::{memchr, memmem};
use percent_encoding::percent_decode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::wire;

/// What stands before the name in the JSON of a login.
const USERNAME: &[u8] = b"\"username\":\"";

/// Answers every request after this latency, until the process ends.
pub(crate) async fn serve(listener: TcpListener, latency: Duration) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream, latency));
    }
}

/// Serves one connection. Anything but a request ends it, which the load notices.
async fn connection(mut stream: TcpStream, latency: Duration) -> Option<()> {
    let mut input = Vec::with_capacity(4096);
    loop {
        let (used, answer) = loop {
            if let Some(answered) = answer(&input) {
                break answered;
            }
            if stream.read_buf(&mut input).await.ok()? == 0 {
                return None;
            }
        };
        input.drain(..used);
        if !latency.is_zero() {
            sleep(latency).await;
        }
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

/// Returns the length of the request at the front of the input, and its answer.
fn answer(input: &[u8]) -> Option<(usize, String)> {
    let end = memmem::find(input, b"\r\n\r\n")? + 4;
    let head = &input[..end];
    if head.starts_with(b"GET ") {
        return Some((end, wire::json_answer(&parameter(head, b"key=")?)));
    }
    let head = std::str::from_utf8(head).ok()?.to_ascii_lowercase();
    let (_, length) = head.split_once("\r\ncontent-length: ")?;
    let length: usize = length.split("\r\n").next()?.parse().ok()?;
    let body = input.get(end..end + length)?;
    let answer = if body.starts_with(b"{") {
        let name = &body[memmem::find(body, USERNAME)? + USERNAME.len()..];
        wire::login_answer(&name[..memchr(b'"', name)?])
    } else {
        wire::text_answer(&parameter(body, b"&recipient=")?)
    };
    Some((end + length, answer))
}

fn parameter(text: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let value = &text[memmem::find(text, name)? + name.len()..];
    let end = value.iter().position(|b| matches!(b, b'&' | b' '));
    let value = &value[..end.unwrap_or(value.len())];
    Some(percent_decode(value).collect())
}
