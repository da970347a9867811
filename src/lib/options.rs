//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::program::Program;
use crate::socket::Address;

/// What a program is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve; on these addresses, or on systemd's sockets if there are none.
    Serve(Vec<Address>),
    /// Look at the configuration.
    Check,
    /// Print the configuration as it is after inheritance.
    Show,
    /// Ask one question.
    Query {
        /// The table.
        name: String,
        /// The key of a lookup.
        key: Option<OsString>,
    },
    /// Print how to use the program.
    Help,
    /// Print the version.
    Version,
}

/// The command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// What to do.
    pub command: Command,
}

/// Where the configuration is, unless an option says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/postgate/config.toml";

impl Options {
    /// Reads the arguments of a program. Fails with what is wrong with them.
    pub fn parse(
        program: Program,
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
                    query = Some((name, None));
                }
                Short('h') | Long("help") => return Ok(Self::at_once(Command::Help)),
                Short('V') | Long("version") => return Ok(Self::at_once(Command::Version)),
                Value(key) => match &mut query {
                    Some((_, slot @ None)) if program.is_lookup() => *slot = Some(key),
                    _ => return Err(format!("surplus argument {key:?}")),
                },
                other => return Err(text(other.unexpected())),
            }
        }
        if let Some((name, key)) = query {
            if program.is_lookup() && key.is_none() {
                return Err("--query needs the name of a table and a key".to_owned());
            }
            commands.push(Command::Query { name, key });
        }
        if !listen.is_empty() {
            commands.push(Command::Serve(listen));
        }
        if commands.len() > 1 {
            return Err("only one of --check, --show, --query and --listen at a time".to_owned());
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

fn text(error: lexopt::Error) -> String {
    error.to_string()
}

/// Says how to use a program.
pub fn help(program: Program) -> String {
    let name = program.name();
    let (serves, query, asks) = match program {
        Program::TcpLookup => (
            "tcp_table(5) lookups",
            "NAME KEY",
            "the value of KEY in table NAME",
        ),
        Program::Socketmap => (
            "socketmap_table(5) lookups",
            "NAME KEY",
            "the value of KEY in map NAME",
        ),
        Program::Policy => (
            "policy delegation (SMTPD_POLICY_README)",
            "NAME",
            "table NAME, with name=value lines from standard input",
        ),
    };
    format!(
        "Usage: {name} [OPTIONS]\n\
         \n\
         Answers Postfix's {serves} from an HTTP API, on sockets from systemd.\n\
         \n\
         Options:\n\
         \x20 -c, --config FILE         the configuration [{DEFAULT_CONFIG}]\n\
         \x20     --check               read the whole configuration, print every problem or \"ok\"\n\
         \x20     --show                print every table as it is after inheritance, secrets hidden\n\
         \x20     --listen [NAME=]ADDR  without systemd: listen on 127.0.0.1:9001, [::1]:9001 or\n\
         \x20                           /path/to.sock; can be given several times\n\
         \x20     --query {query:<13} ask {asks},\n\
         \x20                           and print what Postfix would get\n\
         \x20 -h, --help                print this\n\
         \x20 -V, --version             print the version\n\
         \n\
         Exit status: 0 done, 64 wrong usage, 69 no usable socket, 70 a fault of the program,\n\
         78 configuration; of --query 0 found, 1 not found, 75 temporary failure, 76 permanent failure.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(program: Program, arguments: &[&str]) -> Result<Command, String> {
        let arguments = arguments.iter().map(Into::into);
        Options::parse(program, arguments).map(|options| options.command)
    }

    #[test]
    fn commands_are_understood() {
        let query = |name: &str, key: Option<&str>| Command::Query {
            name: name.to_owned(),
            key: key.map(Into::into),
        };
        for (program, arguments, command) in [
            (Program::Policy, &["--check"][..], Command::Check),
            (Program::Policy, &["--show", "-cx"], Command::Show),
            (Program::Policy, &["--query", "a"], query("a", None)),
            (
                Program::Socketmap,
                &["--query", "a", "b c"],
                query("a", Some("b c")),
            ),
            (
                Program::Socketmap,
                &["--query", "a", "--", "-b"],
                query("a", Some("-b")),
            ),
            (Program::Socketmap, &["--check", "--help"], Command::Help),
            (Program::Socketmap, &["-V", "--nonsense"], Command::Version),
            (Program::Socketmap, &[], Command::Serve(Vec::new())),
        ] {
            assert_eq!(parse(program, arguments), Ok(command), "{arguments:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_arguments_is_said() {
        for (program, arguments, expected) in [
            (Program::Socketmap, &["--nonsense"][..], "'--nonsense'"),
            (Program::Socketmap, &["x"], "surplus argument \"x\""),
            (
                Program::Socketmap,
                &["--check", "x"],
                "surplus argument \"x\"",
            ),
            (
                Program::Socketmap,
                &["--query", "a", "b", "c"],
                "surplus argument \"c\"",
            ),
            (
                Program::Policy,
                &["--query", "a", "b"],
                "surplus argument \"b\"",
            ),
            (
                Program::Socketmap,
                &["--query", "a"],
                "needs the name of a table and a key",
            ),
            (Program::Socketmap, &["--config"], "missing argument"),
            (Program::Socketmap, &["--check", "--show"], "only one of"),
            (Program::Socketmap, &["--listen", "9001"], "is no address"),
            (Program::Socketmap, &["--listen", "a=b"], "is no address"),
        ] {
            let error = parse(program, arguments).unwrap_err();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }
}
