//! A text that is built piece by piece, and that leaves nothing in memory if it has a secret in it.

use std::fmt;
use std::io;
use std::ops::Deref;

use bytes::Bytes;
use secrecy::zeroize::{Zeroize as _, Zeroizing};

/// A text for a call.
#[derive(Default)]
pub struct Text {
    text: String,
    has_secret: bool,
}

impl Text {
    /// Makes an empty text. With a secret its memory is overwritten when it moves and when it is
    /// dropped.
    pub fn new(capacity: usize, has_secret: bool) -> Self {
        Self {
            text: String::with_capacity(capacity),
            has_secret,
        }
    }

    /// Appends a piece.
    pub fn push_str(&mut self, piece: &str) {
        self.make_room(piece.len());
        self.text.push_str(piece);
    }

    /// Appends a character.
    pub fn push(&mut self, c: char) {
        self.make_room(c.len_utf8());
        self.text.push(c);
    }

    /// Appends pieces.
    pub fn extend<'p>(&mut self, pieces: impl IntoIterator<Item = &'p str>) {
        for piece in pieces {
            self.push_str(piece);
        }
    }

    /// Returns the bytes, without spare capacity, as they may be held for long.
    pub fn into_bytes(mut self) -> Bytes {
        let text = std::mem::take(&mut self.text);
        if self.has_secret {
            // To shrink it would be to move it.
            Bytes::from_owner(Zeroizing::new(text.into_bytes()))
        } else {
            text.into_bytes().into_boxed_slice().into()
        }
    }

    /// A string that grows leaves a copy behind.
    fn make_room(&mut self, more: usize) {
        let needed = self.text.len().saturating_add(more);
        if self.has_secret && needed > self.text.capacity() {
            let mut larger = String::with_capacity(needed.saturating_mul(2));
            larger.push_str(&self.text);
            self.text.zeroize();
            self.text = larger;
        }
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// Appends pieces of whole UTF-8 characters.
impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = std::str::from_utf8(bytes);
        self.push_str(piece.map_err(|_| io::ErrorKind::InvalidData)?);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        if self.has_secret {
            self.text.zeroize();
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_a_secret_is_the_same_text() {
        for has_secret in [false, true] {
            let mut text = Text::new(1, has_secret);
            for i in 0..1_000 {
                text.push_str(&i.to_string());
                text.push('\u{e9}');
            }
            text.extend(["a", "", "bc"]);
            serde_json::to_writer(&mut text, "x\"\u{e9}\n").expect("written");
            assert!(text.ends_with("999\u{e9}abc\"x\\\"\u{e9}\\n\""));
            let length = text.len();
            assert_eq!(text.into_bytes().len(), length);
        }
    }
}
