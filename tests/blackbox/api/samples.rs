//! The sample APIs of `examples`, each started as its first lines say.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::support::{Seen, soon};
use crate::tool::tool;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

#[derive(Clone, Copy, Debug)]
pub(super) enum Language {
    Rust,
    Python,
    Php,
}

/// A running API. It ends with its handle.
pub(super) struct Sample {
    pub(super) address: SocketAddr,
    _child: Child,
}

impl Sample {
    /// Starts the API in this language, unless its interpreter is missing.
    pub(super) async fn start(language: Language) -> Option<Self> {
        let mut command = match language {
            Language::Rust => {
                let mut command = Command::new(env!("CARGO"));
                // Does nothing where `cargo test` has built it.
                command.args(["run", "--quiet", "--locked", "--example", "directory", "--"]);
                command.args(["--listen", "127.0.0.1:0"]);
                command
            }
            Language::Python => {
                let mut command = Command::new(tool("python3", "python3")?);
                command.arg(format!("{EXAMPLES}/directory.py"));
                command.args(["--listen", "127.0.0.1:0"]);
                command
            }
            Language::Php => php(Path::new(&format!("{EXAMPLES}/directory.php")))?,
        };
        Some(Self::listening(&mut command).await)
    }

    /// Starts a server that prints where it listens.
    pub(super) async fn listening(command: &mut Command) -> Self {
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let lines = Seen::new();
        keep(child.stdout.take().expect("a pipe"), lines.clone());
        keep(child.stderr.take().expect("a pipe"), lines.clone());
        let find = |lines: &[String]| lines.iter().find_map(|line| address(line));
        let address = tokio::select! {
            lines = lines.until("its address", |lines| find(lines).is_some()) => find(&lines),
            status = soon("its end", child.wait()) => panic!("{status:?}: {:?}", lines.all()),
        };
        Self {
            address: address.expect("an address"),
            _child: child,
        }
    }
}

/// PHP's own server with this page, on any port.
pub(super) fn php(page: &Path) -> Option<Command> {
    let mut command = Command::new(tool("php", "php-cli")?);
    command.args(["-S", "127.0.0.1:0"]).arg(page);
    Some(command)
}

fn address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    rest.trim_end_matches([')', ' '])
        .split([')', ' '])
        .next()?
        .parse()
        .ok()
}

fn keep(stream: impl AsyncRead + Send + Unpin + 'static, lines: Seen<String>) {
    tokio::spawn(async move {
        let mut stream = BufReader::new(stream).lines();
        while let Ok(Some(line)) = stream.next_line().await {
            lines.push(line);
        }
    });
}
