//! The fields of a line, and the escaping of their bytes (strescape.c: tab-escaping).

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use memchr::memchr;

/// The byte that begins an escape.
const ESCAPE: u8 = 1;

/// The escaped bytes, each with the letter that stands for it.
const LETTERS: [(u8, u8); 5] = [
    (ESCAPE, b'1'),
    (b'\t', b't'),
    (b'\n', b'n'),
    (b'\r', b'r'),
    (0, b'0'),
];

/// Returns the fields of a line behind its command.
pub(super) fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b'\t')
}

/// Undoes the escaping of a field, which is copied: a slice would keep the whole buffer alive into
/// which it was read.
pub(super) fn unescape(field: &[u8]) -> Bytes {
    match plain(field) {
        Cow::Borrowed(plain) => Bytes::copy_from_slice(plain),
        Cow::Owned(plain) => plain.into(),
    }
}

/// Undoes the escaping of a field. As in Dovecot, an escape of any other byte means that byte, and
/// one at the end means nothing.
pub(super) fn plain(field: &[u8]) -> Cow<'_, [u8]> {
    if memchr(ESCAPE, field).is_none() {
        return Cow::Borrowed(field);
    }
    let mut plain = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(&byte) = bytes.next() {
        if byte != ESCAPE {
            plain.push(byte);
        } else if let Some(&letter) = bytes.next() {
            let escaped = LETTERS.iter().find(|(_, l)| *l == letter);
            plain.push(escaped.map_or(letter, |(byte, _)| *byte));
        }
    }
    Cow::Owned(plain)
}

/// Puts bytes as a field of a reply.
pub(super) fn put(bytes: &[u8], out: &mut BytesMut) {
    for piece in bytes.split_inclusive(|byte| letter_of(*byte).is_some()) {
        let last = piece.split_last();
        match last.and_then(|(last, before)| Some((before, letter_of(*last)?))) {
            Some((before, letter)) => {
                out.extend_from_slice(before);
                out.extend_from_slice(&[ESCAPE, letter]);
            }
            None => out.extend_from_slice(piece),
        }
    }
}

/// Returns the letter that stands for a byte, if it is escaped.
fn letter_of(byte: u8) -> Option<u8> {
    if byte > b'\r' {
        return None;
    }
    let escaped = LETTERS.iter().find(|(escaped, _)| *escaped == byte);
    escaped.map(|(_, letter)| *letter)
}

/// Returns the number in a field, which has no sign.
pub(super) fn number<N: std::str::FromStr>(field: &[u8]) -> Option<N> {
    let is_number = !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    let digits = is_number.then_some(field)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_field_or_a_line_is_escaped() {
        for (plain, escaped) in [
            (&b"a b/\xff%"[..], &b"a b/\xff%"[..]),
            (b"\t\n\r\0\x01", b"\x01t\x01n\x01r\x010\x011"),
            (b"1\x01t", b"1\x011t"),
            (b"", b""),
        ] {
            let mut out = BytesMut::new();
            put(plain, &mut out);
            assert_eq!(out, escaped);
            assert_eq!(unescape(escaped), plain);
        }
    }

    #[test]
    fn escapes_that_dovecot_does_not_write_are_read_as_it_reads_them() {
        assert_eq!(unescape(b"a\x01xb"), &b"axb"[..]);
        assert_eq!(unescape(b"\x01\x01"), &b"\x01"[..]);
        assert_eq!(unescape(b"a\x01"), &b"a"[..]);
    }

    #[test]
    fn a_number_has_digits_and_nothing_else() {
        assert_eq!(number::<u32>(b"007"), Some(7));
        for field in [&b""[..], b"-1", b"+1", b" 1", b"1a", b"4294967296"] {
            assert_eq!(number::<u32>(field), None, "{}", field.escape_ascii());
        }
    }
}
