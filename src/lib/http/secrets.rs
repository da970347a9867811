//! Secrets, and where a text repeats them.
//!
//! A backend may quote what it was sent, and its page or message may be quoted again: as JSON of JSON,
//! or as HTML of the notation of a language. So each layer of escapes is taken off and searched.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::config::HIDDEN;

/// The most layers of escapes that are taken off. A hostile answer could have one per byte.
const MOST_LAYERS: usize = 6;

/// The most backslashes before a character that are seen as its own, for the same reason.
const MOST_SLASHES: usize = 1 << MOST_LAYERS;

/// Texts that are not shown.
#[derive(Debug, Default)]
pub struct Secrets {
    /// What is searched, in lower case.
    needles: Vec<Vec<u8>>,
}

/// A byte of a text without some of its escapes, and which bytes of the text it stands for.
#[derive(Clone, Copy)]
struct Piece {
    byte: u8,
    from: usize,
    to: usize,
}

impl Secrets {
    /// Notes a secret. A shorter one would be found in texts that do not repeat it.
    pub fn put(&mut self, secret: &str, shortest: usize) {
        if secret.len() < shortest {
            return;
        }
        let mut bare = pieces(secret);
        for _ in 0..MOST_LAYERS {
            bare = without_escapes(&bare).unwrap_or(bare);
        }
        let bare: Vec<_> = bare.into_iter().map(|piece| piece.byte).collect();
        let base64 = BASE64.encode(secret);
        let base64 = base64.trim_end_matches('=').as_bytes().to_owned();
        for needle in [secret.as_bytes().to_owned(), base64, bare] {
            let needle: Vec<_> = needle.into_iter().map(folded).collect();
            if needle.len() >= shortest && !self.needles.contains(&needle) {
                self.needles.push(needle);
            }
        }
    }

    /// Returns a text with the secrets hidden, whatever the case of their letters: that of a host is
    /// gone.
    pub fn redacted(&self, text: &str) -> String {
        self.hidden(text, false)
    }

    /// Returns a text that was cut off with the secrets hidden, and the beginning of one at its end.
    pub fn redacted_part(&self, text: &str) -> String {
        self.hidden(text, true)
    }

    fn hidden(&self, text: &str, is_cut: bool) -> String {
        let mut found = Vec::new();
        let mut layer = pieces(text);
        for _ in 0..=MOST_LAYERS {
            self.find(&layer, &mut found);
            if is_cut {
                found.extend(self.begun(&layer).map(|from| (from, text.len())));
            }
            match without_escapes(&layer) {
                Some(next) => layer = next,
                None => break,
            }
        }
        found.sort_unstable();
        let mut out = Vec::with_capacity(text.len());
        let mut end = 0;
        for (from, to) in found {
            if from >= end {
                out.extend_from_slice(text.as_bytes().get(end..from).unwrap_or_default());
                out.extend_from_slice(HIDDEN.as_bytes());
            }
            // One secret may be a part of another, or overlap it.
            end = end.max(to);
        }
        out.extend_from_slice(text.as_bytes().get(end..).unwrap_or_default());
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Notes which bytes of a text are those of a secret.
    fn find(&self, layer: &[Piece], found: &mut Vec<(usize, usize)>) {
        for (at, first) in layer.iter().enumerate() {
            for needle in &self.needles {
                if let Some(length) = repeated(needle, &layer[at..])
                    && let Some(last) = layer[..at + length].last()
                {
                    found.push((first.from, last.to));
                }
            }
        }
    }

    /// Returns where a secret begins whose end a cut has taken.
    fn begun(&self, layer: &[Piece]) -> Option<usize> {
        /// A shorter beginning tells nothing.
        const SHORTEST: usize = 4;
        /// The cut may be within an escape, or within a character.
        const MOST_BROKEN: usize = 6;
        let needles = self.needles.iter();
        let needles: Vec<_> = needles
            .map(|needle| without_slashes(needle.iter().copied()))
            .collect();
        let longest = needles.iter().map(Vec::len).max()?;
        let first = layer.len().saturating_sub(longest * 2 + MOST_BROKEN);
        (first..layer.len()).find_map(|at| {
            let rest = without_slashes(layer[at..].iter().map(|piece| piece.byte));
            let is_begun = (0..=MOST_BROKEN).any(|broken| {
                let start = rest.len().checked_sub(broken);
                let start = start.and_then(|end| rest.get(..end));
                let start = start.filter(|start| start.len() >= SHORTEST);
                start.is_some_and(|start| needles.iter().any(|needle| needle.starts_with(start)))
            });
            is_begun.then(|| layer[at].from)
        })
    }
}

/// Returns the bytes of a text that are compared where it is not known which backslashes are its own.
fn without_slashes(text: impl Iterator<Item = u8>) -> Vec<u8> {
    text.filter(|byte| *byte != b'\\').map(folded).collect()
}

/// Returns how many pieces at the beginning are a secret, if they are. Each quoting puts one more
/// backslash before a character, and doubles those that there are.
fn repeated(needle: &[u8], layer: &[Piece]) -> Option<usize> {
    let (mut wanted, mut at) = (needle, 0);
    while let Some((first, rest)) = wanted.split_first() {
        let slashes = leading_slashes(layer.get(at..)?.iter().map(|piece| piece.byte));
        if *first == b'\\' {
            let run = leading_slashes(wanted.iter().copied());
            if slashes < run {
                return None;
            }
            at += slashes;
            wanted = &wanted[run..];
            continue;
        }
        let byte = folded(layer.get(at + slashes)?.byte);
        if byte != *first && (slashes == 0 || Some(byte) != letter(*first)) {
            return None;
        }
        at += slashes + 1;
        wanted = rest;
    }
    Some(at)
}

/// Returns how many backslashes a text begins with.
fn leading_slashes(text: impl Iterator<Item = u8>) -> usize {
    let slashes = text.take_while(|byte| *byte == b'\\');
    slashes.take(MOST_SLASHES).count()
}

/// Returns the letter that stands for a control character behind a backslash.
fn letter(control: u8) -> Option<u8> {
    match control {
        b'\t' => Some(b't'),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        0x08 => Some(b'b'),
        0x0c => Some(b'f'),
        _ => None,
    }
}

/// Returns a byte as it is compared. A form has a plus sign for a blank.
fn folded(byte: u8) -> u8 {
    match byte {
        b'+' => b' ',
        other => other.to_ascii_lowercase(),
    }
}

fn pieces(text: &str) -> Vec<Piece> {
    let bytes = text.bytes().enumerate();
    let pieces = bytes.map(|(from, byte)| Piece {
        byte,
        from,
        to: from + 1,
    });
    pieces.collect()
}

/// Returns a text without one layer of its escapes, if it has any.
fn without_escapes(layer: &[Piece]) -> Option<Vec<Piece>> {
    let bytes: Vec<_> = layer.iter().map(|piece| piece.byte).collect();
    let mut out = Vec::with_capacity(layer.len());
    let (mut at, mut is_other) = (0, false);
    while let Some(piece) = layer.get(at) {
        let Some(escape) = Escape::at(&bytes[at..]) else {
            out.push(*piece);
            at += 1;
            continue;
        };
        let to = layer[..at + escape.length]
            .last()
            .map_or(piece.to, |p| p.to);
        let byte = |byte: u8| Piece {
            byte,
            from: piece.from,
            to,
        };
        match escape.meaning {
            Meaning::Byte(meant) => out.push(byte(meant)),
            Meaning::Char(c) => {
                let mut utf8 = [0; 4];
                out.extend(c.encode_utf8(&mut utf8).bytes().map(byte));
            }
        }
        at += escape.length;
        is_other = true;
    }
    is_other.then_some(out)
}

/// What an escape stands for.
enum Meaning {
    Byte(u8),
    Char(char),
}

/// An escape, and how many bytes it has.
struct Escape {
    meaning: Meaning,
    length: usize,
}

impl Escape {
    /// Returns the escape at the beginning of a text.
    fn at(text: &[u8]) -> Option<Self> {
        match text.first()? {
            b'%' => {
                let byte = u8::try_from(hexadecimal(text.get(1..3)?)?).ok()?;
                Some(Self {
                    meaning: Meaning::Byte(byte),
                    length: 3,
                })
            }
            b'&' => Self::entity(text),
            b'\\' => Self::backslash(text),
            _ => None,
        }
    }

    fn entity(text: &[u8]) -> Option<Self> {
        /// No entity of a character is longer than `&#x0010ffff;`.
        const LONGEST: usize = 12;
        let end = text.iter().take(LONGEST).position(|byte| *byte == b';')?;
        let c = match text.get(1..end)? {
            b"amp" => '&',
            b"lt" => '<',
            b"gt" => '>',
            b"quot" => '"',
            b"apos" => '\'',
            [b'#', b'x' | b'X', digits @ ..] => char::from_u32(hexadecimal(digits)?)?,
            [b'#', digits @ ..] => char::from_u32(std::str::from_utf8(digits).ok()?.parse().ok()?)?,
            _ => return None,
        };
        Some(Self {
            meaning: Meaning::Char(c),
            length: end + 1,
        })
    }

    /// Returns a `\u00fc`, `\u{fc}` or `\xfc`, however often its backslash is doubled.
    fn backslash(text: &[u8]) -> Option<Self> {
        let slashes = leading_slashes(text.iter().copied());
        let (kind, rest) = text.get(slashes..)?.split_first()?;
        let start = slashes + 1;
        match (kind, rest) {
            (b'x', rest) => {
                let byte = u8::try_from(hexadecimal(rest.get(..2)?)?).ok()?;
                Some(Self {
                    meaning: Meaning::Byte(byte),
                    length: start + 2,
                })
            }
            (b'u', [b'{', rest @ ..]) => {
                let end = rest.iter().take(7).position(|byte| *byte == b'}')?;
                Some(Self {
                    meaning: Meaning::Char(char::from_u32(hexadecimal(&rest[..end])?)?),
                    length: start + end + 2,
                })
            }
            (b'u', rest) => {
                let unit = hexadecimal(rest.get(..4)?)?;
                if let Some(c) = char::from_u32(unit) {
                    return Some(Self {
                        meaning: Meaning::Char(c),
                        length: start + 4,
                    });
                }
                // The second half of a pair.
                let rest = rest.get(4..)?;
                let slashes = leading_slashes(rest.iter().copied());
                let rest = rest.get(slashes..)?.strip_prefix(b"u")?;
                let units = [unit, hexadecimal(rest.get(..4)?)?];
                let units = units.map(|unit| u16::try_from(unit).unwrap_or_default());
                let c = char::decode_utf16(units).next()?.ok()?;
                Some(Self {
                    meaning: Meaning::Char(c),
                    length: start + 4 + slashes + 5,
                })
            }
            _ => None,
        }
    }
}

/// Returns the number that up to eight digits are.
fn hexadecimal(digits: &[u8]) -> Option<u32> {
    let is_number = digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_encode;

    use super::*;
    use crate::http::call::ESCAPED;

    #[test]
    fn what_a_backend_repeats_of_a_secret_is_hidden_in_every_form() {
        let mut secrets = Secrets::default();
        secrets.put("abc", 4);
        secrets.put("s3cr&t", 4);
        secrets.put("Bearer s3cr&t", 4);
        let text = "abc Bearer s3cr&t, /x?t=s3cr%26t, \"s3cr&t\"";
        let expected = "abc (hidden), /x?t=(hidden), \"(hidden)\"";
        assert_eq!(secrets.redacted(text), expected);
    }

    #[test]
    fn no_encoder_of_a_backend_shows_a_secret() {
        let mut secrets = Secrets::default();
        secrets.put("M\u{fc}l \"9/x+<'&\u{1f511}", 4);
        for text in [
            "M\u{fc}l \"9/x+<'&\u{1f511}",
            "M%C3%BCl%20%229%2Fx%2B%3C%27%26%F0%9F%94%91",
            "M%c3%bcl+%229%2fx%2b%3c%27%26%f0%9f%94%91",
            r#"M\u00fcl \"9/x+<'&\ud83d\udd11"#,
            r#"M\u00FCl \"9\/x+<'&\uD83D\uDD11"#,
            "M\u{fc}l &quot;9/x+&lt;&#39;&amp;\u{1f511}",
            "M\u{fc}l &#34;9/x+&lt;&#39;&amp;\u{1f511}",
            "M\u{fc}l \"9/x+&lt;'&amp;\u{1f511}",
        ] {
            assert_eq!(secrets.redacted(text), HIDDEN, "{text}");
        }
        let base64 = BASE64.encode("M\u{fc}l \"9/x+<'&\u{1f511}");
        assert_eq!(secrets.redacted(&base64).trim_end_matches('='), HIDDEN);
    }

    /// Some error pages and messages quote a body that is an encoding itself.
    #[test]
    fn no_encoding_of_an_encoding_shows_a_secret() {
        let secret = "M\u{fc}l \"9/x\\+<'&\u{1f511}\\";
        let mut secrets = Secrets::default();
        secrets.put(secret, 4);
        let json = |text: &str| serde_json::to_string(text).expect("JSON");
        let html = |text: &str| {
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            text.replace('"', "&quot;").replace('\'', "&#39;")
        };
        let percent = |text: &str| percent_encode(text.as_bytes(), ESCAPED).to_string();
        let repr = |text: &str| {
            let text = text.replace('\\', "\\\\").replace('\'', "\\'");
            format!("'{text}'")
        };
        let ascii = |text: &str| {
            let text = text.replace('\u{fc}', "\\u00fc");
            text.replace('\u{1f511}', "\\ud83d\\udd11")
        };
        let bytes = |text: &str| {
            let text = repr(text).replace('\u{fc}', "\\xc3\\xbc");
            text.replace('\u{1f511}', "\\xf0\\x9f\\x94\\x91")
        };
        let body = format!("{{\"p\":{}}}", json(secret));
        for text in [
            body.clone(),
            json(&body),
            json(&json(&body)),
            html(&json(&body)),
            html(&html(&body)),
            json(&html(&body)),
            repr(&body),
            bytes(&body),
            json(&repr(&body)),
            ascii(&body),
            json(&ascii(&body)),
            ascii(&json(&body)),
            percent(&body),
            json(&percent(&percent(&body))).replace("%20", "+"),
        ] {
            let shown = secrets.redacted(&text);
            assert!(shown.contains(HIDDEN), "{shown} of {text}");
            for part in ["l \"", "9", "ud83d", "\\u00fc", "xc3", "1f511"] {
                assert!(!shown.contains(part), "{part} in {shown} of {text}");
            }
        }
    }

    #[test]
    fn secrets_that_overlap_and_text_that_only_looks_escaped() {
        let mut secrets = Secrets::default();
        for secret in ["abcdef", "defghi", "100%41", "%41%42", "a\\\\b\\", "x\ty z"] {
            secrets.put(secret, 4);
        }
        for (text, expected) in [
            ("-abcdefghi-", "-(hidden)-"),
            ("abcdefabcdef", "(hidden)(hidden)"),
            ("100%41 100a 100%2541", "(hidden) (hidden) (hidden)"),
            ("ab AB %41%42", "ab AB (hidden)"),
            (r"a\\b\ a\\\\b\\ a\b\", r"(hidden) (hidden) a\b\"),
            (r"x\ty+z x\\ty z xty z", "(hidden) (hidden) xty z"),
            (r"% %4 %zz & &; &#; &#x110000; \ \u \ud83d \u{", ""),
            (r"\ud83d\u0041 \xg1 &#99999999999; \u{110000} %c3", ""),
        ] {
            let expected = if expected.is_empty() { text } else { expected };
            assert_eq!(secrets.redacted(text), expected, "{text}");
        }
    }

    #[test]
    fn a_cut_leaves_no_beginning_of_a_secret() {
        let mut secrets = Secrets::default();
        secrets.put("Bearer s3cr\u{fc}t/x", 4);
        for (text, expected) in [
            ("x Bear", "x (hidden)"),
            ("x bearer s3cr", "x (hidden)"),
            ("x Bearer s3cr\u{fffd}", "x (hidden)"),
            ("x Bearer s3cr\\u00", "x (hidden)"),
            ("x Bearer%20s3cr%C3%BCt%2", "x (hidden)"),
            ("x Bea", "x Bea"),
            ("Bear in mind", "Bear in mind"),
        ] {
            assert_eq!(secrets.redacted_part(text), expected, "{text}");
        }
        assert_eq!(secrets.redacted("x Bear"), "x Bear");
    }
}
