//! The command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use lexopt::prelude::*;

use super::usage::DEFAULT_CONFIG;
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
        /// What is asked for, as the protocol has it: the key of a lookup.
        arguments: Vec<OsString>,
        /// Whether its calls are shown.
        is_verbose: bool,
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
        let mut is_verbose = false;
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
                    query = Some((name, query_arguments(program, &mut parser)?));
                }
                Long("verbose") => is_verbose = true,
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
        if let Some((name, arguments)) = query {
            commands.push(Command::Query {
                name,
                arguments,
                is_verbose,
            });
        } else if is_verbose {
            return Err("--verbose goes with --query".to_owned());
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

/// Takes what stands behind the name of a table. The key is the next argument, even if it begins
/// with "-", since a sender chooses the key; a "--" before it is skipped.
fn query_arguments(program: &Facts, parser: &mut lexopt::Parser) -> Result<Vec<OsString>, String> {
    let names = program.query.0.split(' ').skip(1);
    let (optional, required): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with('['));
    let mut taken = Vec::new();
    if required.is_empty() {
        return Ok(taken);
    }
    if let Some(mut arguments) = parser.try_raw_args() {
        arguments.next_if(|argument| argument == "--");
        taken.extend(arguments.by_ref().take(required.len()));
        for _ in optional {
            let is_option = |argument: &OsStr| argument.as_encoded_bytes().starts_with(b"-");
            taken.extend(arguments.next_if(|argument| !is_option(argument)));
        }
    }
    if taken.len() < required.len() {
        return Err("--query needs the name of a table and a key".to_owned());
    }
    Ok(taken)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::usage::Usage;
    use crate::protocol::dict::Dict;
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
        let query = |name: &str, arguments: &[&str]| Command::Query {
            is_verbose: false,
            name: name.to_owned(),
            arguments: arguments.iter().map(Into::into).collect(),
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
            (Policy::FACTS, &["--query", "a"], query("a", &[])),
            (
                Socketmap::FACTS,
                &["--query", "a", "b c"],
                query("a", &["b c"]),
            ),
            (
                Socketmap::FACTS,
                &["--query", "a", "--", "-b"],
                query("a", &["-b"]),
            ),
            (
                TcpLookup::FACTS,
                &["--query", "a", "-x"],
                query("a", &["-x"]),
            ),
            (
                TcpLookup::FACTS,
                &["--query=a", "--check", "-cx"],
                query("a", &["--check"]),
            ),
            (
                Socketmap::FACTS,
                &["--query", "a", "--", "--"],
                query("a", &["--"]),
            ),
            (Policy::FACTS, &["--query", "a", "-cx"], query("a", &[])),
            (Dict::FACTS, &["--query", "a", "b"], query("a", &["b"])),
            (
                Dict::FACTS,
                &["--query", "a", "b", "c"],
                query("a", &["b", "c"]),
            ),
            (
                Dict::FACTS,
                &["--query", "a", "-b", "-cx"],
                query("a", &["-b"]),
            ),
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
            (
                Dict::FACTS,
                &["--query", "a"],
                "needs the name of a table and a key",
            ),
            (
                Dict::FACTS,
                &["--query", "a", "b", "c", "d"],
                "surplus argument \"d\"",
            ),
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
                    if name == "--verbose" {
                        let query = program.query.0.split_whitespace();
                        arguments.extend(["--query"].into_iter().chain(query));
                    }
                    if !name.is_empty() {
                        parse(program, &arguments).expect(name);
                    }
                }
            }
        }
    }
}
