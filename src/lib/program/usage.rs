//! How a program is used: the text of `--help`, and what the manual pages are made of.

use super::exit::Exit;
use crate::protocol::Facts;

/// The default path of the configuration.
pub const DEFAULT_CONFIG: &str = "/etc/postgate/config.toml";

/// The content of `--help`, which the manual page shares.
#[derive(Clone, Debug)]
pub struct Usage {
    /// The program.
    pub program: &'static Facts,
    /// Its purpose, as a sentence without its subject.
    pub purpose: String,
    /// Its options.
    pub options: Vec<Explained>,
    /// Its exit statuses, each with its meaning.
    pub statuses: Vec<(u8, &'static str)>,
}

/// One option.
#[derive(Clone, Debug)]
pub struct Explained {
    /// `-c`, or empty.
    pub short: &'static str,
    /// `--config`.
    pub long: &'static str,
    /// The name of its value, or empty.
    pub value: &'static str,
    /// Its effect, in lines that fit into a terminal.
    pub text: String,
}

impl Usage {
    /// Returns the usage of a program.
    pub fn of(program: &'static Facts) -> Self {
        Self {
            program,
            purpose: format!(
                "Answers {}'s {} from an HTTP API",
                program.client, program.serves
            ),
            options: options(program),
            statuses: Exit::ALL
                .map(|exit| (exit as u8, exit.meaning(program)))
                .to_vec(),
        }
    }
}

fn options(program: &'static Facts) -> Vec<Explained> {
    let (query, asks) = program.query;
    let mut options = vec![
        option(
            "-c",
            "--config",
            "FILE",
            &format!("the configuration [{DEFAULT_CONFIG}]"),
        ),
        option(
            "",
            "--check",
            "",
            "read the whole configuration, print every problem or \"ok\"",
        ),
        option(
            "",
            "--show",
            "",
            "print every table as it is after inheritance, secrets hidden",
        ),
        option(
            "",
            "--listen",
            "[NAME=]ADDR",
            "without systemd: listen on 127.0.0.1:9001, [::1]:9001 or\n\
             /path/to.sock; can be given several times",
        ),
        option(
            "",
            "--query",
            query,
            &format!("ask {asks},\nand print what {} would get", program.client),
        ),
        option(
            "",
            "--verbose",
            "",
            "with --query: print on stderr the HTTP calls, their answers and\n\
             how they were judged, secrets hidden",
        ),
    ];
    if program.counting.is_some() {
        options.extend(options_of_limits());
    }
    options.extend([
        option("-h", "--help", "", "print this help"),
        option("-V", "--version", "", "print the version"),
    ]);
    options
}

fn options_of_limits() -> [Explained; 2] {
    [
        option(
            "",
            "--limits",
            "NAME [ACCOUNT]",
            "print what ACCOUNT has used of the limits of table NAME, or\n\
             what those have used that have used most of their limits;\n\
             write -- before an account that begins with -",
        ),
        option(
            "",
            "--reset",
            "NAME ACCOUNT",
            "forget what ACCOUNT has used of the limits of table NAME",
        ),
    ]
}

fn option(short: &'static str, long: &'static str, value: &'static str, text: &str) -> Explained {
    Explained {
        short,
        long,
        value,
        text: text.to_owned(),
    }
}

/// Returns the text of `--help`.
pub fn help(program: &'static Facts) -> String {
    /// The column of the explanations.
    const WIDTH: usize = 31;
    let usage = Usage::of(program);
    let mut text = format!(
        "Usage: {} [OPTIONS]\n\n{}, on sockets from systemd.\n\nOptions:\n",
        program.name, usage.purpose
    );
    for option in usage.options {
        let comma = if option.short.is_empty() { ' ' } else { ',' };
        let head = format!(
            "{:>4}{comma} {} {}",
            option.short, option.long, option.value
        );
        let explained = option.text.replace('\n', &format!("\n{:WIDTH$}", ""));
        text += &format!("{head:<WIDTH$}{explained}\n");
    }
    text += "\nExit status:\n";
    for (status, meaning) in usage.statuses {
        text += &format!("{status:>4}  {meaning}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol;

    #[test]
    fn statuses_have_the_words_of_their_program() {
        for program in protocol::ALL {
            let help = help(program);
            assert_eq!(help.contains("--query: accepted"), program.has_logins());
            assert_eq!(help.contains("--query: found"), !program.has_logins());
            let has_limits = help.matches("--limits").count() > 1;
            assert_eq!(has_limits, program.counting.is_some(), "{help}");
            assert_eq!(
                help.contains("--limits"),
                program.counting.is_some(),
                "{help}"
            );
        }
    }

    #[test]
    fn help_fits_a_terminal() {
        for program in protocol::ALL {
            let help = help(program);
            assert!(help.lines().all(|line| line.len() <= 100), "{help}");
        }
    }
}
