//! The records in the journal, and how to find them.

use std::time::Instant;

use serde_json::Value;

use super::{CONFIG, LOST, ask, connect, journal, messages, policy, show, until_said};
use crate::client::{Binary, block};
use crate::lab::{System, lab, on_each_system};
use crate::peer::Peer;

on_each_system! {
    the_journal_has_the_fields,
    at_debug_every_request_is_a_record,
    the_journal_finds_a_mail_by_its_queue_id,
    the_journal_finds_an_account_that_has_reached_a_limit,
    no_flood_from_outside_fills_the_journal,
}

fn the_journal_has_the_fields(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    assert_eq!(
        ask(&lab, "echo", "somebody@lab.test"),
        "OK somebody@lab.test"
    );
    lab.backend_says("echo", "500 text/plain\nout of order");
    assert_eq!(
        ask(&lab, "echo", "somebody@lab.test"),
        "TEMP backend answered 500"
    );
    until_said(&lab, "postgate-socketmap POSTGATE_OUTCOME=temporary", ".");

    let records = journal(&lab, "socketmap");
    let judged: Vec<_> = records
        .iter()
        .filter(|record| !record["POSTGATE_OUTCOME"].is_null())
        .collect();
    let [record] = judged.as_slice() else {
        panic!("one warning, not {judged:#?}")
    };
    assert_eq!(record["_TRANSPORT"], "journal");
    assert_eq!(record["SYSLOG_IDENTIFIER"], "postgate-socketmap");
    assert_eq!(record["PRIORITY"], "4");
    assert_eq!(record["POSTGATE_TABLE"], "echo");
    assert_eq!(record["POSTGATE_OUTCOME"], "temporary");
    assert_eq!(record["POSTGATE_REASON"], "backend answered 500");
    record["POSTGATE_DURATION_MS"]
        .as_str()
        .expect("text")
        .parse::<f64>()
        .expect("a number");
    let id = record["POSTGATE_REQUEST_ID"].as_str().expect("text");
    assert!(
        lab.sh("journalctl -u lab-backend -o cat")
            .contains(&format!("asked {id} /echo"))
    );
    assert!(
        !messages(&lab, "socketmap").contains("somebody"),
        "keys are for debug"
    );
}

fn at_debug_every_request_is_a_record(system: System) {
    let Some(lab) = lab(system, &format!("{CONFIG}\n[log]\nlevel = \"debug\"\n")) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    ask(&lab, "echo", "somebody@lab.test");
    ask(&lab, "echo", "missing@lab.test");
    until_said(&lab, "postgate-socketmap POSTGATE_OUTCOME=not-found", ".");
    let records = journal(&lab, "socketmap");
    let found: Vec<_> = records
        .iter()
        .filter(|record| record["POSTGATE_OUTCOME"] == "found")
        .collect();
    let [found] = found.as_slice() else {
        panic!("one record, not {found:#?}")
    };
    assert_eq!(found["PRIORITY"], "7");
    assert!(
        found["MESSAGE"]
            .as_str()
            .expect("text")
            .contains("somebody@lab.test"),
        "{found:#?}"
    );
}

fn the_journal_finds_a_mail_by_its_queue_id(system: System) {
    let config = format!("{CONFIG}breaker = {{ failures = 2, pause = \"500ms\" }}\n");
    let Some(lab) = lab(system, &config) else {
        return;
    };
    lab.sh("systemctl start postgate-policy@submission.socket");
    let socket = "postgate-policy-submission";
    assert_eq!(policy(&lab, socket), "DUNNO");
    lab.backend_says("policy", "503 text/plain\nclosed");
    for _ in 0..2 {
        assert_eq!(policy(&lab, socket), "DEFER_IF_PERMIT 4.3.0 submission");
    }
    until_said(&lab, "postgate-policy", "down");
    lab.backend_is_well();
    let began = Instant::now();
    while policy(&lab, socket) != "DUNNO" {
        assert!(began.elapsed() < LOST, "the target is still down");
    }

    // By queue id, at debug; a reload turns that on, and the same process goes on.
    let pid = show(&lab, "policy", "MainPID");
    let loud = format!("{config}[log]\nlevel = \"debug\"\n");
    lab.write("/etc/postgate/config.toml", &loud);
    lab.sh("systemctl reload postgate-policy");
    until_said(&lab, "postgate-policy", "reload: done");
    assert_eq!(policy(&lab, socket), "DUNNO");
    until_said(
        &lab,
        "postgate-policy POSTGATE_QUEUE_ID=4XyZ POSTGATE_OUTCOME=found",
        ".",
    );
    assert_eq!(show(&lab, "policy", "MainPID"), pid);

    let found = lab.sh("journalctl -o json --since @$(cat /run/began) \
        -u postgate-policy POSTGATE_OUTCOME=temporary \
        POSTGATE_REASON='backend answered 503'");
    let [record] = &*found.lines().collect::<Vec<_>>() else {
        panic!("{found}")
    };
    let record: Value = serde_json::from_str(record).expect("JSON");
    for (field, value) in [
        ("PRIORITY", "4"),
        ("POSTGATE_TABLE", "submission"),
        ("POSTGATE_REASON", "backend answered 503"),
        ("POSTGATE_QUEUE_ID", "4XyZ"),
    ] {
        assert_eq!(record[field], value, "{record:#?}");
    }
    let id = record["POSTGATE_REQUEST_ID"].as_str().expect("text");
    let asked = lab.sh("journalctl -u lab-backend -o cat");
    assert!(asked.contains(&format!("asked {id} /policy")), "{asked}");

    let records = journal(&lab, "policy");
    for (event, priority) in [
        ("ready: ", "6"),
        ("reload: reading", "6"),
        ("reload: done", "6"),
        ("submission: down: ", "4"),
        ("submission: up: ", "6"),
    ] {
        let records: Vec<_> = records
            .iter()
            .filter(|record| {
                record["MESSAGE"]
                    .as_str()
                    .is_some_and(|text| text.starts_with(event))
            })
            .collect();
        let [record] = records.as_slice() else {
            panic!("{event}: {records:#?}")
        };
        assert_eq!(record["PRIORITY"], priority, "{event}");
    }
}

fn the_journal_finds_an_account_that_has_reached_a_limit(system: System) {
    let config = format!(
        "{CONFIG}[[policy.outgoing.limits]]\nname = \"login\"\nby = \"{{sasl_username}}\"\n\
         rates = {{ \"1h\" = 1 }}\n"
    );
    let Some(lab) = lab(system, &config) else {
        return;
    };
    lab.sh("systemctl start postgate-policy@outgoing.socket");
    let socket = "postgate-policy-outgoing";
    let mut postfix = Peer::connect(&lab, Binary::Policy, socket).expect("a connection");
    for (instance, is_refused) in [("1", false), ("2", true), ("3", true)] {
        let mail = [
            ("request", "smtpd_access_policy"),
            ("protocol_state", "DATA"),
            ("instance", instance),
            ("recipient_count", "1"),
            ("sasl_username", "jane@lab.test"),
        ];
        postfix.send(block(mail)).expect("sent");
        let reply = postfix.receive().expect("a reply");
        assert_eq!(reply != "DUNNO", is_refused, "{reply}");
    }
    let found = "postgate-policy POSTGATE_ACCOUNT=jane@lab.test POSTGATE_LIMIT=login";
    until_said(&lab, found, "has reached its limit");
    let records = journal(&lab, "policy");
    let about: Vec<_> = records
        .iter()
        .filter(|record| !record["POSTGATE_ACCOUNT"].is_null())
        .collect();
    let [record] = about.as_slice() else {
        panic!("one warning, not {about:#?}")
    };
    assert_eq!(record["PRIORITY"], "4");
    assert_eq!(record["POSTGATE_TABLE"], "outgoing");
    assert_eq!(record["POSTGATE_LIMIT"], "login");
    assert_eq!(messages(&lab, "policy").matches("jane").count(), 1);
}

fn no_flood_from_outside_fills_the_journal(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl start postgate-socketmap.socket");
    assert_eq!(ask(&lab, "echo", "a"), "OK a");
    let before = journal(&lab, "socketmap").len();
    let malformed = ["x", "99999999999:", "3:abc;", "70000:", "5:"];
    for n in 0..2000 {
        let mut peer = connect(&lab).expect("a connection");
        peer.send(malformed[n % malformed.len()]).expect("sent");
    }
    lab.backend_says("echo", "500 text/plain\nout of order");
    let mut postfix = connect(&lab).expect("a connection");
    for n in 0..2000 {
        let reply = postfix.ask("echo", &format!("{n}")).expect("a reply");
        assert_eq!(reply, "TEMP backend answered 500");
        let reply = postfix.ask(&format!("map{n}"), "key").expect("a reply");
        assert_eq!(reply, "PERM unknown map");
    }
    let lines = journal(&lab, "socketmap").len() - before;
    assert!(
        (2..=20).contains(&lines),
        "{lines}: {}",
        messages(&lab, "socketmap")
    );
}
