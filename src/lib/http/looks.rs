//! What an answer looks like that is not understood, in words that hold nothing of it: it may hold
//! an address or a password, and these words go into the log.

/// Returns the kind of a body, and its label.
pub fn looks(content_type: &str, body: &[u8]) -> String {
    let text = trim_text(body);
    let is_line = !text.contains(&b'\n') && !text.contains(&b'\r');
    let kind = match text.first() {
        None => "an empty body",
        _ if body.starts_with(b"\xef\xbb\xbf") => {
            "a byte order mark, which JSON must not begin with"
        }
        Some(_) if is_html(content_type, body) => "a page of HTML",
        Some(b'<') => "a text that begins with \"<\"",
        Some(b'{' | b'[' | b'"') => "a text that only begins as JSON does",
        Some(_) if std::str::from_utf8(text).is_err() => "bytes that are no text",
        Some(_) if is_line => "a line of text",
        Some(_) => "lines of text",
    };
    match label(content_type) {
        Some(label) => format!("{kind}, labelled {label}"),
        None => format!("{kind}, without a known Content-Type"),
    }
}

/// Returns whether a body is a page for a person, as error pages of proxies are. Its label alone
/// says little, as some frameworks send every answer as text/html, and so does a "<" alone.
pub fn is_html(content_type: &str, body: &[u8]) -> bool {
    let text = trim_text(body);
    let begins_with = |tag: &str| {
        let start = text.get(..tag.len()).unwrap_or_default();
        start.eq_ignore_ascii_case(tag.as_bytes())
    };
    let is_labelled = content_type
        .trim()
        .to_ascii_lowercase()
        .starts_with("text/html");
    is_labelled && begins_with("<") || begins_with("<!doctype html") || begins_with("<html")
}

/// Returns a text without the blanks around it and without a byte order mark, which some editors
/// and languages write.
pub fn trim_text(body: &[u8]) -> &[u8] {
    let text = body.trim_ascii();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.trim_ascii()
}

/// The media types that are named: any other could hold whatever the backend makes of a request.
const KNOWN: [&str; 15] = [
    "application/javascript",
    "application/json",
    "application/octet-stream",
    "application/problem+json",
    "application/vnd.api+json",
    "application/x-www-form-urlencoded",
    "application/xhtml+xml",
    "application/xml",
    "image/png",
    "multipart/form-data",
    "text/css",
    "text/csv",
    "text/html",
    "text/plain",
    "text/xml",
];

/// Returns the media type, if it is a known one.
pub fn label(content_type: &str) -> Option<&'static str> {
    let media_type = content_type.split(';').next()?.trim();
    KNOWN
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(media_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_described_without_anything_of_it() {
        for (content_type, body, expected) in [
            (
                "text/html; charset=utf-8",
                "<p>jane</p>",
                "a page of HTML, labelled text/html",
            ),
            (
                "",
                "<!doctype HTML>",
                "a page of HTML, without a known Content-Type",
            ),
            (
                "jane/jane",
                "<jane>",
                "a text that begins with \"<\", without a known Content-Type",
            ),
            ("text/plain", "jane", "a line of text, labelled text/plain"),
            (
                "text/plain",
                "jane\njoe",
                "lines of text, labelled text/plain",
            ),
            (
                "application/json",
                "[\"jane",
                "a text that only begins as JSON does, labelled application/json",
            ),
            (
                "application/json",
                "\u{feff}[]",
                "a byte order mark, which JSON must not begin with, labelled application/json",
            ),
            (
                "application/json",
                "",
                "an empty body, labelled application/json",
            ),
        ] {
            assert_eq!(looks(content_type, body.as_bytes()), expected);
        }
        let bytes = "bytes that are no text, without a known Content-Type";
        assert_eq!(looks("", b"\x80"), bytes);
    }
}
