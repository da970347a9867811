//! The files about mistakes, and the page that is made of them.
//!
//! A file has a title in its first line, and then parts, each with a line of its name and a colon,
//! and its text indented by four blanks.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// One file.
pub(crate) struct Mistake {
    /// What is wrong.
    pub(crate) title: String,
    /// The configuration.
    pub(crate) config: String,
    /// What the API does.
    pub(crate) api: String,
    /// The command.
    pub(crate) command: String,
    /// What is printed, and the exit status.
    pub(crate) printed: String,
    /// The cause, and what to do.
    pub(crate) mend: String,
}

/// Reads the files in a folder, by their names.
pub(crate) fn read(folder: &Path) -> Vec<Mistake> {
    let entries = fs::read_dir(folder).expect("a folder of mistakes");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| one(path)).collect()
}

fn one(path: &Path) -> Mistake {
    let text = fs::read_to_string(path).expect("text");
    let title = text.lines().next().expect("a title").to_owned();
    let part = |name: &str| {
        let lines = text.lines().skip_while(|line| *line != format!("{name}:"));
        let lines = lines.skip(1);
        let lines = lines.take_while(|line| line.is_empty() || line.starts_with("    "));
        let lines: Vec<_> = lines.map(|line| line.get(4..).unwrap_or("")).collect();
        lines.join("\n").trim_end().to_owned()
    };
    Mistake {
        title,
        config: part("configuration") + "\n",
        api: part("the API"),
        command: part("command"),
        printed: part("printed") + "\n",
        mend: part("what to do"),
    }
}

/// Makes the page.
pub(crate) fn of(mistakes: &[Mistake]) -> String {
    let mut page = "\
<!-- Made of tests/mistakes by `cargo run --example mistakes -- docs/mistakes.md`; not to be edited. -->

# Mistakes, and their messages

Each mistake on this page is made by a test, and the messages are what the programs print. They are
those of `--query`, which sends one request by hand, or with `--listen` the warnings in the log. The
part after the program's name is in the journal as well, but for what may hold an address: the call,
the beginning of its answer, names in it, and another host or port of a redirect. `N` is a number
that differs. `--query ... --verbose` shows all of the call and its answer.

"
    .to_owned();
    for mistake in mistakes {
        let _ = writeln!(page, "- [{}](#{})", mistake.title, anchor(&mistake.title));
    }
    for mistake in mistakes {
        let _ = write!(page, "\n## {}\n", mistake.title);
        block(&mut page, "toml", &mistake.config);
        let _ = write!(page, "\n{}\n", api(&mistake.api));
        let shown = format!("$ {}\n{}", mistake.command, mistake.printed);
        block(&mut page, "text", &shown);
        let _ = write!(page, "\n{}\n", mistake.mend);
    }
    page
}

/// Returns what the API does, as a sentence or with what it sends.
fn api(does: &str) -> String {
    match does.split_once('\n') {
        None if does.is_empty() => "The API is not asked.".to_owned(),
        None => format!("The API {does}."),
        Some((how, sends)) => format!("The API {how}\n\n```http\n{sends}\n```"),
    }
}

fn block(page: &mut String, kind: &str, text: &str) {
    let _ = write!(page, "\n```{kind}\n{}\n```\n", text.trim_end());
}

/// Returns the anchor that Markdown makes of a heading.
pub(crate) fn anchor(title: &str) -> String {
    let title = title.to_lowercase();
    let kept = title
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
