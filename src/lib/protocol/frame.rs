//! Framing: lines and netstrings of bounded length, each cut off the input once.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

/// What the input begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// An incomplete frame.
    NeedMore,
    /// The content of a frame, which was cut off the input.
    Whole(Bytes),
    /// A frame over the limit, which is known before all its bytes have arrived.
    TooLong,
    /// Bytes that do not begin a frame.
    Malformed,
}

/// Finds lines, each ended by a line feed. No byte is searched twice, so that a peer which sends a
/// long line byte by byte costs no more than one that sends it at once.
#[derive(Debug, Default)]
pub struct Lines {
    /// Where the incomplete line begins.
    start: usize,
    searched: usize,
}

/// What follows the lines found so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// An incomplete line.
    NeedMore,
    /// The place of a line in the input, without its line feed.
    At(Range<usize>),
    /// All lines together are over the limit.
    TooLong,
}

impl Lines {
    /// Finds the next line and leaves it in the input. The limit counts all lines found so far,
    /// with their line feeds.
    pub fn find(&mut self, input: &[u8], limit: usize) -> Line {
        let unseen = input.get(self.searched..).unwrap_or_default();
        let end = memchr(b'\n', unseen).map(|at| self.searched.saturating_add(at));
        match end {
            Some(end) if end < limit => {
                let line = self.start..end;
                self.start = end.saturating_add(1);
                self.searched = self.start;
                Line::At(line)
            }
            None if input.len() < limit => {
                self.searched = input.len();
                Line::NeedMore
            }
            _ => Line::TooLong,
        }
    }

    /// Cuts off the input up to `end`, where a found line ends, and drops the line feed.
    pub fn cut(&mut self, input: &mut BytesMut, end: usize) -> BytesMut {
        *self = Self::default();
        let lines = input.split_to(end);
        input.advance(1);
        lines
    }

    /// Drops the input up to `end`, where a found line ends, and the line feed.
    pub fn skip(&mut self, input: &mut BytesMut, end: usize) {
        *self = Self::default();
        input.advance(end.saturating_add(1));
    }

    /// Cuts one line off the input. The limit includes the line feed.
    pub fn take(&mut self, input: &mut BytesMut, limit: usize) -> Frame {
        match self.find(input, limit) {
            Line::NeedMore => Frame::NeedMore,
            Line::At(line) => Frame::Whole(self.cut(input, line.end).freeze()),
            Line::TooLong => Frame::TooLong,
        }
    }
}

/// The most digits of a length. Postfix accepts leading zeros (netstring.c), so they are accepted
/// up to this bound.
const MAX_DIGITS: usize = 10;

/// Cuts one netstring off the input. The limit counts the payload.
pub fn take_netstring(input: &mut BytesMut, limit: usize) -> Frame {
    let mut length: usize = 0;
    for (at, byte) in input.iter().enumerate() {
        match byte {
            b'0'..=b'9' if at < MAX_DIGITS => {
                let digit = usize::from(byte.saturating_sub(b'0'));
                length = length.saturating_mul(10).saturating_add(digit);
                if length > limit {
                    return Frame::TooLong;
                }
            }
            b':' if at > 0 => return cut_payload(input, at.saturating_add(1), length),
            _ => return Frame::Malformed,
        }
    }
    Frame::NeedMore
}

fn cut_payload(input: &mut BytesMut, start: usize, length: usize) -> Frame {
    match input.get(start.saturating_add(length)) {
        None => Frame::NeedMore,
        Some(b',') => {
            input.advance(start);
            let payload = input.split_to(length).freeze();
            input.advance(1);
            Frame::Whole(payload)
        }
        Some(_) => Frame::Malformed,
    }
}

/// Makes one netstring from several parts.
pub fn put_netstring(parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let digits = length.to_string();
    // With no room to spare, it becomes the reply without another allocation.
    let room = digits.len().saturating_add(length).saturating_add(2);
    let mut out = Vec::with_capacity(room);
    out.extend_from_slice(digits.as_bytes());
    out.push(b':');
    for part in parts {
        out.extend_from_slice(part);
    }
    out.push(b',');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netstring(bytes: &str, limit: usize) -> (Frame, String) {
        let mut input = BytesMut::from(bytes);
        let frame = take_netstring(&mut input, limit);
        (frame, String::from_utf8(input.to_vec()).unwrap())
    }

    #[test]
    fn netstrings_are_cut_off_or_refused() {
        let whole = |text: &'static str| Frame::Whole(Bytes::from_static(text.as_bytes()));
        for (bytes, frame, rest) in [
            ("0:,", whole(""), ""),
            ("1:X,", whole("X"), ""),
            ("00:,1:X,", whole(""), "1:X,"),
            ("01:X,", whole("X"), ""),
            ("5:a:b,c,", whole("a:b,c"), ""),
            ("17:5:Hello,6:World!,,", whole("5:Hello,6:World!,"), ""),
            ("3:\u{20ac},", whole("\u{20ac}"), ""),
            ("", Frame::NeedMore, ""),
            ("3", Frame::NeedMore, "3"),
            ("3:", Frame::NeedMore, "3:"),
            ("3:aaa", Frame::NeedMore, "3:aaa"),
            ("3:aaa_", Frame::Malformed, "3:aaa_"),
            ("0:_", Frame::Malformed, "0:_"),
            (":,", Frame::Malformed, ":,"),
            ("-1:", Frame::Malformed, "-1:"),
            ("+1:", Frame::Malformed, "+1:"),
            ("0x1:a,", Frame::Malformed, "0x1:a,"),
            ("aaa:aaa", Frame::Malformed, "aaa:aaa"),
            ("00000000001:a,", Frame::Malformed, "00000000001:a,"),
            ("21", Frame::TooLong, "21"),
            ("999999999:", Frame::TooLong, "999999999:"),
            (
                "18446744073709551616:x",
                Frame::TooLong,
                "18446744073709551616:x",
            ),
        ] {
            assert_eq!(netstring(bytes, 20), (frame, rest.to_owned()), "{bytes}");
        }
    }

    #[test]
    fn a_netstring_put_is_a_netstring_taken() {
        for payload in ["", "a", "a:b,", "\u{20ac}"] {
            let mut input = BytesMut::from(&put_netstring(&[payload.as_bytes()])[..]);
            let frame = take_netstring(&mut input, 20);
            assert_eq!(frame, Frame::Whole(Bytes::from(payload.to_owned())));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn the_limit_of_a_line_counts_its_line_feed() {
        let take = |bytes: &str| Lines::default().take(&mut BytesMut::from(bytes), 4);
        assert_eq!(take("abc\n"), Frame::Whole(Bytes::from_static(b"abc")));
        assert_eq!(take("abc"), Frame::NeedMore);
        assert_eq!(take("abcd"), Frame::TooLong);
        assert_eq!(take("abcd\n"), Frame::TooLong);
    }

    #[test]
    fn lines_are_found_in_place_until_all_of_them_are_over_the_limit() {
        let mut lines = Lines::default();
        let mut input = BytesMut::from("ab\n\nc");
        assert_eq!(lines.find(&input, 7), Line::At(0..2));
        assert_eq!(lines.find(&input, 7), Line::At(3..3));
        assert_eq!(lines.find(&input, 7), Line::NeedMore);
        input.extend_from_slice(b"d\ne\n");
        assert_eq!(lines.find(&input, 7), Line::At(4..6));
        assert_eq!(lines.find(&input, 7), Line::TooLong);
        assert_eq!(lines.cut(&mut input, 6), "ab\n\ncd");
        assert_eq!(lines.find(&input, 7), Line::At(0..1));
    }

    #[test]
    fn a_line_is_found_however_it_arrives() {
        let mut lines = Lines::default();
        let mut input = BytesMut::new();
        let mut found = Vec::new();
        for byte in b"a\n\nbc\nd" {
            input.extend_from_slice(&[*byte]);
            if let Frame::Whole(line) = lines.take(&mut input, 10) {
                found.push(line);
            }
        }
        assert_eq!(found, ["a", "", "bc"]);
        assert_eq!(input, "d");
    }
}
