//! `--limits`, `--reset` and `--query`, beside the running service.

use rustix::process::Signal;

use super::{ON_EXCEEDED, PASSED, data, dialog, limit, request, serve, with_store};
use crate::client::rcpt;
use crate::support::{
    backend::{Backend, json},
    program::{Binary, End, LOOKUPS, Launch, Program},
};

/// A command with the configuration of a running program.
fn command(program: &Program, tables: &str, arguments: &[&str]) -> Launch {
    let folder = program.config_path().with_file_name("");
    let launch = Launch::new(Binary::Policy).config(with_store(&folder, 0, tables));
    let arguments = arguments.iter();
    arguments.fold(launch, |launch, argument| launch.argument(*argument))
}

/// Runs a command that succeeds, and returns what it prints.
async fn printed(program: &Program, tables: &str, arguments: &[&str]) -> String {
    let end = command(program, tables, arguments).end().await;
    end.status(0);
    assert_eq!(end.stderr, "", "{end:#?}");
    end.stdout
}

/// The cells of each line.
fn cells(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines();
    lines
        .map(|line| line.split_whitespace().collect())
        .collect()
}

/// Demands minutes as the last cell of a line, and takes them off.
fn take_minutes<'t>(line: &mut Vec<&'t str>) -> &'t str {
    let free_again = line.pop().expect("a time");
    let minutes = free_again.strip_suffix('m').expect(free_again);
    assert!(
        (58..=61).contains(&minutes.parse().expect("a number")),
        "{free_again}"
    );
    free_again
}

#[tokio::test]
async fn limits_prints_who_has_used_how_much_of_which_limit() {
    let backend = Backend::always(json("{\"a\": 0}"));
    let tables = format!("[policy.t]\ntarget = \"{}\"\n", backend.url("/"))
        + &limit(
            "login",
            "rates = { \"1h\" = 4, \"1d\" = 100 }\ndelimiter = \"+\"",
        )
        + &limit(
            "asked",
            "by = \"{sender}\"\nrates = { \"1h\" = \"/a\" }\nfallback = { \"1h\" = 9 }",
        );
    let (program, mut peer) = serve(&tables).await;
    let from = |instance: &str, login: &str, count: &str| {
        let more = [("recipient_count", count), ("sender", "S@a.test")];
        request("DATA", instance, login, &more)
    };
    let rows = [
        (from("1", "Joe+x@a.test", "4"), PASSED),
        (from("2", "-jim", "1"), PASSED),
        (from("3", "joe@a.test", "1"), "REJECT login: 4 of 4 in 1h"),
    ];
    dialog(&mut peer, rows).await;

    let text = printed(&program, &tables, &["--limits", "t"]).await;
    let mut lines = cells(&text);
    assert_eq!(
        lines.remove(0),
        ["limit", "account", "window", "used", "of", "free", "again"]
    );
    take_minutes(&mut lines[0]);
    assert_eq!(
        lines,
        [
            vec!["login", "joe@a.test", "1h", "4", "4"],
            vec!["login", "joe@a.test", "1d", "4", "100", "now"],
            vec!["login", "-jim", "1h", "1", "4", "now"],
            vec!["login", "-jim", "1d", "1", "100", "now"],
            vec!["asked", "s@a.test", "1h", "5", "-", "now"],
        ]
    );
    let of = async |arguments: &[&str]| printed(&program, &tables, arguments).await;
    let text = of(&["--limits", "t", "JOE+other@A.test"]).await;
    let mut lines = cells(&text);
    take_minutes(&mut lines[1]);
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1], ["login", "joe@a.test", "1h", "4", "4"]);
    let text = of(&["--limits", "t", "--", "-jim"]).await;
    assert_eq!(cells(&text)[1], ["login", "-jim", "1h", "1", "4", "now"]);
    let text = of(&["--limits", "t", "nobody"]).await;
    assert_eq!(text, "policy.t: nobody has used nothing\n");
}

#[tokio::test]
async fn limits_lists_those_that_have_used_most() {
    let tables = limit("login", "rates = { \"1h\" = 100 }");
    let (program, mut peer) = serve(&tables).await;
    for number in 1..=23 {
        let (login, count) = (format!("joe-{number}"), number.to_string());
        dialog(&mut peer, [(data(&login, &login, &count), PASSED)]).await;
    }
    let text = printed(&program, &tables, &["--limits", "t"]).await;
    let lines = cells(&text);
    assert_eq!(lines.len(), 22, "{text}");
    assert_eq!(lines[1], ["login", "joe-23", "1h", "23", "100", "now"]);
    assert_eq!(lines[20], ["login", "joe-4", "1h", "4", "100", "now"]);
    assert_eq!(lines[21], ["and", "3", "accounts", "more"]);
}

#[tokio::test]
async fn reset_forgets_an_account_at_once() {
    let tables = limit("login", "rates = { \"1h\" = 2 }\ndelimiter = \"+\"")
        + &limit("exact", "rates = { \"1d\" = 2 }")
        + "[policy.other]\n[[policy.other.limits]]\nname = \"a\"\nby = \"{sasl_username}\"\n\
           rates = { \"1h\" = 1 }\n"
        + ON_EXCEEDED;
    let (program, mut peer) = serve(&tables).await;
    let full = "REJECT login: 2 of 2 in 1h";
    let rows = [
        (data("1", "joe+x@a.test", "2"), PASSED),
        (data("2", "jim@a.test", "2"), PASSED),
        (data("3", "joe+x@a.test", "1"), full),
    ];
    dialog(&mut peer, rows).await;
    let reset = ["--reset", "t", "Joe+x@A.test"];
    assert_eq!(
        printed(&program, &tables, &reset).await,
        "policy.t: forgotten what joe+x@a.test has used of 1 limit\n\
         policy.t: forgotten what joe@a.test has used of 1 limit\n"
    );
    let rows = [
        (data("4", "joe+x@a.test", "2"), PASSED),
        (data("5", "joe+x@a.test", "1"), full),
        (data("6", "jim@a.test", "1"), full),
    ];
    dialog(&mut peer, rows).await;
    assert_eq!(
        printed(&program, &tables, &["--reset", "t", "-nobody"]).await,
        "policy.t: -nobody has used nothing\n"
    );
    assert_eq!(
        printed(&program, &tables, &["--limits", "other"]).await,
        "policy.other: no account has used anything\n"
    );
}

#[tokio::test]
async fn a_wrong_command_says_what_is_wrong() {
    let tables = limit("login", "rates = { \"1h\" = 2 }")
        + "[policy.asks]\ntarget = \"http://127.0.0.1:1/\"\n";
    let (program, _peer) = serve(&tables).await;
    for (arguments, exit, said) in [
        (&["--limits", "u"][..], 64, "there is no table policy.u"),
        (&["--reset", "u", "joe"], 64, "there is no table policy.u"),
        (&["--limits", "asks"], 64, "policy.asks has no limits"),
        (&["--reset", "asks", "joe"], 64, "policy.asks has no limits"),
        (
            &["--reset", "t"],
            64,
            "--reset needs the name of a table and an account",
        ),
        (&["--limits", "t", "a", "b"], 64, "surplus argument"),
    ] {
        let end = command(&program, &tables, arguments).end().await;
        end.status(exit).says(said);
        assert_eq!(end.stdout, "", "{arguments:?}");
    }
    for binary in LOOKUPS {
        for arguments in [&["--limits", "t"][..], &["--reset", "t", "a"]] {
            let launch = Launch::new(binary).config(tables.as_str());
            let add = |launch: Launch, argument: &&str| launch.argument(*argument);
            let end = arguments.iter().fold(launch, add).end().await;
            end.status(64).says("invalid option");
        }
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_said_without_its_secret() {
    let table = limit("login", "rates = { \"1h\" = 2 }");
    let redis = format!("[store]\nredis = \"redis://:s3cret@127.0.0.1:1/0\"\n{table}");
    let file = format!("[store]\npath = \"/nowhere/limits.sqlite\"\n{table}");
    for (config, said) in [
        (&file, "store: /nowhere/limits.sqlite: "),
        (&redis, "store: "),
    ] {
        for arguments in [
            &["--limits", "t"][..],
            &["--limits", "t", "a"],
            &["--reset", "t", "a"],
        ] {
            let launch = Launch::new(Binary::Policy).config(config.as_str());
            let add = |launch: Launch, argument: &&str| launch.argument(*argument);
            let end = arguments.iter().fold(launch, add).end().await;
            end.status(75).says(said);
            assert_eq!(end.stdout, "");
            assert!(!end.stderr.contains("s3cret"), "{end:#?}");
        }
    }
}

/// Root types these commands outside the unit that has the credentials.
#[tokio::test]
async fn only_the_secret_of_the_store_has_to_be_there() {
    let backend = Backend::always(json("{\"a\": 5}"));
    let asking = |token: &str| {
        format!("[policy.t]\ntarget = \"{}\"\n{token}", backend.url("/"))
            + &limit(
                "asked",
                "rates = { \"1h\" = \"/a\" }\nfallback = { \"1h\" = 9 }",
            )
    };
    let (program, mut peer) = serve(&asking("")).await;
    dialog(&mut peer, [(data("1", "joe", "3"), PASSED)]).await;
    let tables = asking("auth-token = { credential = \"api-token\" }\n");
    let text = printed(&program, &tables, &["--limits", "t"]).await;
    assert_eq!(cells(&text)[1], ["asked", "joe", "1h", "3", "5", "now"]);
    let tables = "[store]\nredis = { file = \"/nowhere/at/all\" }\n".to_owned() + &tables;
    let launch = Launch::new(Binary::Policy).config(tables);
    let end = launch.argument("--limits").argument("t").end().await;
    end.status(78)
        .says("store.redis: file \"/nowhere/at/all\" cannot be read");
    assert!(!end.stderr.contains("api-token"), "{end:#?}");
}

async fn query(program: &Program, tables: &str, input: &[u8]) -> End {
    let launch = command(program, tables, &["--query", "t"]);
    launch.end_after(input).await
}

#[tokio::test]
async fn a_query_says_what_postfix_would_get_and_charges_nothing() {
    let tables = limit("login", "rates = { \"1h\" = 3 }\nrefused = true");
    let (program, mut peer) = serve(&tables).await;
    dialog(&mut peer, [(data("1", "joe", "1"), PASSED)]).await;
    for (count, expected) in [
        ("2", PASSED),
        ("3", "REJECT login: 1 of 3 in 1h"),
        ("2", PASSED),
    ] {
        let end = query(&program, &tables, &data("2", "joe", count)).await;
        end.status(0);
        assert_eq!(
            (end.stdout, end.stderr),
            (format!("{expected}\n"), String::new())
        );
    }
    // Not even the message is known afterwards.
    dialog(&mut peer, [(data("2", "joe", "2"), PASSED)]).await;
    assert_eq!(program.lines("has reached"), 0);
    let end = query(&program, &tables, &rcpt(&[("protocol_state", "MAIL")])).await;
    assert_eq!(end.status(0).stdout, "DUNNO\n");
    let lacks = b"protocol_state=DATA\ninstance=3\nsasl_username=joe\n";
    let end = query(&program, &tables, lacks).await;
    end.status(75)
        .says("request not understood: recipient_count is no number");
}

#[tokio::test]
async fn a_query_without_a_store_says_so() {
    let tables = limit("login", "rates = { \"1h\" = 3 }");
    let config = format!("[store]\npath = \"/nowhere/limits.sqlite\"\n{tables}");
    let launch = Launch::new(Binary::Policy).config(config);
    let launch = launch.argument("--query").argument("t");
    let end = launch.end_after(&data("1", "joe", "3")).await;
    end.status(0)
        .says("store: /nowhere/limits.sqlite: ")
        .says("the answer knows nothing of what was counted");
    assert_eq!(end.stdout, "DUNNO\n");
}

#[tokio::test]
async fn what_was_counted_is_there_after_a_restart() {
    let tables = limit("login", "rates = { \"1h\" = 3 }");
    let (program, mut peer) = serve(&tables).await;
    dialog(&mut peer, [(data("1", "joe", "2"), PASSED)]).await;
    let folder = program.config_path().with_file_name("");
    let again = || {
        let config = with_store(&folder, 0, &tables);
        Launch::new(Binary::Policy).config(config).tcp4("t").ready()
    };
    // A second service beside the first counts in the same file.
    let other = again().await;
    let mut to_other = other.peer().await;
    dialog(&mut to_other, [(data("1", "joe", "2"), PASSED)]).await;
    dialog(
        &mut to_other,
        [(data("2", "joe", "2"), "REJECT login: 2 of 3 in 1h")],
    )
    .await;
    // No word of farewell.
    other.signal(Signal::KILL);
    drop(other.end().await);
    let third = again().await;
    let mut to_third = third.peer().await;
    let rows = [
        (data("3", "joe", "1"), PASSED),
        (data("4", "joe", "1"), "REJECT login: 3 of 3 in 1h"),
    ];
    dialog(&mut to_third, rows).await;
    third.stop().await.says("stopped");
}

/// systemd starts the program at the first request, which waits in the socket meanwhile.
#[tokio::test]
async fn the_very_first_request_is_counted_in_the_store() {
    let tables = limit("login", "rates = { \"1h\" = 3 }");
    let program = super::launch(&tables).tcp4("t").start();
    let mut early = program.peer().await;
    dialog(&mut early, [(data("1", "joe", "2"), PASSED)]).await;
    let text = printed(&program, &tables, &["--limits", "t"]).await;
    assert_eq!(cells(&text)[1], ["login", "joe", "1h", "2", "3", "now"]);
    let end = program.stop().await;
    assert!(!end.stderr.contains("store:"), "{end:#?}");
}
