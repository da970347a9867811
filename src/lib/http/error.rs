//! What an error of the HTTP client means for the target and for the call.
//!
//! reqwest reports little of this itself, so the errors of hyper, h2 and rustls below it are looked
//! at.

use std::error::Error;
use std::io;

use hyper_util::client::legacy;
use rustix::io::Errno;
use rustls::{AlertDescription, CertificateError, InvalidMessage};

use super::resolver::NoThread;
use super::steps::Way;
use crate::config::HttpVersion;

/// Returns whether a connection broke before an answer came over it.
pub fn is_broken_connection(error: &reqwest::Error) -> bool {
    !is_late(error) && !error.is_connect() && !error.is_builder() && !is_no_http(error)
}

/// Returns whether the server answered with something that is not HTTP.
pub fn is_no_http(error: &reqwest::Error) -> bool {
    sources(error)
        .filter_map(|e| e.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_parse)
}

/// Returns whether the server spoke before it was asked. A server of HTTP does so only where it closes
/// an idle connection (408); before its first answer it is another service.
pub fn is_unasked(error: &reqwest::Error) -> bool {
    cause(error).starts_with("received unexpected message from connection")
}

/// Returns whether the server has provably not processed the call, or whether none of it was sent.
///
/// REFUSED_STREAM and GOAWAY prove it (RFC 9113, sections 8.7 and 6.8): h2 gives the error of a
/// GOAWAY only to streams above the last one that the server may have processed.
pub fn is_unprocessed(error: &reqwest::Error) -> bool {
    let is_refused = |error: &h2::Error| {
        let is_refusal = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (error.is_go_away() || is_refusal)
    };
    sources(error).any(|error| {
        error.downcast_ref().is_some_and(is_refused)
            || error.downcast_ref().is_some_and(hyper::Error::is_canceled)
    })
}

/// Returns whether hyper has dropped an HTTP/2 call: it was waiting for a free stream when the
/// connection was lost, so that at most its head was sent.
pub fn is_dropped_before_its_body(error: &reqwest::Error, version: HttpVersion) -> bool {
    let is_http2 = version == HttpVersion::Http2 || is_negotiated_http2(error);
    is_http2 && sources(error).any(|error| error.downcast_ref().is_some_and(hyper::Error::is_user))
}

/// Returns whether a call was sent over a connection for which HTTP/2 was negotiated.
fn is_negotiated_http2(error: &reqwest::Error) -> bool {
    let is_negotiated = |error: &legacy::Error| {
        let connected = error.connect_info();
        connected.is_some_and(legacy::connect::Connected::is_negotiated_h2)
    };
    sources(error).any(|error| error.downcast_ref().is_some_and(is_negotiated))
}

/// Returns whether an HTTP/2 connection has not answered a ping, the only timeout that hyper has.
pub fn is_dead_connection(error: &reqwest::Error) -> bool {
    sources(error).any(|error| {
        let error = error.downcast_ref();
        error.is_some_and(hyper::Error::is_timeout)
    })
}

/// Returns whether an HTTP/2 connection was lost and not only a stream, so that other calls may
/// have been lost with it.
pub fn is_shared_loss(error: &reqwest::Error) -> bool {
    let is_lost = |error: &h2::Error| !error.is_reset();
    is_dead_connection(error)
        || sources(error).any(|error| {
            error.downcast_ref().is_some_and(is_lost)
                || error.downcast_ref().is_some_and(hyper::Error::is_user)
        })
}

/// Returns whether there is no connection because this host lacks descriptors, memory, ports or
/// threads, which says nothing about the target.
pub fn is_local_shortage(error: &reqwest::Error) -> bool {
    const SHORTAGES: [Errno; 5] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
    ];
    let is_shortage =
        |error: &io::Error| Errno::from_io_error(error).is_some_and(|e| SHORTAGES.contains(&e));
    error.is_connect()
        && sources(error)
            .any(|error| error.is::<NoThread>() || error.downcast_ref().is_some_and(is_shortage))
}

/// Returns why a call has no answer: where it was, the cause, and a hint where the cause has a usual
/// one.
pub fn explained(error: &reqwest::Error, way: &Way<'_>) -> String {
    if is_late(error) {
        return format!("{} (connect-timeout)", way.late_connection());
    }
    if let Some(why) = tunnel(error) {
        let place = match why {
            NO_PROXY => way.proxy(),
            _ => way.place(),
        };
        return format!("{place}: {}", refused_tunnel(why, error));
    }
    if error.is_connect() && is_no_tls(error) {
        return format!("{}: no TLS on this port; is it http://?", way.place());
    }
    let cause = cause(error);
    let is_new = way.may_want_tls();
    if cause.starts_with("invalid HTTP version") || !way.is_known && is_unasked(error) {
        let what = match is_new {
            true => "TLS, or another service, on this port?",
            false => "another service on this port?",
        };
        return format!("{}: the answer is not HTTP; {what}", way.place());
    }
    if way.has_tls() && is_no_http_version(error, way) {
        return format!("{}: {}", way.place(), no_http_version(way));
    }
    let hint = if is_alert(error, AlertDescription::ProtocolVersion) {
        "; the server has no version of TLS that tls.min-version allows"
    } else if is_alert(error, AlertDescription::CertificateRequired) {
        "; it wants a client certificate: tls.client-cert"
    } else if error.is_connect() && way.is_in_handshake() && is_closed(error) {
        "; closed at the TLS handshake: is it http://, or a server that does not serve this name?"
    } else if !error.is_connect() && is_new && is_broken_connection(error) {
        if way.transport.http_version == HttpVersion::Http2 {
            // What ends the connection first differs from call to call.
            let why = "no HTTP/2 without TLS there? http-version = \"2\" needs it";
            return format!("{}: {why}", way.place());
        }
        "; TLS on this port?"
    } else if way.is_known && way.is_sent_once && is_cut_off(error) {
        "; did the API close an idle connection? pool-idle has to be below its own limit"
    } else {
        ""
    };
    format!("{}: {cause}{hint}", way.place())
}

/// What hyper-util says where there is no connection to the proxy itself.
const NO_PROXY: &str = "failed to create underlying connection";

/// Returns what hyper-util says of a proxy that opens no tunnel: it has no type for that.
fn tunnel(error: &reqwest::Error) -> Option<&'static str> {
    const KNOWN: [&str; 6] = [
        NO_PROXY,
        "unsuccessful",
        "proxy authorization required",
        "unexpected end of file",
        "proxy response headers too long",
        "io error establishing tunnel",
    ];
    let text = sources(error).find_map(|error| {
        let text = error.to_string();
        text.strip_prefix("tunnel error: ").map(str::to_owned)
    })?;
    KNOWN.into_iter().find(|known| text == *known)
}

/// Returns why a proxy opens no tunnel. hyper-util keeps no status but 407.
fn refused_tunnel(why: &str, error: &reqwest::Error) -> String {
    match why {
        "unsuccessful" => "the proxy refuses to connect to it; the status is in its log".to_owned(),
        "proxy authorization required" => {
            "the proxy answered 407: it wants a user and a password in the URL of proxy".to_owned()
        }
        "unexpected end of file" => "the proxy closed the connection without an answer".to_owned(),
        _ => cause(error),
    }
}

/// Returns whether a connection took longer than `connect-timeout`.
pub fn is_late(error: &reqwest::Error) -> bool {
    error.is_timeout() && !is_dead_connection(error)
}

/// Returns whether a server has answered the beginning of a TLS handshake with something else.
fn is_no_tls(error: &reqwest::Error) -> bool {
    let no_tls = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
    let innermost = sources(error).last();
    innermost.is_some_and(|innermost| tls_error(innermost) == Some(&no_tls))
}

/// Returns whether a server has closed or reset a connection.
fn is_closed(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let innermost = sources(error).last().and_then(io_error);
    innermost.is_some_and(|e| [UnexpectedEof, ConnectionReset, BrokenPipe].contains(&e.kind()))
}

/// Returns whether a server has closed or reset a connection over which a request was sent.
fn is_cut_off(error: &reqwest::Error) -> bool {
    let is_incomplete = |error: &hyper::Error| error.is_incomplete_message();
    let is_incomplete = sources(error).any(|e| e.downcast_ref().is_some_and(is_incomplete));
    !error.is_connect() && (is_incomplete || is_closed(error))
}

/// Returns the innermost I/O error within one, which `source` does not return.
fn io_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    let error = error.downcast_ref::<io::Error>()?;
    let inner = error.get_ref().and_then(|inner| io_error(inner));
    inner.or(Some(error))
}

/// Returns whether a server over TLS does not speak a version of HTTP that the table allows: it has
/// refused them (RFC 7301, section 3.2), or has negotiated none before HTTP/2 failed, although HTTP/2
/// has to be negotiated (RFC 9113, section 3.2).
fn is_no_http_version(error: &reqwest::Error, way: &Way<'_>) -> bool {
    let is_of_server = |error: &h2::Error| error.is_remote();
    is_alert(error, AlertDescription::NoApplicationProtocol)
        || way.transport.http_version == HttpVersion::Http2
            && !way.is_known
            && !error.is_connect()
            && is_broken_connection(error)
            && !is_negotiated_http2(error)
            && !sources(error).any(|error| error.downcast_ref().is_some_and(is_of_server))
}

fn no_http_version(way: &Way<'_>) -> &'static str {
    match way.transport.http_version {
        HttpVersion::Http2 => {
            "the server does not speak HTTP/2; http-version = \"1.1\" or \"auto\""
        }
        HttpVersion::Http1 => {
            "the server does not speak HTTP/1.1; http-version = \"2\" or \"auto\""
        }
        HttpVersion::Auto => "the server speaks neither HTTP/1.1 nor HTTP/2",
    }
}

/// Returns whether a server has ended a connection with this alert of TLS.
fn is_alert(error: &reqwest::Error, alert: AlertDescription) -> bool {
    let received = rustls::Error::AlertReceived(alert);
    sources(error).any(|error| tls_error(error) == Some(&received))
}

/// Returns the text of the innermost error. The outer ones hold the URL, and so the key.
pub fn cause(error: &reqwest::Error) -> String {
    let Some(innermost) = sources(error).last() else {
        return String::new();
    };
    match tls_error(innermost) {
        // The text of this one is its `Debug`.
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
            format!("invalid peer certificate: {other}")
        }
        _ => innermost.to_string(),
    }
}

/// Returns the TLS error within an I/O error, which `source` does not return.
fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => tls_error(error.get_ref()?),
        None => error.downcast_ref(),
    }
}

fn sources(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}
