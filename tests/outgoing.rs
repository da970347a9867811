//! Limits with real Postfix as the judge: every message is charged once, wherever main.cf asks and
//! whatever breaks meanwhile, and the operator's commands work beside the service.

mod lab;
#[path = "lab/postfix.rs"]
mod postfix;

use std::thread;

use lab::{Lab, System, Turn, lab, on_each_system};
use postfix::Smtp;

/// Postfix without tables: only limits decide.
const MAIN_CF: &str = "
compatibility_level = 3.6
myhostname = lab.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
maillog_file =
alias_maps =
alias_database =
smtpd_tls_security_level = none
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
smtpd_policy_service_timeout = 20s
# The client of the test says by XCLIENT who has logged in.
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
virtual_mailbox_domains = lab.test
virtual_mailbox_maps =
virtual_alias_domains =
local_recipient_maps =
virtual_transport = discard:
default_transport = discard:
";

/// Where main.cf asks for the limit.
const ASKED: &str = "check_policy_service unix:private/postgate-policy";
const AT_RCPT: &str = "smtpd_recipient_restrictions";
const AT_DATA: &str = "smtpd_data_restrictions";
const AT_THE_END: &str = "smtpd_end_of_data_restrictions";

on_each_system! {
    a_message_is_charged_once_wherever_it_is_asked,
    at_data_the_whole_message_passes_or_nothing,
    at_rcpt_a_message_near_the_limit_passes_in_part,
    what_a_client_gives_up_after_rcpt_stays_charged,
    the_bytes_of_a_message_count_at_its_end,
    many_connections_of_one_account_never_get_more,
    a_restart_in_the_middle_of_a_session_forgets_nothing,
    the_commands_work_beside_the_service,
    the_numbers_may_come_from_the_backend,
}

fn a_message_is_charged_once_wherever_it_is_asked(system: System) {
    for places in [
        &[AT_DATA][..],
        &[AT_RCPT],
        &[AT_THE_END],
        &[AT_RCPT, AT_DATA, AT_THE_END],
    ] {
        let Some(lab) = start(system, &limit("recipients", 10), places) else {
            return;
        };
        let mut smtp = login(&lab, "jane");
        assert_eq!(send(&mut smtp, 3), Ok(()), "{places:?}");
        assert_eq!(used(&lab, "jane"), 3, "{places:?}");
        assert_eq!(send(&mut smtp, 1), Ok(()), "{places:?}");
        assert_eq!(used(&lab, "jane"), 4, "{places:?}");
    }
}

fn at_data_the_whole_message_passes_or_nothing(system: System) {
    let Some(lab) = start(system, &limit("recipients", 5), &[AT_DATA]) else {
        return;
    };
    let mut smtp = login(&lab, "jane");
    assert_eq!(send(&mut smtp, 3), Ok(()));
    envelope(&mut smtp, 3);
    // The second try is one of the same message.
    for _ in 0..2 {
        let refused = smtp.expect("DATA", "450 4.7.1 ");
        let reason = "Data command rejected: Limit of 5 in 1h reached, try again in ";
        assert!(refused.contains(reason), "{refused}");
        assert_eq!(used(&lab, "jane"), 3);
    }
    smtp.expect("RSET", "250 ");
    assert_eq!(send(&mut smtp, 2), Ok(()));
    assert_eq!(used(&lab, "jane"), 5);
    // Another account has its own.
    let mut smtp = login(&lab, "joe");
    assert_eq!(send(&mut smtp, 5), Ok(()));
}

fn at_rcpt_a_message_near_the_limit_passes_in_part(system: System) {
    let reject = "on-exceeded = \"REJECT {used} of {limit} used\"";
    let config = format!("{}{reject}\n", limit("recipients", 2));
    let Some(lab) = start(system, &config, &[AT_RCPT, AT_DATA]) else {
        return;
    };
    let mut smtp = login(&lab, "jane");
    smtp.expect("MAIL FROM:<jane@lab.test>", "250 ");
    smtp.expect("RCPT TO:<a@else.test>", "250 ");
    smtp.expect("RCPT TO:<b@else.test>", "250 ");
    let refused = smtp.expect("RCPT TO:<c@else.test>", "554 5.7.1 ");
    assert!(refused.contains("2 of 2 used"), "{refused}");
    content(&mut smtp, "hello");
    assert_eq!(used(&lab, "jane"), 2);
}

fn what_a_client_gives_up_after_rcpt_stays_charged(system: System) {
    for (place, charged) in [(AT_RCPT, 2), (AT_DATA, 0)] {
        let Some(lab) = start(system, &limit("recipients", 10), &[place]) else {
            return;
        };
        let mut smtp = login(&lab, "jane");
        smtp.expect("MAIL FROM:<jane@lab.test>", "250 ");
        smtp.expect("RCPT TO:<a@else.test>", "250 ");
        smtp.expect("RCPT TO:<b@else.test>", "250 ");
        smtp.expect("RSET", "250 ");
        assert_eq!(used(&lab, "jane"), charged, "{place}");
        // The next message is another one.
        assert_eq!(send(&mut smtp, 1), Ok(()));
        assert_eq!(used(&lab, "jane"), charged + 1, "{place}");
    }
}

fn the_bytes_of_a_message_count_at_its_end(system: System) {
    let places = [AT_RCPT, AT_DATA, AT_THE_END];
    let Some(lab) = start(system, &limit("bytes", 20_000), &places) else {
        return;
    };
    let mut smtp = login(&lab, "jane");
    let body = format!("{}\r\n", "x".repeat(70)).repeat(180);
    envelope(&mut smtp, 2);
    content(&mut smtp, &body);
    let charged = used(&lab, "jane");
    assert!((12_900..14_000).contains(&charged), "{charged}");
    envelope(&mut smtp, 2);
    smtp.expect("DATA", "354 ");
    let refused = smtp.expect(&format!("{body}."), "450 4.7.1 ");
    assert!(
        refused.contains("End-of-data rejected: Limit of 20000"),
        "{refused}"
    );
    assert_eq!(used(&lab, "jane"), charged);
}

fn many_connections_of_one_account_never_get_more(system: System) {
    let Some(lab) = start(system, &limit("recipients", 50), &[AT_DATA]) else {
        return;
    };
    let lab: &Lab = &lab;
    let passed: usize = thread::scope(|scope| {
        let senders: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    let mut smtp = login(lab, "jane");
                    (0..10).filter(|_| send(&mut smtp, 1).is_ok()).count()
                })
            })
            .collect();
        let passed = senders
            .into_iter()
            .map(|sender| sender.join().expect("a count"));
        passed.sum()
    });
    assert_eq!(passed, 50);
    assert_eq!(used(lab, "jane"), 50);
    // Postfix has had nothing to complain about.
    let complaints = lab.sh(
        "journalctl -u 'postfix*' --since @$(cat /run/began) -o cat |
        grep -E 'warning: problem talking|fatal:|panic:' || true",
    );
    assert_eq!(complaints, "");
    // And the journal names the account, once.
    let said = lab.sh(
        "journalctl --sync; journalctl -u postgate-policy --since @$(cat /run/began) \
            POSTGATE_ACCOUNT=jane POSTGATE_LIMIT=login -o cat",
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

fn a_restart_in_the_middle_of_a_session_forgets_nothing(system: System) {
    let places = [AT_RCPT, AT_DATA, AT_THE_END];
    let Some(lab) = start(system, &limit("recipients", 4), &places) else {
        return;
    };
    for (action, account) in [
        ("systemctl restart postgate-policy", "jane"),
        ("systemctl kill -s KILL postgate-policy", "joe"),
        ("systemctl stop postgate-policy", "jack"),
    ] {
        let mut smtp = login(&lab, account);
        smtp.expect("MAIL FROM:<jane@lab.test>", "250 ");
        smtp.expect("RCPT TO:<a@else.test>", "250 ");
        lab.sh(action);
        smtp.expect("RCPT TO:<b@else.test>", "250 ");
        lab.sh(action);
        smtp.expect("DATA", "354 ");
        lab.sh(action);
        smtp.expect("Subject: hello\r\n\r\nhello\r\n.", "250 ");
        assert_eq!(used(&lab, account), 2, "{action}");
        envelope(&mut smtp, 2);
        smtp.expect("RCPT TO:<c@else.test>", "450 4.7.1 ");
    }
}

fn the_commands_work_beside_the_service(system: System) {
    let Some(lab) = start(system, &limit("recipients", 4), &[AT_DATA]) else {
        return;
    };
    let mut smtp = login(&lab, "Jane@Lab.test");
    assert_eq!(send(&mut smtp, 4), Ok(()));
    let mut other = login(&lab, "joe");
    assert_eq!(send(&mut other, 1), Ok(()));
    let all = lab.sh("postgate-policy --limits outgoing");
    let at = |account: &str| {
        let found = all.lines().position(|line| line.contains(account));
        found.unwrap_or_else(|| panic!("{account}: {all}"))
    };
    // The one that has used most comes first.
    assert!(at("jane@lab.test") < at("joe"), "{all}");
    assert!(send(&mut smtp, 1).is_err());
    lab.sh("postgate-policy --reset outgoing jane@lab.test");
    assert_eq!(used(&lab, "jane@lab.test"), 0);
    assert_eq!(send(&mut smtp, 2), Ok(()));
    assert_eq!(used(&lab, "jane@lab.test"), 2);
    assert_eq!(used(&lab, "joe"), 1);
    // --query counts nothing.
    for (recipients, action) in [(2, "DUNNO"), (3, "DEFER_IF_PERMIT 4.7.1 Limit of 4")] {
        let said = lab.sh(&format!(
            "printf '%s\\n' protocol_state=DATA instance=x recipient_count={recipients} \
                sasl_username=jane@lab.test | postgate-policy --query outgoing"
        ));
        assert!(said.starts_with(action), "{said}");
    }
    assert_eq!(used(&lab, "jane@lab.test"), 2);

    // Root has left nothing that the service cannot open, even while it was stopped.
    lab.sh("systemctl stop postgate-policy; postgate-policy --limits outgoing");
    lab.sh("postgate-policy --reset outgoing joe");
    assert_eq!(send(&mut smtp, 1), Ok(()));
    assert_eq!(used(&lab, "jane@lab.test"), 3);
    assert_eq!(used(&lab, "joe"), 0);
    let warnings = lab.sh(
        "journalctl --sync; journalctl -u postgate-policy --since @$(cat /run/began) -o cat |
        grep 'store' || true",
    );
    assert_eq!(warnings, "");
    let owners = lab.sh("cd /var/lib/private/postgate-policy; id=$(stat -c %u .)
        [ $id != 0 ] && find . ! -uid $id; ls");
    assert!(owners.starts_with("limits.sqlite"), "{owners}");
}

fn the_numbers_may_come_from_the_backend(system: System) {
    let config = |fallback| {
        format!(
            "[policy.outgoing]
            target = \"http://127.0.0.1:8080/quota/{{account}}\"
            [[policy.outgoing.limits]]
            name = \"login\"
            by = \"{{sasl_username}}\"
            rates = {{ \"1h\" = \"/per_hour\" }}
            {fallback}"
        )
    };
    let Some(lab) = start(system, &config(""), &[AT_DATA]) else {
        return;
    };
    let mut smtp = login(&lab, "jane");
    lab.backend_says("quota", "200 application/json\n{\"per_hour\": 2}");
    assert_eq!(send(&mut smtp, 2), Ok(()));
    assert!(send(&mut smtp, 1).is_err());
    lab.backend_says("quota", "200 application/json\n{\"per_hour\": 3}");
    assert_eq!(send(&mut smtp, 1), Ok(()));
    // No limit; what is used meanwhile counts afterwards.
    lab.backend_says("quota", "200 application/json\n{\"per_hour\": null}");
    assert_eq!(send(&mut smtp, 5), Ok(()));
    lab.backend_says("quota", "200 application/json\n{\"per_hour\": 8}");
    let refused = send(&mut smtp, 1).expect_err("nine of eight");
    assert!(refused.contains("Limit of 8 in 1h"), "{refused}");
    for failure in [
        "500 text/plain\nOK",
        "200 text/html\n<html>OK</html>",
        "200 application/json\n{}",
    ] {
        lab.backend_says("quota", failure);
        let deferred = send(&mut smtp, 1).expect_err(failure);
        assert!(deferred.starts_with("450 4.3.0 "), "{failure}: {deferred}");
    }
    lab.backend_says("quota", "404 application/json\n{}");
    assert_eq!(send(&mut smtp, 1), Ok(()));
    lab.write(
        "/etc/postgate/config.toml",
        &config("fallback = { \"1h\" = 10 }"),
    );
    lab.sh("systemctl reload postgate-policy");
    lab.until(
        "journalctl -u postgate-policy --since @$(cat /run/began) -o cat | grep 'reload: done'",
    );
    lab.sh("systemctl stop lab-backend");
    assert_eq!(send(&mut smtp, 2), Ok(()));
    let refused = send(&mut smtp, 1).expect_err("eleven of ten");
    assert!(refused.contains("Limit of 10 in 1h"), "{refused}");
    lab.backend_is_well();
}

/// A limit of so many units an hour.
fn limit(count: &str, most: u32) -> String {
    format!(
        "[[policy.outgoing.limits]]\n\
         name = \"login\"\n\
         by = \"{{sasl_username}}\"\n\
         rates = {{ \"1h\" = {most} }}\n\
         count = \"{count}\"\n"
    )
}

/// Starts Postfix, which asks at these places, with an empty store.
fn start(system: System, config: &str, places: &[&str]) -> Option<Turn> {
    let lab = lab(system, config)?;
    lab.sh("rm -rf /var/lib/private/postgate-policy /var/lib/postgate-policy");
    let asking: String = [AT_RCPT, AT_DATA, AT_THE_END]
        .map(|place| match places.contains(&place) {
            true => format!("{place} = {ASKED}\n"),
            false => format!("{place} =\n"),
        })
        .concat();
    postfix::start_with(
        &lab,
        "postgate-policy.socket",
        &format!("{MAIN_CF}{asking}"),
    );
    lab.sh("systemctl start postgate-policy.service; postfix reload 2>/dev/null");
    Some(lab)
}

/// Connects as a client that has logged in.
fn login(lab: &Lab, account: &str) -> Smtp {
    let mut smtp = Smtp::connect(lab);
    smtp.expect(&format!("XCLIENT LOGIN={account}"), "220 ");
    smtp.expect("EHLO client.test", "250-");
    smtp
}

fn envelope(smtp: &mut Smtp, recipients: usize) {
    smtp.expect("MAIL FROM:<jane@lab.test>", "250 ");
    for number in 0..recipients {
        smtp.expect(&format!("RCPT TO:<r{number}@else.test>"), "250 ");
    }
}

fn content(smtp: &mut Smtp, body: &str) {
    smtp.expect("DATA", "354 ");
    smtp.expect(&format!("Subject: hello\r\n\r\n{body}\r\n."), "250 ");
}

/// Sends one message, or returns the refusal of DATA or of its end.
fn send(smtp: &mut Smtp, recipients: usize) -> Result<(), String> {
    envelope(smtp, recipients);
    let said = smtp.say("DATA");
    if !said.starts_with("354 ") {
        smtp.say("RSET");
        return Err(said);
    }
    let said = smtp.say("Subject: hello\r\n\r\nhello\r\n.");
    match said.starts_with("250 ") {
        true => Ok(()),
        false => Err(said),
    }
}

/// Returns what an account has used, as the command says it.
fn used(lab: &Lab, account: &str) -> u64 {
    let said = lab.sh(&format!("postgate-policy --limits outgoing {account}"));
    let Some(line) = said.lines().find(|line| line.starts_with("login ")) else {
        return 0;
    };
    let used = line.split_whitespace().nth(3).expect("a column");
    used.parse().unwrap_or_else(|_| panic!("{said}"))
}
