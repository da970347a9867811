//! What `--query --verbose` shows on stderr: `> ` what is sent, `< ` what comes, `= ` what it means.
//!
//! It is on for the one query of a process, or never: a service pays for one look at a flag.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

static IS_ON: AtomicBool = AtomicBool::new(false);

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

/// Begins to show.
pub fn start() {
    IS_ON.store(true, Ordering::Relaxed);
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
                // Writing to a string does not fail.
                c if c.is_control() => drop(write!(out, "{}", c.escape_default())),
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
        let text = "HTTP/1.1 200 OK\r\n\n\u{1b}[2Jgr\u{fc}n\tx\u{9b}";
        let expected = "< HTTP/1.1 200 OK\n< \n< \\u{1b}[2Jgr\u{fc}n\tx\\u{9b}\n";
        assert_eq!(marked(Side::Came, text), expected);
        assert!(!is_on());
    }
}
