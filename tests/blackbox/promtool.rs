//! What Prometheus's own promtool says of the pages, the alert rules and the dashboard.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::client::rcpt;
use crate::metrics::page;
use crate::support::{
    Directory,
    backend::{Backend, good, status},
    peer::question,
    program::{ALL, Binary, Launch},
};
use crate::tool::tool;

const MONITORING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring");

const LIMITS: &str = r#"
[store]
path = "/nowhere/limits.sqlite"
[[policy.counted.limits]]
name = "login"
by = "{sasl_username}"
rates = { "1h" = 1 }
"#;

/// What promtool says of this input.
fn ask(promtool: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(promtool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut stdin = child.stdin.take().expect("standard input");
    // One that does not read its input has ended before all of it is written.
    drop(stdin.write_all(input.as_bytes()));
    drop(stdin);
    child.wait_with_output().expect("its end")
}

/// Demands that promtool has no complaint.
#[track_caller]
fn passes(promtool: &Path, arguments: &[&str], input: &str) {
    let output = ask(promtool, arguments, input);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{arguments:?}: {said}\n{input}");
    // A hint does not change the exit status.
    let is_quiet = said.is_empty() || said.contains("SUCCESS");
    assert!(is_quiet, "{arguments:?}: {said}\n{input}");
}

#[tokio::test]
async fn promtool_accepts_the_page_of_every_program() {
    let Some(promtool) = tool("promtool", "prometheus") else {
        return;
    };
    for binary in ALL {
        let backend = Backend::in_turn([good(binary, "DUNNO"), status(404), status(503)]);
        let keys = match binary {
            Binary::Policy => "cache = { by = [\"recipient\"] }",
            Binary::TcpLookup | Binary::Socketmap => "cache = {}",
        };
        let (limits, other) = match binary {
            Binary::Policy => (LIMITS, "counted"),
            Binary::TcpLookup | Binary::Socketmap => ("", "t"),
        };
        // The other table's name is escaped in a label.
        let config = format!(
            "[{name}.t]\ntarget = \"{url}\"\n{keys}\nbreaker = {{ failures = 2 }}\n\
             [{name}.'a\"b\\c']\ntarget = [\"{url}one\", \"{url}two\"]\n",
            name = binary.name(),
            url = backend.url("/")
        );
        let program = Launch::new(binary)
            .config(config + limits)
            .tcp4("t")
            .tcp4("metrics")
            .tcp4(other)
            .ready()
            .await;
        passes(
            &promtool,
            &["check", "metrics"],
            &page(&program, "/metrics").await.1,
        );
        let mut peer = program.peer().await;
        for key in ["a", "a", "b", "c", "d", "e"] {
            peer.ask(question(binary, "t", key)).await;
        }
        if binary == Binary::Policy {
            let mut peer = program.peer_at(2).await;
            for instance in ["1", "2"] {
                peer.ask(rcpt(&[("instance", instance)])).await;
            }
        }
        program.signal(Signal::HUP);
        program.notified("READY=1", 2).await;
        let (_, page) = page(&program, "/metrics").await;
        assert!(page.contains("outcome=\"temporary\""), "{page}");
        let exceeded = "result=\"exceeded\"";
        assert_eq!(page.contains(exceeded), binary == Binary::Policy, "{page}");
        passes(&promtool, &["check", "metrics"], &page);
        let unhelpful = page.replace("# HELP", "# NOTE");
        assert!(
            !ask(&promtool, &["check", "metrics"], &unhelpful)
                .status
                .success()
        );
    }
}

/// Every value of `expr` in a document, and of a variable's `query`.
fn expressions(document: &Value, found: &mut Vec<String>) {
    match document {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "expr" => found.push(text.clone()),
                    value => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn promtool_accepts_the_rules_and_what_the_dashboard_asks() {
    let Some(promtool) = tool("promtool", "prometheus") else {
        return;
    };
    let alerts = format!("{MONITORING}/alerts.yml");
    passes(&promtool, &["check", "rules", &alerts], "");

    let dashboard = fs::read_to_string(format!("{MONITORING}/dashboard.json")).expect("a file");
    let mut found = Vec::new();
    expressions(&serde_json::from_str(&dashboard).expect("JSON"), &mut found);
    assert!(found.len() > 10, "only {found:?}");
    let folder = Directory::new();
    let check = |expressions: &[String]| {
        let mut rules = "groups: [{name: panels, rules: [".to_owned();
        for (number, expression) in expressions.iter().enumerate() {
            let plain = expression
                .replace("$__rate_interval", "5m")
                .replace("$program", "policy");
            let quoted = Value::from(plain);
            rules += &format!("{{record: panel{number}, expr: {quoted}}},\n");
        }
        rules += "]}]";
        let path = folder.join("panels.yml");
        fs::write(&path, &rules).expect("a written file");
        let path = path.to_str().expect("UTF-8");
        ask(&promtool, &["check", "rules", path], "")
    };
    let output = check(&found);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    found.push("rate(postgate_requests_total)".to_owned());
    assert!(!check(&found).status.success());
}
