//! What `--query --verbose` shows on stderr: `> ` what is sent, `< ` what comes, `= ` what it means.
//! Without `--verbose` a query keeps the last answer, to show its beginning after a failure and where
//! it says "not found".
//!
//! It is on for the one query of a process, or never: a service pays for one look at a flag.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::outcome::is_unseen;
use crate::sync::Mutex;

static IS_QUERY: AtomicBool = AtomicBool::new(false);
static IS_ON: AtomicBool = AtomicBool::new(false);
static LAST: Mutex<Option<String>> = Mutex::new(None);
static PASSED_OVER: Mutex<Option<String>> = Mutex::new(None);

/// The sides of a call.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// What is sent.
    Sent = b'>' as isize,
    /// What comes.
    Came = b'<' as isize,
    /// What it means.
    Means = b'=' as isize,
}

/// Begins the query of this process, all of which is shown or only its last answer.
pub fn start(all: bool) {
    IS_QUERY.store(true, Ordering::Relaxed);
    IS_ON.store(all, Ordering::Relaxed);
}

/// Returns whether this process makes a query.
pub fn is_query() -> bool {
    IS_QUERY.load(Ordering::Relaxed)
}

/// Keeps the last answer in one line, or that there is none yet.
pub fn keep(answer: Option<String>) {
    *LAST.lock() = answer;
}

/// Returns the last answer: the call, its status, and the beginning of its body.
pub fn last_answer() -> Option<String> {
    LAST.lock().take()
}

/// Keeps from which target the answer is, and what was wrong with those before it, unless all of that
/// is shown.
pub fn keep_passed_over(text: impl FnOnce() -> Option<String>) {
    if is_query() && !is_on() {
        *PASSED_OVER.lock() = text();
    }
}

/// Returns what is kept of the targets before the one that has answered, if there were any.
pub fn passed_over() -> Option<String> {
    PASSED_OVER.lock().take()
}

/// Returns whether anything is shown.
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Shows what something means, if anything is shown.
pub fn means(text: impl FnOnce() -> String) {
    if is_on() {
        show(Side::Means, &text());
    }
}

/// Shows text, each of its lines with a mark.
pub fn show(side: Side, text: &str) {
    // Nobody else can be told that stderr is closed.
    let _ = std::io::stderr().write_all(marked(side, text).as_bytes());
}

/// Returns text in one line as it is shown.
pub fn in_one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// Returns text whose characters can all be seen: others could turn what is shown into another text.
pub fn seen(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_unseen(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// Returns the lines of a text as they are shown. Control characters would be orders to the
/// terminal.
fn marked(side: Side, text: &str) -> String {
    let mark = char::from(side as u8);
    let mut out = String::new();
    for line in text.lines() {
        out.push(mark);
        out.push(' ');
        for c in line.chars() {
            match c {
                '\t' => out.push(c),
                c if c.is_control() || is_unseen(c) => out.extend(c.escape_default()),
                c => out.push(c),
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_a_mark_and_no_control_character() {
        let text = "HTTP/1.1 200 OK\r\n\n\u{1b}[2Jgr\u{fc}n\tx\u{9b}\u{202e}y";
        let expected = "< HTTP/1.1 200 OK\n< \n< \\u{1b}[2Jgr\u{fc}n\tx\\u{9b}\\u{202e}y\n";
        assert_eq!(marked(Side::Came, text), expected);
        assert!(!is_on());
    }

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        let text = "user\u{202e}moc.elpmaxe\u{200b}@\u{fc} \u{1f511}";
        let expected = "user\\u{202e}moc.elpmaxe\\u{200b}@\u{fc} \u{1f511}";
        assert_eq!(seen(text), expected);
    }
}
