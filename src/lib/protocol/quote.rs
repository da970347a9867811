//! The quoting of tcp_table(5): `%XX` for white space, `%`, and bytes that do not print.

use bytes::{BufMut, Bytes};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// The quoted bytes: controls, blank, `%`, DEL, and every byte from 0x80 on (hex_quote.c).
const QUOTED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// Appends quoted text to a reply.
pub fn quote(text: &str, out: &mut String) {
    out.extend(percent_encode(text.as_bytes(), QUOTED));
}

/// Undoes the quoting of a request's key, exactly once.
///
/// Returns nothing for a key that Postfix never sends: with a `%` without two hexadecimal digits,
/// or with unquoted white space or control characters.
pub fn unquote(text: &[u8]) -> Option<Bytes> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'%' => out.put_u8(hex(bytes.next()?, bytes.next()?)?),
            b' ' | 0x7f => return None,
            byte if byte.is_ascii_control() => return None,
            byte => out.put_u8(byte),
        }
    }
    Some(out.into())
}

fn hex(high: &u8, low: &u8) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let value = digit(high)?.checked_mul(16)?.checked_add(digit(low)?)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_print_is_quoted() {
        for (plain, quoted) in [
            ("+ %&\u{a7}\u{df}", "+%20%25&%C2%A7%C3%9F"),
            ("a\tb\r\nc\u{7f}\0", "a%09b%0D%0Ac%7F%00"),
            ("\"<>\\@*/?#[]", "\"<>\\@*/?#[]"),
        ] {
            let mut out = String::new();
            quote(plain, &mut out);
            assert_eq!(out, quoted);
            assert_eq!(unquote(quoted.as_bytes()).unwrap(), plain);
        }
    }

    #[test]
    fn quoting_is_undone_once_and_only_if_it_is_whole() {
        assert_eq!(unquote(b"%2541").unwrap(), "%41");
        assert_eq!(unquote(b"%c3%Bc").unwrap(), "\u{fc}");
        assert_eq!(unquote(b"\xff%FF").unwrap(), &b"\xff\xff"[..]);
        for broken in ["%", "%2", "%zz", "a%4", "%+1", "a b", "a\r", "\t", "\0"] {
            assert_eq!(unquote(broken.as_bytes()), None, "{broken:?}");
        }
    }
}
