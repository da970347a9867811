//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use super::exit::Exit;
use crate::protocol::Facts;
use crate::serve::socket::Address;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve these addresses, or the sockets from systemd if there are none.
    Serve(Vec<Address>),
    /// Check the configuration.
    Check,
    /// Print the configuration as it is after inheritance.
    Show,
    /// Send one request.
    Query {
        /// The table.
        name: String,
        /// The key of a lookup.
        key: Option<OsString>,
    },
    /// Print what accounts have used.
    Limits {
        /// The table.
        name: String,
        /// One account; without it those that have used most.
        account: Option<OsString>,
    },
    /// Forget what an account has used.
    Reset {
        /// The table.
        name: String,
        /// The account.
        account: OsString,
    },
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
}

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// What to do.
    pub command: Command,
}

/// The default path of the configuration.
pub const DEFAULT_CONFIG: &str = "/etc/postgate/config.toml";

impl Options {
    /// Parses the arguments of a program, or returns a message about the first mistake.
    pub fn parse(
        program: &'static Facts,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, String> {
        let mut config = None;
        let mut listen = Vec::new();
        let mut commands = Vec::new();
        let mut query = None;
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(text)? {
            match argument {
                Short('c') | Long("config") => {
                    config = Some(PathBuf::from(parser.value().map_err(text)?));
                }
                Long("check") => commands.push(Command::Check),
                Long("show") => commands.push(Command::Show),
                Long("listen") => {
                    let address = parser.value().and_then(ValueExt::string).map_err(text)?;
                    listen.push(Address::parse(&address)?);
                }
                Long("query") => {
                    let name = parser.value().and_then(ValueExt::string).map_err(text)?;
                    let key = if program.key.is_some() {
                        key(&mut parser)
                    } else {
                        None
                    };
                    query = Some((name, key));
                }
                Long("limits") if program.counting.is_some() => {
                    commands.push(Command::limits(&mut parser)?);
                }
                Long("reset") if program.counting.is_some() => {
                    commands.push(Command::reset(&mut parser)?);
                }
                Short('h') | Long("help") => return Ok(Self::at_once(Command::Help)),
                Short('V') | Long("version") => return Ok(Self::at_once(Command::Version)),
                Value(surplus) => return Err(format!("surplus argument {surplus:?}")),
                other => return Err(text(other.unexpected())),
            }
        }
        if let Some((name, key)) = query {
            if program.key.is_some() && key.is_none() {
                return Err("--query needs the name of a table and a key".to_owned());
            }
            commands.push(Command::Query { name, key });
        }
        if !listen.is_empty() {
            commands.push(Command::Serve(listen));
        }
        if commands.len() > 1 {
            return Err(only_one(program));
        }
        Ok(Self {
            config: config.unwrap_or_else(|| DEFAULT_CONFIG.into()),
            command: commands.pop().unwrap_or(Command::Serve(Vec::new())),
        })
    }

    fn at_once(command: Command) -> Self {
        Self {
            config: DEFAULT_CONFIG.into(),
            command,
        }
    }
}

impl Command {
    fn limits(parser: &mut lexopt::Parser) -> Result<Self, String> {
        let name = parser.value().and_then(ValueExt::string).map_err(text)?;
        let account = account(parser);
        Ok(Self::Limits { name, account })
    }

    fn reset(parser: &mut lexopt::Parser) -> Result<Self, String> {
        let name = parser.value().and_then(ValueExt::string).map_err(text)?;
        let account = key(parser).ok_or("--reset needs the name of a table and an account")?;
        Ok(Self::Reset { name, account })
    }
}

/// Returns the message for several commands at once.
fn only_one(program: &'static Facts) -> String {
    let limits = match program.counting {
        Some(_) => " --limits, --reset,",
        None => "",
    };
    format!("only one of --check, --show, --query,{limits} and --listen at a time")
}

/// Takes the key after the name of a table: the next argument, even if it begins with "-", since a
/// sender chooses the key. A "--" before it is skipped.
fn key(parser: &mut lexopt::Parser) -> Option<OsString> {
    let mut arguments = parser.try_raw_args()?;
    arguments.next_if(|argument| argument == "--");
    arguments.next()
}

/// Takes the account after the name of a table, if there is one. Options may follow the name, so an
/// account that begins with "-" needs a "--" before it.
fn account(parser: &mut lexopt::Parser) -> Option<OsString> {
    let mut arguments = parser.try_raw_args()?;
    if arguments.next_if(|argument| argument == "--").is_some() {
        return arguments.next();
    }
    arguments.next_if(|argument| !argument.as_encoded_bytes().starts_with(b"-"))
}

fn text(error: lexopt::Error) -> String {
    error.to_string()
}

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
            purpose: format!("Answers Postfix's {} from an HTTP API", program.serves),
            options: options(program),
            statuses: Exit::ALL
                .map(|(exit, meaning)| (exit as u8, meaning))
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
            &format!("ask {asks},\nand print what Postfix would get"),
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
    use crate::protocol::policy::Policy;
    use crate::protocol::socketmap::Socketmap;
    use crate::protocol::tcp_lookup::TcpLookup;
    use crate::protocol::{self, Protocol as _};

    fn parse(program: &'static Facts, arguments: &[&str]) -> Result<Command, String> {
        let arguments = arguments.iter().map(Into::into);
        Options::parse(program, arguments).map(|options| options.command)
    }

    #[test]
    fn commands_are_understood() {
        let query = |name: &str, key: Option<&str>| Command::Query {
            name: name.to_owned(),
            key: key.map(Into::into),
        };
        let limits = |name: &str, account: Option<&str>| Command::Limits {
            name: name.to_owned(),
            account: account.map(Into::into),
        };
        let reset = |name: &str, account: &str| Command::Reset {
            name: name.to_owned(),
            account: account.into(),
        };
        for (program, arguments, command) in [
            (Policy::FACTS, &["--check"][..], Command::Check),
            (Policy::FACTS, &["--show", "-cx"], Command::Show),
            (Policy::FACTS, &["--query", "a"], query("a", None)),
            (
                Socketmap::FACTS,
                &["--query", "a", "b c"],
                query("a", Some("b c")),
            ),
            (
                Socketmap::FACTS,
                &["--query", "a", "--", "-b"],
                query("a", Some("-b")),
            ),
            (
                TcpLookup::FACTS,
                &["--query", "a", "-x"],
                query("a", Some("-x")),
            ),
            (
                TcpLookup::FACTS,
                &["--query=a", "--check", "-cx"],
                query("a", Some("--check")),
            ),
            (
                Socketmap::FACTS,
                &["--query", "a", "--", "--"],
                query("a", Some("--")),
            ),
            (Policy::FACTS, &["--query", "a", "-cx"], query("a", None)),
            (Policy::FACTS, &["--limits", "a", "-cx"], limits("a", None)),
            (
                Policy::FACTS,
                &["--limits", "a", "b", "-cx"],
                limits("a", Some("b")),
            ),
            (
                Policy::FACTS,
                &["--limits=a", "--", "-cx"],
                limits("a", Some("-cx")),
            ),
            (Policy::FACTS, &["--limits", "a", "--"], limits("a", None)),
            (Policy::FACTS, &["--reset", "a", "-b"], reset("a", "-b")),
            (
                Policy::FACTS,
                &["--reset", "a", "--", "--"],
                reset("a", "--"),
            ),
            (Socketmap::FACTS, &["--check", "--help"], Command::Help),
            (Socketmap::FACTS, &["-V", "--nonsense"], Command::Version),
            (Socketmap::FACTS, &[], Command::Serve(Vec::new())),
        ] {
            assert_eq!(parse(program, arguments), Ok(command), "{arguments:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_arguments_is_said() {
        for (program, arguments, expected) in [
            (Socketmap::FACTS, &["--nonsense"][..], "'--nonsense'"),
            (Socketmap::FACTS, &["x"], "surplus argument \"x\""),
            (
                Socketmap::FACTS,
                &["--check", "x"],
                "surplus argument \"x\"",
            ),
            (
                Socketmap::FACTS,
                &["--query", "a", "b", "c"],
                "surplus argument \"c\"",
            ),
            (
                Policy::FACTS,
                &["--query", "a", "b"],
                "surplus argument \"b\"",
            ),
            (
                Socketmap::FACTS,
                &["--query", "a"],
                "needs the name of a table and a key",
            ),
            (
                Socketmap::FACTS,
                &["--query", "a", "--"],
                "needs the name of a table and a key",
            ),
            (
                Socketmap::FACTS,
                &["--query", "a", "-c", "b", "c"],
                "surplus argument \"b\"",
            ),
            (Socketmap::FACTS, &["--limits", "a"], "'--limits'"),
            (Socketmap::FACTS, &["--reset", "a", "b"], "'--reset'"),
            (
                Policy::FACTS,
                &["--reset", "a"],
                "needs the name of a table and an account",
            ),
            (
                Policy::FACTS,
                &["--limits", "a", "b", "c"],
                "surplus argument \"c\"",
            ),
            (Policy::FACTS, &["--limits"], "missing argument"),
            (Policy::FACTS, &["--limits", "a", "--check"], "--reset, and"),
            (Socketmap::FACTS, &["--config"], "missing argument"),
            (Socketmap::FACTS, &["--check", "--show"], "only one of"),
            (Socketmap::FACTS, &["--listen", "9001"], "is not an address"),
            (Socketmap::FACTS, &["--listen", "a=b"], "is not an address"),
        ] {
            let error = parse(program, arguments).unwrap_err();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn every_option_that_is_explained_is_understood() {
        for program in protocol::ALL {
            for option in Usage::of(program).options {
                let value = match option.long {
                    "--listen" => "[::1]:9001".to_owned(),
                    _ => option.value.to_owned(),
                };
                for name in [option.short, option.long] {
                    let mut arguments: Vec<_> = value.split_whitespace().collect();
                    arguments.insert(0, name);
                    if !name.is_empty() {
                        parse(program, &arguments).expect(name);
                    }
                }
            }
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
