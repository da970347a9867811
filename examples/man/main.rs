//! Writes the manual pages: those of the programs from what `--help` and `text` say,
//! postgate.toml(5) from config.toml.example. `cargo run --example man -- FOLDER`.

mod text;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

use postgate::program::usage::{Explained, Usage};
use postgate::protocol;

const EXAMPLE: &str = include_str!("../../config.toml.example");

/// The first part of SEE ALSO.
const PAGES: &str = "postgate\\-tcp\\-lookup(8), postgate\\-socketmap(8), postgate\\-policy(8), \
                     postgate\\-dict(8), postgate\\-sasl(8), postgate.toml(5)";

fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("man: the folder to write to is missing");
        return ExitCode::from(64);
    };
    let mut pages: Vec<_> = protocol::ALL
        .into_iter()
        .map(|program| {
            let name = format!("postgate-{}.8", program.name);
            (name, of_program(&Usage::of(program)))
        })
        .collect();
    pages.push(("postgate.toml.5".to_owned(), of_configuration(EXAMPLE)));
    for (name, page) in pages {
        let path = folder.join(name);
        if let Err(error) = fs::write(&path, page) {
            eprintln!("man: {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn head(name: &str, section: u8, purpose: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let title = plain(&name.to_uppercase());
    let name = plain(name);
    let purpose = plain(purpose);
    format!(
        ".\\\" Made by \"make man\"; not to be edited.\n\
         .TH \"{title}\" {section} \"\" \"postgate {version}\" \"Postgate\"\n\
         .nh\n.ad l\n.SH NAME\n{name} \\- {purpose}\n"
    )
}

fn of_program(usage: &Usage) -> String {
    let name = format!("postgate-{}", usage.program.name);
    let purpose = usage.purpose.replacen("Answers", "answer", 1);
    let mut page = head(&name, 8, &purpose);
    page += ".SH SYNOPSIS\n";
    let config = "[\\fB\\-c\\fR \\fIFILE\\fR]";
    line(&mut page, ".B", &name);
    let _ = writeln!(page, "{config}");
    for option in &usage.options {
        let config = match option.long {
            "--config" => continue,
            "--help" | "--version" => "",
            _ => config,
        };
        page += ".br\n";
        line(&mut page, ".B", &name);
        let _ = writeln!(
            page,
            "{}",
            format!("{} {config}", flag(option, false)).trim_end()
        );
    }
    page += ".SH DESCRIPTION\n";
    let (file, setting) = text::used_by(usage.program);
    paragraph(
        &mut page,
        &format!(
            "{}, on sockets from systemd. A socket unit starts it at the first request. \
             A line of {file} that uses it:",
            usage.purpose
        ),
    );
    verbatim(&mut page, &[setting]);
    paragraph(
        &mut page,
        &format!(
            "{} On a socket named metrics the program serves /metrics, /health, /ready and, at /, a \
             page for people over HTTP. Such a socket alone is not enough: without a socket for \
             requests the program exits with 69.",
            text::promise(usage.program)
        ),
    );
    page += ".SH OPTIONS\n";
    for option in &usage.options {
        let _ = writeln!(page, ".TP\n{}", flag(option, true));
        paragraph(&mut page, &option.text.replace('\n', " "));
    }
    terms(&mut page, "EXIT STATUS", &usage.statuses);
    terms(&mut page, "SIGNALS", &text::SIGNALS);
    terms(&mut page, "ENVIRONMENT", &text::ENVIRONMENT);
    terms(&mut page, "FILES", text::files(usage.program));
    let own = format!("postgate\\-{}(8), ", usage.program.name.replace('-', "\\-"));
    let _ = writeln!(
        page,
        ".SH SEE ALSO\n{}, {}",
        PAGES.replace(&own, ""),
        text::see_also(usage.program)
    );
    page
}

/// Returns an option as a line of roff.
fn flag(option: &Explained, with_short: bool) -> String {
    let mut line = String::new();
    if with_short && !option.short.is_empty() {
        let _ = write!(line, "\\fB{}\\fR, ", plain(option.short));
    }
    let _ = write!(line, "\\fB{}\\fR", plain(option.long));
    if !option.value.is_empty() {
        let _ = write!(line, " \\fI{}\\fR", plain(option.value));
    }
    line
}

fn terms<T: ToString>(page: &mut String, title: &str, terms: &[(T, &str)]) {
    let _ = writeln!(page, ".SH {title}");
    for (term, text) in terms {
        page.push_str(".TP\n");
        line(page, ".B", &term.to_string());
        paragraph(page, text);
    }
}

/// Writes a macro with one argument, which may have blanks.
fn line(page: &mut String, call: &str, argument: &str) {
    let argument = plain(argument).replace('"', "\\(dq");
    let _ = writeln!(page, "{call} \"{argument}\"");
}

fn paragraph(page: &mut String, text: &str) {
    page.push_str(&plain(text));
    page.push('\n');
}

fn verbatim(page: &mut String, lines: &[&str]) {
    page.push_str(".PP\n.RS 4\n.nf\n");
    for line in lines {
        paragraph(page, line);
    }
    page.push_str(".fi\n.RE\n.PP\n");
}

/// Escapes text, so that roff finds neither escapes nor requests in it, and only ASCII.
fn plain(text: &str) -> String {
    let mut escaped = String::new();
    if text.starts_with(['.', '\'']) {
        escaped.push_str("\\&");
    }
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '`' => escaped.push_str("\\(ga"),
            '^' => escaped.push_str("\\(ha"),
            '~' => escaped.push_str("\\(ti"),
            ' '..='~' => escaped.push(character),
            _ => {
                let _ = write!(escaped, "\\[u{:04X}]", u32::from(character));
            }
        }
    }
    escaped
}

/// Makes the page of the example, in its order: comments become text, indented comments and
/// settings stay as they are written, rules and tables become headings.
fn of_configuration(example: &str) -> String {
    let mut page = head("postgate.toml", 5, "the configuration of Postgate");
    page += ".SH SYNOPSIS\n.I /etc/postgate/config.toml\n.SH DESCRIPTION\n";
    let mut lines = example.lines().peekable();
    while let Some(first) = lines.next() {
        match Kind::of(first) {
            Kind::Blank => page += ".PP\n",
            Kind::Rule(title) => {
                let _ = writeln!(page, ".SH \"{}\"", plain(&title.to_uppercase()));
            }
            Kind::Table => line(&mut page, ".SS", first),
            Kind::Text(text) => {
                let mut text = text.to_owned();
                while let Some(Kind::Text(more)) = lines.peek().map(|line| Kind::of(line)) {
                    let _ = write!(text, " {more}");
                    lines.next();
                }
                paragraph(&mut page, &text);
            }
            Kind::AsItIs(text) => {
                let mut block = vec![text];
                while let Some(Kind::AsItIs(more)) = lines.peek().map(|line| Kind::of(line)) {
                    block.push(more);
                    lines.next();
                }
                verbatim(&mut page, &block);
            }
        }
    }
    let _ = writeln!(page, ".SH SEE ALSO\n{PAGES}");
    page
}

/// The kind of a line of the example.
enum Kind<'a> {
    Blank,
    Rule(&'a str),
    Table,
    Text(&'a str),
    AsItIs(&'a str),
}

impl<'a> Kind<'a> {
    fn of(line: &'a str) -> Self {
        let comment = line.strip_prefix('#');
        match (comment, comment.and_then(|text| text.strip_prefix(' '))) {
            _ if matches!(line, "" | "#") => Self::Blank,
            (_, Some(text)) if text.starts_with("----") => {
                Self::Rule(text.trim_matches(['-', ' ']))
            }
            (_, Some(text)) if text.starts_with(' ') => {
                Self::AsItIs(text.strip_prefix("  ").unwrap_or(text))
            }
            (_, Some(text)) => Self::Text(text),
            (None, _) if line.starts_with('[') => Self::Table,
            _ => Self::AsItIs(line),
        }
    }
}
