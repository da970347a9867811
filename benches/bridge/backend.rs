//! The HTTP service behind the bridges: the least HTTP/1.1 that works, so that it costs almost
//! nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use memchr::{memchr, memmem};
use percent_encoding::percent_decode;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

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

/// Answers every request at once over TLS, with a self-signed certificate.
pub(crate) async fn serve_tls(listener: TcpListener) -> io::Result<()> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    let key = signing_key.serialize_der().try_into();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.map_err(io::Error::other)?)
        .map_err(io::Error::other)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that gives up is noticed by the load.
            let stream = acceptor.accept(stream).await.ok()?;
            connection(stream, Duration::ZERO).await
        });
    }
}

/// Serves one connection. Anything but a request ends it, which the load notices.
async fn connection<S>(mut stream: S, latency: Duration) -> Option<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
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
