//! The command line of dict, its sockets and its reloads.

use super::{hello, serve, table, talk};
use crate::support::{
    backend::{Backend, json, status},
    program::Launch,
};

#[tokio::test]
async fn a_query_asks_as_dovecot_does() {
    let backend = Backend::new(|request| match &request.target {
        target if target.contains("none") => status(404),
        target if target.contains("down") => status(503),
        target if target.contains("empty") => json("\"\""),
        target => json(format!("{{\"asked\": \"{target}\"}}")),
    });
    let config = table(&backend.url("/d{/path*}{/user}"), "");
    for (arguments, code, stdout, stderr) in [
        (
            &["t", "shared/passdb/joe"][..],
            0,
            "{\"asked\": \"/d/passdb/joe\"}\n",
            "",
        ),
        (
            &["t", "priv/a", "joe"],
            0,
            "{\"asked\": \"/d/a/joe\"}\n",
            "",
        ),
        (&["t", "shared/a", "joe"], 0, "{\"asked\": \"/d/a\"}\n", ""),
        (&["t", "shared/empty"], 0, "\n", ""),
        (
            &["t", "shared/none"],
            1,
            "",
            "dict: GET URL/d/none answered 404 (no Content-Type)\n",
        ),
        (&["t", "shared/a/../b"], 1, "", ""),
        (
            &["t", "shared/down"],
            75,
            "",
            "dict: backend answered 503\n\
             dict: GET URL/d/down answered 503 (no Content-Type)\n",
        ),
        (
            &["t", "priv/a"],
            76,
            "",
            "dict: key cannot be sent: the key needs a user, and the request has none\n",
        ),
        (&["other", "shared/a"], 76, "", "dict: unknown dict\n"),
        (
            &["t", "passdb/joe"],
            64,
            "",
            "dict: the key must begin with \"shared/\" or \"priv/\"\n",
        ),
        (
            &["t"],
            64,
            "",
            "dict: --query needs the name of a table and a key; see dict --help\n",
        ),
        (
            &["t", "shared/a", "b", "c"],
            64,
            "",
            "dict: surplus argument \"c\"; see dict --help\n",
        ),
    ] {
        let launch = Launch::dict().config(config.clone()).argument("--query");
        let launch = arguments
            .iter()
            .fold(launch, |launch, argument| launch.argument(*argument));
        let end = launch.end().await;
        let stderr = stderr.replace("URL", &backend.url(""));
        assert_eq!(
            (end.status, end.stdout.as_str(), end.stderr.as_str()),
            (Some(code), stdout, stderr.as_str()),
            "{arguments:?}"
        );
    }
}

#[tokio::test]
async fn its_usage_names_dovecot() {
    let end = Launch::dict().argument("--help").end().await;
    end.status(0);
    assert!(
        end.stdout
            .starts_with("Usage: dict [OPTIONS]\n\nAnswers Dovecot's dicts from an HTTP API"),
        "{end:#?}"
    );
    assert!(end.stdout.contains("--query NAME KEY [USER]"), "{end:#?}");
    assert!(
        end.stdout.contains("print what Dovecot would get"),
        "{end:#?}"
    );
    let end = Launch::dict().argument("--version").end().await;
    assert_eq!(
        end.stdout,
        format!("dict (postgate) {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test]
async fn it_needs_a_table_of_its_own_and_a_socket() {
    let other = "[socketmap.t]\ntarget = \"http://127.0.0.1:9/\"\n";
    let end = Launch::dict().config(other).unix("dict").end().await;
    end.status(78)
        .says("has no table for this program; write one, [dict.NAME]");
    let end = Launch::dict()
        .config(table("http://127.0.0.1:9/", ""))
        .end()
        .await;
    end.status(69).says("no socket from systemd");
    let end = Launch::dict()
        .config(table("http://127.0.0.1:9/", ""))
        .argument("--check")
        .end()
        .await;
    end.status(0);
    assert_eq!(end.stdout, "ok\n");
}

#[tokio::test]
async fn any_socket_serves_every_dict() {
    let backend = Backend::always(json("\"v\""));
    let config = format!(
        "{}[dict.other]\ntarget = \"{}\"\n",
        table(&backend.url("/"), ""),
        backend.url("/o")
    );
    let program = Launch::dict()
        .config(config)
        .unix("dict")
        .unix("quota")
        .tcp4("x")
        .ready()
        .await;
    for number in 0..3 {
        for name in ["t", "other"] {
            let mut peer = program.peer_at(number).await;
            talk(
                &mut peer,
                &format!("H3\t2\t0\t\t{name}\nLshared/k\t\n"),
                "Ov\n",
            )
            .await;
        }
    }
}

#[tokio::test]
async fn a_reload_takes_effect_on_open_connections_and_on_open_transactions() {
    let backend = Backend::new(|request| match request.method.as_str() {
        "GET" => json(format!(
            "\"{}\"",
            request.target.split('?').next().expect("a path")
        )),
        _ => status(200),
    });
    let program = serve(table(&backend.url("/old"), "")).await;
    let mut peer = hello(&program).await;
    talk(&mut peer, "Lshared/k\t\nB1\t\nS1\tshared/k\tv\n", "O/old\n").await;
    let keys = format!(
        "set = {{ target = \"{}\", body = \"{{value}}\" }}",
        backend.url("/set{/path*}")
    );
    program.rewrite(&table(&backend.url("/new"), &keys));
    program.signal(rustix::process::Signal::HUP);
    program.logged("reload: done").await;
    talk(&mut peer, "Lshared/k\t\nC1\n", "O/new\nO1\n").await;
    program.rewrite("[dict.t");
    program.signal(rustix::process::Signal::HUP);
    program.logged("reload: refused").await;
    talk(&mut peer, "Lshared/k\t\n", "O/new\n").await;
}
