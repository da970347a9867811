//! What an error of the HTTP client means: for the target, and for the call that met it.

use std::error::Error;
use std::io;

use hyper_util::client::legacy;
use rustix::io::Errno;
use rustls::CertificateError;

use super::resolver::NoThread;
use crate::config::HttpVersion;

/// Tells whether a connection broke before it had brought an answer.
pub fn is_broken_connection(error: &reqwest::Error) -> bool {
    let is_late = error.is_timeout() && !is_dead_connection(error);
    !is_late && !error.is_connect() && !error.is_builder() && !is_no_http(error)
}

/// Tells whether what came back is not HTTP.
pub fn is_no_http(error: &reqwest::Error) -> bool {
    sources(error)
        .filter_map(|e| e.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_parse)
}

/// Returns whether the server has provably not processed the call (RFC 9113, sections 6.8 and 8.7),
/// or whether none of it was sent. h2 gives an error that comes from a GOAWAY to the streams above
/// its last one only.
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

/// Returns whether a call of HTTP/2 was dropped by hyper: it waited for its turn among the streams of
/// a connection when that went away, so that no more than its head was sent.
pub fn is_dropped_before_its_body(error: &reqwest::Error, version: HttpVersion) -> bool {
    let is_negotiated = |error: &legacy::Error| {
        let connected = error.connect_info();
        connected.is_some_and(legacy::connect::Connected::is_negotiated_h2)
    };
    let is_http2 = version == HttpVersion::Http2
        || sources(error).any(|error| error.downcast_ref().is_some_and(is_negotiated));
    is_http2 && sources(error).any(|error| error.downcast_ref().is_some_and(hyper::Error::is_user))
}

/// Returns whether a connection of HTTP/2 has not answered a ping. hyper calls that a timeout, and has
/// no other one.
pub fn is_dead_connection(error: &reqwest::Error) -> bool {
    sources(error).any(|error| {
        let error = error.downcast_ref();
        error.is_some_and(hyper::Error::is_timeout)
    })
}

/// Returns whether a connection of HTTP/2 was lost, and not a stream alone. Other calls may have
/// been lost with it.
pub fn is_shared_loss(error: &reqwest::Error) -> bool {
    let is_lost = |error: &h2::Error| !error.is_reset();
    is_dead_connection(error)
        || sources(error).any(|error| {
            error.downcast_ref().is_some_and(is_lost)
                || error.downcast_ref().is_some_and(hyper::Error::is_user)
        })
}

/// Returns whether no connection was made because we ran out of something: descriptors, memory,
/// ports or threads.
pub fn is_local_shortage(error: &reqwest::Error) -> bool {
    const WANTS: [Errno; 5] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
    ];
    let is_want =
        |error: &io::Error| Errno::from_io_error(error).is_some_and(|e| WANTS.contains(&e));
    error.is_connect()
        && sources(error)
            .any(|error| error.is::<NoThread>() || error.downcast_ref().is_some_and(is_want))
}

/// Returns the innermost error's words: the outer ones hold the URL.
pub fn cause(error: &reqwest::Error) -> String {
    let Some(innermost) = sources(error).last() else {
        return String::new();
    };
    match tls_error(innermost) {
        // Its own words show how it is made, not what it says.
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
            format!("invalid peer certificate: {other}")
        }
        _ => innermost.to_string(),
    }
}

/// Returns the error of TLS that an I/O error is made of; none of them says so in `source`.
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
