//! One message is charged once, and all limits together.

use rustix::process::Signal;

use super::{PASSED, data, dialog, end, launch, limit, recipient, request, serve, with_store};
use crate::support::replies::LATER;

#[tokio::test]
async fn a_limit_passes_what_has_room_and_says_what_has_none() {
    let table = limit(
        "login",
        "rates = { \"1h\" = 3 }\non-exceeded = \"DEFER {name} {used} {limit} {window}, {wait}\"",
    );
    let (_program, mut peer) = serve(&table).await;
    dialog(&mut peer, [(data("1", "joe", "2"), PASSED)]).await;
    let reply = peer.ask(data("2", "joe", "2")).await;
    let reply = String::from_utf8(reply).expect("text");
    let wait = reply.strip_prefix("action=DEFER login 2 3 1h, ");
    let wait = wait.and_then(|wait| wait.strip_suffix("m\n\n"));
    let minutes: u32 = wait.expect("minutes").parse().expect("a number");
    assert!((1..=61).contains(&minutes), "{reply}");
    // One more fits still, and another account has room of its own.
    let rows = [
        (data("3", "joe", "1"), PASSED),
        (data("4", "jim", "3"), PASSED),
    ];
    dialog(&mut peer, rows).await;
}

#[tokio::test]
async fn the_default_action_defers_and_says_for_how_long() {
    let table = "[[policy.t.limits]]\nname = \"a\"\nby = \"all\"\nrates = { \"31d\" = 1 }\n";
    let (_program, mut peer) = serve(table).await;
    dialog(&mut peer, [(data("1", "joe", "1"), PASSED)]).await;
    let reply = peer.ask(data("2", "joe", "1")).await;
    let reply = String::from_utf8(reply).expect("text");
    let text = "action=DEFER_IF_PERMIT 4.7.1 Limit of 1 in 31d reached, try again in 3";
    assert!(
        reply.starts_with(text) && reply.ends_with("d\n\n"),
        "{reply}"
    );
}

#[tokio::test]
async fn a_message_is_charged_once_whatever_is_asked_of_it() {
    let (_program, mut peer) = serve(&limit("login", "rates = { \"1h\" = 4 }")).await;
    let rows = [
        // A recipient at a time, then the same message in two more states, each of them twice.
        (recipient("1", "joe", "a@x"), PASSED),
        (recipient("1", "joe", "b@x"), PASSED),
        (data("1", "joe", "2"), PASSED),
        (data("1", "joe", "2"), PASSED),
        (end("1", "joe", "2", "500"), PASSED),
        (end("1", "joe", "2", "500"), PASSED),
        // Two are left: not for three, but for two, of which one is named at RCPT.
        (data("2", "joe", "3"), "REJECT login: 2 of 4 in 1h"),
        (recipient("3", "joe", "a@x"), PASSED),
        (data("3", "joe", "2"), PASSED),
        (recipient("4", "joe", "a@x"), "REJECT login: 4 of 4 in 1h"),
        // What has passed passes again, and no more of it does.
        (data("3", "joe", "2"), PASSED),
        (data("3", "joe", "3"), "REJECT login: 4 of 4 in 1h"),
    ];
    dialog(&mut peer, rows).await;
}

#[tokio::test]
async fn the_last_recipient_again_is_charged_once_and_gets_the_same_answer() {
    let (program, mut peer) = serve(&limit("login", "rates = { \"1h\" = 2 }")).await;
    dialog(&mut peer, [(recipient("1", "joe", "a@x"), PASSED)]).await;
    // As Postfix repeats it, over another connection.
    let mut peer = program.peer().await;
    let refused = "REJECT login: 2 of 2 in 1h";
    let rows = [
        (recipient("1", "joe", "a@x"), PASSED),
        (recipient("1", "joe", "b@x"), PASSED),
        (recipient("1", "joe", "c@x"), refused),
        (recipient("1", "joe", "c@x"), refused),
        // A later recipient of the same name is another recipient.
        (recipient("1", "joe", "a@x"), refused),
    ];
    dialog(&mut peer, rows).await;
}

#[tokio::test]
async fn a_message_passes_as_a_whole_or_not_at_all() {
    let (_program, mut peer) = serve(&limit("login", "rates = { \"1h\" = 5 }")).await;
    let rows = [
        (data("1", "joe", "6"), "REJECT login: 0 of 5 in 1h"),
        (data("1", "joe", "6"), "REJECT login: 0 of 5 in 1h"),
        (data("2", "joe", "5"), PASSED),
        (data("3", "joe", "1"), "REJECT login: 5 of 5 in 1h"),
    ];
    dialog(&mut peer, rows).await;
}

#[tokio::test]
async fn messages_and_bytes_are_counted_where_a_limit_says_so() {
    let table = limit("messages", "rates = { \"1h\" = 2 }\ncount = \"messages\"")
        + &limit("bytes", "rates = { \"1h\" = 1000 }\ncount = \"bytes\"");
    let (_program, mut peer) = serve(&table).await;
    let rows = [
        (recipient("1", "joe", "a@x"), PASSED),
        (recipient("1", "joe", "b@x"), PASSED),
        (data("1", "joe", "99"), PASSED),
        // Bytes are counted at the end alone: before it, `size` is what the client says.
        (
            request(
                "RCPT",
                "1",
                "joe",
                &[("size", "99999"), ("recipient", "c@x")],
            ),
            PASSED,
        ),
        (end("1", "joe", "99", "900"), PASSED),
        (end("1", "joe", "99", "900"), PASSED),
        (data("2", "joe", "1"), PASSED),
        (
            end("2", "joe", "1", "101"),
            "REJECT bytes: 900 of 1000 in 1h",
        ),
        (end("2", "joe", "1", "100"), PASSED),
        (data("3", "joe", "1"), "REJECT messages: 2 of 2 in 1h"),
        (data("4", "jim", "1"), PASSED),
    ];
    dialog(&mut peer, rows).await;
}

#[tokio::test]
async fn other_states_and_requests_without_a_message_are_not_counted() {
    let (_program, mut peer) = serve(&limit("login", "rates = { \"1h\" = 1 }")).await;
    let mut rows = Vec::new();
    for _ in 0..3 {
        for state in [
            "CONNECT", "EHLO", "HELO", "MAIL", "VRFY", "ETRN", "rcpt", "",
        ] {
            rows.push((request(state, "1", "joe", &[]), PASSED));
        }
        for state in ["RCPT", "DATA", "END-OF-MESSAGE"] {
            rows.push((request(state, "", "joe", &[]), PASSED));
        }
        rows.push((
            b"request=smtpd_access_policy\nsasl_username=joe\n\n".to_vec(),
            PASSED,
        ));
    }
    rows.push((data("1", "joe", "1"), PASSED));
    rows.push((data("2", "joe", "1"), "REJECT login: 1 of 1 in 1h"));
    dialog(&mut peer, rows).await;
}

/// A number that Postfix always sends must not be missing: the request would pass uncounted.
#[tokio::test]
async fn a_number_that_cannot_be_read_is_a_temporary_failure() {
    let table = limit("login", "rates = { \"1h\" = 5 }\nexempt = [\"root\"]")
        + &limit(
            "bytes",
            "rates = { \"1h\" = 5 }\ncount = \"bytes\"\nexempt = [\"root\"]",
        );
    let (program, mut peer) = serve(&table).await;
    let rows = [
        (data("1", "joe", ""), LATER),
        (data("1", "joe", "-1"), LATER),
        (data("1", "joe", "two"), LATER),
        (end("1", "joe", "1", ""), LATER),
        (end("1", "joe", "1", "1e3"), LATER),
        // These are counted for nobody.
        (data("1", "", "two"), PASSED),
        (data("1", "root", "two"), PASSED),
        // As many as fit nowhere.
        (
            data("1", "joe", "99999999999999999999"),
            "REJECT login: 0 of 5 in 1h",
        ),
        // Postfix comes to DATA with one recipient at least.
        (data("1", "joe", "0"), PASSED),
        (data("2", "joe", "5"), "REJECT login: 1 of 5 in 1h"),
    ];
    dialog(&mut peer, rows).await;
    program
        .logged("t: request not understood: recipient_count is no number")
        .await;
}

#[tokio::test]
async fn every_limit_has_room_or_none_is_charged() {
    let table = limit("login", "rates = { \"1h\" = 10, \"1d\" = 4 }")
        + &limit("sender", "by = \"{sender}\"\nrates = { \"1h\" = 3 }");
    let (_program, mut peer) = serve(&table).await;
    let from = |instance: &str, login: &str, sender: &str, count: &str| {
        let more = [("sender", sender), ("recipient_count", count)];
        request("DATA", instance, login, &more)
    };
    let rows = [
        (from("1", "joe", "a@x", "3"), PASSED),
        // Refused by the second limit, so that the first is not charged.
        (from("2", "joe", "a@x", "1"), "REJECT sender: 3 of 3 in 1h"),
        (from("3", "joe", "b@x", "1"), PASSED),
        // The first that has no room speaks, for the window that lasts longest.
        (from("4", "joe", "a@x", "1"), "REJECT login: 4 of 4 in 1d"),
        (from("5", "joe", "c@x", "1"), "REJECT login: 4 of 4 in 1d"),
        // Refused by the first, so that the second is not charged.
        (from("6", "jim", "c@x", "3"), PASSED),
    ];
    dialog(&mut peer, rows).await;
}

#[tokio::test]
async fn what_is_refused_is_charged_where_a_limit_says_so() {
    let table = limit("plain", "rates = { \"1h\" = 2 }")
        + &limit("strict", "rates = { \"1h\" = 6 }\nrefused = true");
    let (_program, mut peer) = serve(&table).await;
    let rows = [
        (data("1", "joe", "2"), PASSED),
        (data("2", "joe", "2"), "REJECT plain: 2 of 2 in 1h"),
        (data("3", "joe", "2"), "REJECT plain: 2 of 2 in 1h"),
        // Six are charged to the second, four of them refused, and none twice.
        (data("3", "joe", "2"), "REJECT plain: 2 of 2 in 1h"),
    ];
    dialog(&mut peer, rows).await;
    let alone = limit("strict", "rates = { \"1h\" = 2 }\nrefused = true");
    let (_program, mut peer) = serve(&alone).await;
    let rows = [
        (data("1", "joe", "3"), "REJECT strict: 0 of 2 in 1h"),
        // It has been paid for, and still does not pass.
        (data("1", "joe", "3"), "REJECT strict: 3 of 2 in 1h"),
        (data("2", "joe", "1"), "REJECT strict: 3 of 2 in 1h"),
    ];
    dialog(&mut peer, rows).await;
}

#[tokio::test]
async fn a_dry_run_counts_and_refuses_nobody() {
    let table = limit("dry", "rates = { \"1h\" = 1 }\ndry-run = true")
        + &limit("real", "rates = { \"1h\" = 3 }");
    let (program, mut peer) = serve(&table).await;
    let rows = [
        (data("1", "joe", "2"), PASSED),
        (data("2", "joe", "1"), PASSED),
        (data("3", "joe", "1"), "REJECT real: 3 of 3 in 1h"),
    ];
    dialog(&mut peer, rows).await;
    program
        .logged("t: joe has reached its limit \"dry\": 0 of 1 in 1h, room again in")
        .await;
    program.logged("and is not refused (dry-run)").await;
}

#[tokio::test]
async fn the_operator_may_let_pass_what_exceeds_a_limit() {
    for action in [
        "OK",
        "WARN {name}: {used} of {limit}",
        "PREPEND X-Limit: {name}",
        "greylist",
    ] {
        let table = "[policy.t]\nrestriction-classes = [\"greylist\"]\n".to_owned()
            + &limit(
                "login",
                &format!("rates = {{ \"1h\" = 1 }}\non-exceeded = \"{action}\""),
            );
        let (_program, mut peer) = serve(&table).await;
        let expected = action
            .replace("{name}", "login")
            .replace("{used}", "1")
            .replace("{limit}", "1");
        let rows = [
            (data("1", "joe", "1"), PASSED),
            (data("2", "joe", "1"), expected.as_str()),
        ];
        dialog(&mut peer, rows).await;
    }
}

#[tokio::test]
async fn a_reload_keeps_what_was_used_and_takes_the_numbers_of_the_file() {
    let table = |keys: &str| limit("login", keys);
    let (program, mut peer) = serve(&table("rates = { \"1h\" = 5 }")).await;
    dialog(&mut peer, [(data("1", "joe", "3"), PASSED)]).await;
    let folder = program.config_path().with_file_name("");
    let mut reloads = 1;
    for (keys, request, expected) in [
        (
            "rates = { \"1h\" = 5 }",
            data("2", "joe", "3"),
            "REJECT login: 3 of 5 in 1h",
        ),
        (
            "rates = { \"1h\" = 2 }",
            data("3", "joe", "1"),
            "REJECT login: 3 of 2 in 1h",
        ),
        // What has passed stays passed.
        ("rates = { \"1h\" = 2 }", data("1", "joe", "3"), PASSED),
        ("rates = { \"1h\" = 6 }", data("4", "joe", "3"), PASSED),
        (
            "rates = { \"1h\" = 6, \"1d\" = 1 }",
            data("5", "joe", "1"),
            "REJECT login: 6 of 6 in 1h",
        ),
        ("rates = { \"1d\" = 1 }", data("6", "joe", "1"), PASSED),
        (
            "rates = { \"1h\" = 7 }\ndry-run = false",
            data("7", "joe", "1"),
            PASSED,
        ),
        (
            "rates = { \"1h\" = 7 }",
            data("8", "joe", "1"),
            "REJECT login: 7 of 7 in 1h",
        ),
    ] {
        program.rewrite(&with_store(&folder, 0, &table(keys)));
        program.signal(Signal::HUP);
        reloads += 1;
        program.notified("READY=1", reloads).await;
        dialog(&mut peer, [(request, expected)]).await;
    }
    // Another store has counted nothing.
    let other = table("rates = { \"1h\" = 7 }");
    program.rewrite(&with_store(&folder, 1, &other));
    program.signal(Signal::HUP);
    program.notified("READY=1", reloads + 1).await;
    dialog(&mut peer, [(data("9", "joe", "7"), PASSED)]).await;
    // And a table may count no more.
    program.rewrite("[policy.t]\ntarget = \"http://127.0.0.1:1/\"\n");
    program.signal(Signal::HUP);
    program.notified("READY=1", reloads + 2).await;
    dialog(&mut peer, [(data("10", "joe", "1"), LATER)]).await;
}

#[tokio::test]
async fn tables_count_apart() {
    let tables = limit("login", "rates = { \"1h\" = 1 }")
        + "[policy.other]\nsocket = \"o\"\n[[policy.other.limits]]\nname = \"login\"\n\
           by = \"{sasl_username}\"\nrates = { \"1h\" = 2 }\n"
        + super::ON_EXCEEDED;
    let program = launch(&tables).tcp4("t").tcp4("o").ready().await;
    let (mut one, mut other) = (program.peer_at(0).await, program.peer_at(1).await);
    dialog(&mut one, [(data("1", "joe", "1"), PASSED)]).await;
    let rows = [
        // The same message, asked of another table, is charged there.
        (data("1", "joe", "2"), PASSED),
        (data("2", "joe", "1"), "REJECT login: 2 of 2 in 1h"),
    ];
    dialog(&mut other, rows).await;
    dialog(
        &mut one,
        [(data("2", "joe", "1"), "REJECT login: 1 of 1 in 1h")],
    )
    .await;
}

#[tokio::test]
async fn exactly_as_many_pass_as_may_over_any_number_of_connections() {
    let (program, _peer) = serve(&limit("login", "rates = { \"1h\" = 50 }")).await;
    let mut asking = Vec::new();
    for connection in 0..20 {
        let mut peer = program.peer().await;
        asking.push(tokio::spawn(async move {
            let mut passed = 0;
            for message in 0..10 {
                let instance = format!("{connection}.{message}");
                let reply = peer.ask(data(&instance, "joe", "1")).await;
                passed += usize::from(reply == b"action=DUNNO\n\n");
            }
            passed
        }));
    }
    let mut passed = 0;
    for asked in asking {
        passed += asked.await.expect("answers");
    }
    assert_eq!(passed, 50);
}
