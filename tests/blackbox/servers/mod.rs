//! Servers of the tests: over TLS, HTTP/2 or a unix socket, a proxy, and an address that never
//! answers; and the certificates for them.

pub(crate) mod certificates;
pub(crate) mod frames;
pub(crate) mod hole;
pub(crate) mod tunnel;
pub(crate) mod web;

use std::io::{Read, Write};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

/// Compresses as gzip does.
pub(crate) fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes.as_ref()).expect("compressed bytes");
    encoder.finish().expect("compressed bytes")
}

/// Takes gzip's compression off.
pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut decoder = GzDecoder::new(bytes);
    decoder.read_to_end(&mut plain).expect("gzip");
    plain
}
