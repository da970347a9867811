//! Real Postfix as the judge: `postmap -q` over every transport, and mail through an smtpd that
//! asks Postgate for everything, with a backend that works or fails.

mod lab;
#[path = "lab/postfix.rs"]
mod postfix;
#[path = "lab/traffic.rs"]
mod traffic;

use std::collections::BTreeSet;

use lab::{Lab, Said, System, lab, on_each_system};
use postfix::{MAIN_CF, Smtp};

const CONFIG: &str = r#"
[http]
request-timeout = "1s"

[socketmap.echo]
target = "http://127.0.0.1:8080/echo"
[socketmap.path]
target = "http://127.0.0.1:8080/echo/{key}"
[socketmap.domains]
target = "http://127.0.0.1:8080/domains"
[socketmap.users]
target = "http://127.0.0.1:8080/users/{key}"
[socketmap.aliases]
target = "http://127.0.0.1:8080/aliases"

[tcp-lookup.echo]
target = "http://127.0.0.1:8080/echo"
socket = "9001"
[tcp-lookup.access]
target = "http://127.0.0.1:8080/access"
socket = "9002"

[policy.policy]
target = "http://127.0.0.1:8080/policy"
[policy.silent]
target = "http://127.0.0.1:8080/policy"
on-temporary = "disconnect"
[policy.trusting]
target = "http://127.0.0.1:8080/policy"
permit-actions = true
"#;

const SOCKETS: &str = "postgate-socketmap.socket postgate-tcp-lookup@900{1,2}.socket \
    postgate-policy.socket postgate-policy@{silent,trusting}.socket";

/// The failures of a backend that show nothing about the key.
const ILL: [&str; 8] = [
    "500 text/plain\nOK",
    "502 text/html\n<html>Bad gateway</html>",
    "200 text/html\n<html>OK</html>",
    "200 application/json\n",
    "200 application/json\n{\"value\":",
    "429 text/plain\nslow down",
    "401 application/json\n{}",
    "raw\nOK\n",
];

on_each_system! {
    postmap_finds_odd_keys,
    postmap_is_told_what_cannot_be_said,
    postmap_asks_many_keys_in_one_connection,
    an_ill_backend_is_never_a_key_not_found,
    a_message_is_taken_and_delivered,
    the_tables_and_the_policy_decide,
    no_illness_of_a_table_refuses_a_recipient_for_good,
    no_answer_to_a_policy_question_opens_a_relay,
    a_catch_all_is_delivered,
    a_bare_number_of_an_access_table_permits,
    a_mail_makes_the_calls_that_readme_says,
    a_socket_may_be_opened_before_postfix_first_starts,
    a_socket_waits_until_postfix_is_installed,
}

fn postmap_finds_odd_keys(system: System) {
    let Some(lab) = start(system, CONFIG) else {
        return;
    };
    let long = "k".repeat(2000);
    let echoed = [
        "user@lab.test",
        "a b@lab.test",
        "  two blanks",
        "100%@lab.test",
        "%41%00",
        "grün@exämple.test",
        "\"quoted one\"@lab.test",
        "back\\slash",
        "user+ext@lab.test",
        "a@b@lab.test",
        "/?#&=;@lab.test",
        "{key}",
        "tab\there",
        "../users",
        &long,
    ];
    for map in ["tcp:127.0.0.1:9001", "echo", "path"] {
        let asked = echoed.map(|key| (map, key));
        for ((_, key), said) in asked.iter().zip(postmap(&lab, &asked)) {
            assert_eq!(said.out, format!("{key}\n"), "{map} {key:?} {}", said.err);
            assert_eq!(said.status, Some(0));
        }
        let asked = ["missing@lab.test", "*", "<>", "\"<>\""].map(|key| (map, key));
        for ((_, key), said) in asked.iter().zip(postmap(&lab, &asked)) {
            assert_not_found(&said, &format!("{map} {key:?}"));
        }
    }
    // In a path they would name another one; in a query they are letters.
    for key in [".", ".."] {
        let [in_path, in_query] = &*postmap(&lab, &[("path", key), ("echo", key)]) else {
            panic!()
        };
        assert_not_found(in_path, key);
        assert_eq!(in_query.out, format!("{key}\n"));
    }
}

fn postmap_is_told_what_cannot_be_said(system: System) {
    let Some(lab) = start(system, CONFIG) else {
        return;
    };
    let (tcp, long, lines) = ("tcp:127.0.0.1:9001", "k".repeat(5000), "two\nlines");
    let asked = [
        (tcp, &*long),
        (tcp, lines),
        ("echo", &*long),
        ("echo", lines),
        ("nosuch", "key"),
    ];
    let [tcp_long, tcp_lines, echo_long, echo_lines, unknown] = &*postmap(&lab, &asked) else {
        panic!()
    };
    assert_query_error(tcp_long);
    assert_eq!(tcp_lines.out, "two\nlines\n");
    assert_eq!(echo_long.out, format!("{long}\n"));
    assert_query_error(echo_lines);
    assert!(
        echo_lines
            .err
            .contains("temporary error: value cannot be sent"),
        "{echo_lines:?}"
    );
    assert_query_error(unknown);
    assert!(
        unknown.err.contains("permanent error: unknown map"),
        "{unknown:?}"
    );
}

fn postmap_asks_many_keys_in_one_connection(system: System) {
    let Some(lab) = start(system, CONFIG) else {
        return;
    };
    let keys = "for i in $(seq 100); do echo \"user $i\"; echo missing$i; done";
    for map in [
        "tcp:127.0.0.1:9001",
        &full("echo"),
        "socketmap:inet:127.0.0.1:9100:echo",
    ] {
        let out = lab.sh(&format!("({keys}) | postmap -q - {map}"));
        let found: Vec<_> = out.lines().collect();
        let expected: Vec<_> = (1..=100).map(|i| format!("user {i}\tuser {i}")).collect();
        assert_eq!(found, expected, "{map}");
    }
}

fn an_ill_backend_is_never_a_key_not_found(system: System) {
    let key = "user@lab.test";
    let ill: Vec<_> = [&ILL[..], &["hang"]].concat();
    let maps: Vec<_> = (0..ill.len()).map(|i| format!("ill{i}")).collect();
    let tables: String = maps
        .iter()
        .map(|map| format!("[socketmap.{map}]\ntarget = \"http://127.0.0.1:8080/{map}\"\n"))
        .collect();
    let Some(lab) = start(system, &format!("{CONFIG}{tables}")) else {
        return;
    };
    for (map, answer) in maps.iter().zip(&ill) {
        lab.backend_says(map, answer);
    }
    let mut asked: Vec<_> = maps.iter().map(|map| (map.as_str(), key)).collect();
    asked.push(("tcp:127.0.0.1:9001", key));
    lab.backend_says("echo", ILL[0]);
    let said = postmap(&lab, &asked);
    said.iter().for_each(assert_query_error);
    assert!(
        said[0]
            .err
            .contains("temporary error: backend answered 500"),
        "{}",
        said[0].err
    );
    let hung = &said[ill.len() - 1];
    assert!(
        hung.err.contains("timeout error: backend timed out"),
        "{}",
        hung.err
    );

    lab.sh("systemctl stop lab-backend");
    let asked = [("tcp:127.0.0.1:9001", key), ("echo", key)];
    let said = postmap(&lab, &asked);
    said.iter().for_each(assert_query_error);
    assert!(
        said[1].err.contains("temporary error: backend unreachable"),
        "{}",
        said[1].err
    );
    lab.backend_is_well();
    for said in postmap(&lab, &asked) {
        assert_eq!(said.out, "user@lab.test\n", "{}", said.err);
    }
}

fn a_message_is_taken_and_delivered(system: System) {
    let Some(lab) = start(system, CONFIG) else {
        return;
    };
    let mut smtp = Smtp::connect(&lab);
    smtp.expect("MAIL FROM:<prepend@elsewhere.test>", "250 ");
    smtp.expect("RCPT TO:<User.One+box@LAB.test>", "250 ");
    smtp.expect("RCPT TO:<both@lab.test>", "250 ");
    smtp.expect("DATA", "354 ");
    let queued = smtp.expect(
        "Subject: hello\r\n\r\nhello\r\n.",
        "250 2.0.0 Ok: queued as ",
    );
    let id = queued
        .trim_end()
        .rsplit(' ')
        .next()
        .expect("a queue id")
        .to_owned();
    smtp.expect("QUIT", "221 ");
    lab.until(&format!(
        "journalctl -u 'postfix*' -o cat | grep '{id}: removed'"
    ));
    let log = lab.sh(&format!("journalctl -u 'postfix*' -o cat | grep {id}:"));
    for recipient in [
        "to=<User.One+box@LAB.test>",
        "to=<user1@lab.test>, orig_to=<both@lab.test>",
        "to=<user2@lab.test>, orig_to",
    ] {
        let line = log
            .lines()
            .find(|line| line.contains(recipient))
            .unwrap_or_else(|| panic!("{recipient}\n{log}"));
        assert!(line.contains("status=sent"), "{line}");
    }
    assert!(log.contains("info: header X-Judged: yes"), "{log}");
}

fn the_tables_and_the_policy_decide(system: System) {
    let Some(lab) = start(system, CONFIG) else {
        return;
    };
    let mut smtp = Smtp::connect(&lab);
    smtp.expect("MAIL FROM:<someone@elsewhere.test>", "250 ");
    smtp.expect("RCPT TO:<user@lab.test>", "250 ");
    let unknown = smtp.expect("RCPT TO:<nobody@lab.test>", "550 5.1.1 ");
    assert!(unknown.contains("User unknown"), "{unknown}");
    let closed = smtp.expect("RCPT TO:<closed@lab.test>", "554 5.7.1 ");
    assert!(
        closed.contains("Recipient address rejected: mailbox closed"),
        "{closed}"
    );
    smtp.expect(
        "RCPT TO:<victim@elsewhere.test>",
        "554 5.7.1 <victim@elsewhere.test>: Relay access denied",
    );
    for (sender, code, text) in [
        ("reject", "554 5.7.1 ", "you are on the list"),
        ("defer", "450 4.7.1 ", "come back later"),
        ("code", "550 5.7.1 ", "not from you"),
    ] {
        smtp.expect("RSET", "250 ");
        smtp.expect(&format!("MAIL FROM:<{sender}@elsewhere.test>"), "250 ");
        let reply = smtp.expect("RCPT TO:<user@lab.test>", code);
        assert!(reply.contains(text), "{reply}");
    }
}

fn no_illness_of_a_table_refuses_a_recipient_for_good(system: System) {
    let Some(lab) = start(system, CONFIG) else {
        return;
    };
    let mut smtp = Smtp::connect(&lab);
    smtp.expect("MAIL FROM:<someone@elsewhere.test>", "250 ");
    // Postfix remembers the last answers it got, so every question is another one.
    let mut count = 0;
    let mut deferred = |smtp: &mut Smtp, why: &str| {
        for user in ["user", "nobody"] {
            count += 1;
            let reply = smtp.say(&format!("RCPT TO:<{user}{count}@{count}.lab.test>"));
            assert!(
                reply.starts_with('4') && !reply.contains("unknown"),
                "{why}: {user}: {reply}"
            );
        }
    };
    for folder in ["domains", "aliases", "users", "access"] {
        for answer in ILL {
            lab.backend_says(folder, answer);
            deferred(&mut smtp, &format!("{folder}: {answer}"));
        }
        lab.backend_is_well();
    }
    lab.backend_says("users", "hang");
    deferred(&mut smtp, "hang");
    lab.sh("systemctl stop lab-backend");
    deferred(&mut smtp, "down");
    lab.sh(
        "journalctl -u 'postfix*' --since @$(cat /run/began) -o cat |
        grep 'socketmap server temporary error: backend answered 500'",
    );
    lab.backend_is_well();
    smtp.expect("RCPT TO:<user@well.lab.test>", "250 ");
    smtp.expect("RCPT TO:<nobody@well.lab.test>", "550 ");
}

fn no_answer_to_a_policy_question_opens_a_relay(system: System) {
    let Some(lab) = start(system, CONFIG) else {
        return;
    };
    let mut answers: Vec<_> = ILL.to_vec();
    answers.extend([
        "200 text/plain\n",
        "200 text/plain\naction=",
        "200 text/plain\naction= ",
        "200 text/plain\n450",
        "200 text/plain\n12345",
        "200 text/plain\nOK",
        "200 text/plain\naction=permit",
        "200 text/plain\nrelay",
        "200 text/plain\nDUNNO\naction=OK",
        "200 text/plain\nreject_unauth_destination, permit",
        "200 application/json\n{}",
        "200 application/json\nnull",
        "200 application/json\n{\"action\": \"\"}",
        "200 application/json\n{\"action\": true}",
        "404 text/plain\nOK",
        "403 text/plain\nOK",
        "201 text/plain\nOK",
        "hang",
    ]);
    // Where the operator trusts the backend it may; so the place in main.cf is one that matters.
    use_policy(&lab, "postgate-policy-trusting");
    lab.backend_says("policy", "200 text/plain\nOK");
    let mut smtp = Smtp::connect(&lab);
    smtp.expect("MAIL FROM:<someone@elsewhere.test>", "250 ");
    smtp.expect("RCPT TO:<friend@elsewhere.test>", "250 ");
    for service in ["postgate-policy", "postgate-policy-silent"] {
        use_policy(&lab, service);
        let mut smtp = Smtp::connect(&lab);
        smtp.expect("MAIL FROM:<someone@elsewhere.test>", "250 ");
        // To hang up costs Postfix a second each time, so not all of them.
        let answers = if service == "postgate-policy" {
            &answers[..]
        } else {
            &["500 text/plain\nOK", "200 text/plain\n"]
        };
        for (count, answer) in answers.iter().enumerate() {
            lab.backend_says("policy", answer);
            let foreign = smtp.say(&format!("RCPT TO:<victim{count}@elsewhere.test>"));
            assert!(!foreign.starts_with('2'), "{answer}: {foreign}");
            let ours = smtp.say(&format!("RCPT TO:<user{count}@lab.test>"));
            assert!(ours.starts_with("45"), "{answer}: {ours}");
        }
        lab.sh("systemctl stop lab-backend");
        let foreign = smtp.say("RCPT TO:<victim@elsewhere.test>");
        assert!(!foreign.starts_with('2'), "{foreign}");
        let ours = smtp.say("RCPT TO:<user@lab.test>");
        assert!(ours.starts_with("45"), "{ours}");
        lab.backend_is_well();
        smtp.expect("RCPT TO:<user@well.lab.test>", "250 ");
    }
    use_policy(&lab, "postgate-policy");
}

/// An API that has an answer to every key, bare domains included (README, `virtual_alias_domains`).
fn a_catch_all_is_delivered(system: System) {
    let Some(lab) = start(system, CONFIG) else {
        return;
    };
    lab.backend_says("aliases", "200 application/json\n\"user1@lab.test\"");
    let mut smtp = Smtp::connect(&lab);
    smtp.expect("MAIL FROM:<someone@elsewhere.test>", "250 ");
    smtp.expect("RCPT TO:<anybody@lab.test>", "250 ");
    smtp.expect("DATA", "354 ");
    smtp.expect("Subject: hello\r\n\r\nhello\r\n.", "250 ");
    let log = "journalctl -u 'postfix*' --since @$(cat /run/began) -o cat";
    lab.until(&format!(
        "{log} | grep -q 'orig_to=<anybody@lab.test>.*status='"
    ));
    let log = lab.sh(&format!("{log} | grep 'orig_to=<anybody@lab.test>'"));
    assert!(log.contains("status=sent"), "{log}");
}

fn a_bare_number_of_an_access_table_permits(system: System) {
    let Some(lab) = start(system, CONFIG) else {
        return;
    };
    let mut smtp = Smtp::connect(&lab);
    smtp.expect("MAIL FROM:<someone@elsewhere.test>", "250 ");
    for (count, number) in ["1", "450", "550"].iter().enumerate() {
        lab.backend_says("access", &format!("200 application/json\n{number}"));
        smtp.expect(&format!("RCPT TO:<victim{count}@elsewhere.test>"), "250 ");
    }
    lab.backend_says("access", "404 text/plain\n");
    smtp.expect("RCPT TO:<victim@elsewhere.test>", "554 5.7.1 ");
}

fn a_mail_makes_the_calls_that_readme_says(system: System) {
    // For so long that no answer expires on a slow machine.
    let cached = "cache = { ttl = \"1h\", negative-ttl = \"1h\" }";
    let mail = |lab: &Lab, recipients: usize| {
        let recipients: Vec<_> = (0..recipients)
            .map(|number| format!("user{number}@{recipients}.lab.test"))
            .collect();
        let sender = format!("someone@{}.elsewhere.test", recipients.len());
        traffic::send(Smtp::connect(lab), &sender, &recipients);
        traffic::calls(lab)
    };
    for (column, cache) in ["", traffic::SHARED, cached].into_iter().enumerate() {
        let Some(lab) = traffic::start(system, cache) else {
            return;
        };
        for (row, recipients) in [("to one recipient", 1), ("to five recipients", 5)] {
            let calls = mail(&lab, recipients);
            assert_eq!(calls.len(), calls_in_readme(row, column), "{calls:#?}");
            let again = mail(&lab, recipients);
            if cache != cached {
                // How many less depends on whether it is the same smtpd.
                assert!(again.len() <= calls.len(), "{again:#?}");
                continue;
            }
            let count = calls_in_readme(&format!("{row}, once more"), column);
            assert_eq!(again, vec!["/policy"; count]);
            let lookups = calls.iter().filter(|call| *call != "/policy");
            let different: BTreeSet<_> = lookups.clone().collect();
            assert_eq!(different.len(), lookups.count(), "{calls:#?}");
        }
    }
}

/// The calls of a mail as README has them: without a cache, with shared calls, or with a cache.
fn calls_in_readme(mail: &str, column: usize) -> usize {
    let row = traffic::README
        .lines()
        .find_map(|line| line.strip_prefix(&format!("| {mail} | ")))
        .unwrap_or_else(|| panic!("no row for a mail {mail}"));
    let figure = row.split(" | ").nth(column).expect("a column");
    figure.trim_end_matches(" |").parse().expect("a number")
}

fn a_socket_may_be_opened_before_postfix_first_starts(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl stop postfix; rm -rf /var/spool/postfix");
    postfix::start(&lab, SOCKETS);
    let owners = lab.sh("cd /var/spool/postfix; stat -c '%U:%G %a' . private");
    assert_eq!(owners, "root:root 755\npostfix:root 700\n");
    let mut smtp = Smtp::connect(&lab);
    smtp.expect("MAIL FROM:<someone@elsewhere.test>", "250 ");
    smtp.expect("RCPT TO:<user@lab.test>", "250 ");
    smtp.expect("RCPT TO:<nobody@lab.test>", "550 5.1.1 ");
}

fn a_socket_waits_until_postfix_is_installed(system: System) {
    let Some(lab) = lab(system, CONFIG) else {
        return;
    };
    lab.sh("systemctl stop postfix; rm -rf /var/spool/postfix
        sed -i 's/^postfix:/absent:/' /etc/passwd");
    let early = lab.run(&["systemctl", "start", "postgate-policy.socket"]);
    assert_ne!(early.status, Some(0));
    lab.sh("sed -i 's/^absent:/postfix:/' /etc/passwd");
    lab.sh(
        "journalctl -u postgate-policy.socket --since @$(cat /run/began) -o cat |
        grep 'invalid user.*postfix'
        test ! -e /var/spool/postfix",
    );
    postfix::start(&lab, SOCKETS);
}

/// The lab with Postfix running and every socket listening.
fn start(system: System, config: &str) -> Option<lab::Turn> {
    let lab = lab(system, config)?;
    lab.sh("d=/run/systemd/system/postgate-socketmap.socket.d
        [ -e $d ] || {
            mkdir -p $d; printf '[Socket]\nListenStream=127.0.0.1:9100\n' > $d/inet.conf
            systemctl daemon-reload
        }");
    postfix::start(&lab, SOCKETS);
    Some(lab)
}

/// Has smtpd ask at another socket from the next session on.
fn use_policy(lab: &Lab, service: &str) {
    lab.write(
        "/etc/postfix/main.cf",
        &MAIN_CF.replace(
            "unix:private/postgate-policy",
            &format!("unix:private/{service}"),
        ),
    );
    lab.sh("postfix reload 2>&1");
}

fn full(map: &str) -> String {
    if map.contains(':') {
        map.to_owned()
    } else {
        format!("socketmap:unix:/var/spool/postfix/private/postgate-socketmap:{map}")
    }
}

/// `postmap -q KEY MAP` for each pair, at the same time: before postmap ends with an error it
/// waits for a second. A map without a colon is one of our socketmap's.
fn postmap(lab: &Lab, asked: &[(&str, &str)]) -> Vec<Said> {
    let script = r#"cd "$(mktemp -d)"
        for ((i = 1; i < $#; i += 2)); do
            { postmap -q "${@:i+1:1}" "${!i}" >out$i 2>err$i; echo $? >status$i; } &
        done
        wait
        for ((i = 1; i < $#; i += 2)); do
            cat out$i; printf '\1'; cat status$i; printf '\1'; cat err$i; printf '\2'
        done"#;
    let mut argv: Vec<_> = ["bash", "-c", script, "bash"].map(str::to_owned).into();
    argv.extend(
        asked
            .iter()
            .flat_map(|(map, key)| [full(map), (*key).to_owned()]),
    );
    let said = lab.run(&argv);
    let parts: Vec<_> = said
        .out
        .split_terminator('\u{2}')
        .map(|part| {
            let [out, status, err] = &*part.split('\u{1}').collect::<Vec<_>>() else {
                panic!("{part:?}")
            };
            let status = status.trim_end().parse().ok();
            Said {
                status,
                out: (*out).to_owned(),
                err: (*err).to_owned(),
            }
        })
        .collect();
    assert_eq!(parts.len(), asked.len(), "{said:?}");
    parts
}

fn assert_not_found(said: &Said, what: &str) {
    assert_eq!(
        (said.status, &*said.out, &*said.err),
        (Some(1), "", ""),
        "{what}"
    );
}

/// A table that failed, as postmap tells it from a key that is not there.
fn assert_query_error(said: &Said) {
    assert_eq!((said.status, said.out.as_str()), (Some(1), ""), "{said:?}");
    assert!(said.err.contains("query error"), "{said:?}");
}
