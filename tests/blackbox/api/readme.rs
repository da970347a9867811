//! The API of ten lines in the README.

use tokio::process::Command;

use super::samples::Sample;
use crate::support::program::{Binary, Launch};
use crate::tool::tool;

const README: &str = include_str!("../../../README.md");

/// Has a server of Python's print its address as soon as it listens.
const ANNOUNCED: &str = "\
import socketserver
activate = socketserver.TCPServer.server_activate
def announced(server):
    activate(server)
    print('http://%s:%d' % server.server_address, flush=True)
socketserver.TCPServer.server_activate = announced
";

/// The only block of this language below a heading.
fn block(heading: &str, language: &str) -> &'static str {
    let (_, section) = README.split_once(heading).expect("the section");
    let (section, _) = section.split_once("\n## ").expect("its end");
    let fence = format!("```{language}\n");
    let mut blocks = section.split(&fence).skip(1);
    let (block, _) = blocks
        .next()
        .expect("a block")
        .split_once("```")
        .expect("its end");
    assert!(blocks.next().is_none(), "another block of {language}");
    block
}

#[tokio::test]
async fn the_ten_lines_of_the_readme_are_an_api() {
    let Some(python) = tool("python3", "python3") else {
        return;
    };
    let heading = "\n## Write your own API\n";
    let lines = block(heading, "python");
    assert_eq!(lines.lines().filter(|line| !line.is_empty()).count(), 10);
    let mut command = Command::new(python);
    let script = ANNOUNCED.to_owned() + &lines.replace("8080", "0");
    let api = Sample::listening(command.args(["-c", &script])).await;

    let config = block(heading, "toml").replace("127.0.0.1:8080", &api.address.to_string());
    for (key, status, value) in [
        ("sales@example.org", 0, "jane@example.org,joe@example.org\n"),
        ("nobody@example.org", 1, ""),
    ] {
        let end = Launch::new(Binary::Socketmap)
            .config(config.clone())
            .argument("--query")
            .argument("aliases")
            .argument(key)
            .end()
            .await;
        end.status(status);
        assert_eq!(end.stdout, value, "{end:?}");
    }
}
