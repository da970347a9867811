//! Real Postfix as the judge of logins: a chrooted smtpd on the submission port, over STARTTLS, with
//! an API that works, fails, hangs and comes back, and a program that is restarted, stopped and
//! killed in the middle of a dialog.

mod lab;
#[path = "lab/submission.rs"]
mod submission;

use lab::{Lab, System, lab, on_each_system};
use submission::{BEARER, Client, PASSWORD, USER, login, plain, xoauth2};

const CONFIG: &str = r#"
[log]
level = "debug"

[sasl.submission]
target = "http://127.0.0.1:8080/login"
mechanisms = ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"]
request-timeout = "2s"
failure-delay = "100ms"
accepted = "/ok"
user = "/user"
reason = "/why"
breaker = false

[socketmap.senders]
target = "http://127.0.0.1:8080/senders"
"#;

/// The failures of an API that say nothing about a password.
const ILL: [&str; 11] = [
    "500 text/plain\nwrong password",
    "502 text/html\n<html>Bad gateway</html>",
    "503 application/json\n{\"ok\":false}",
    "200 text/html\n<html>Log in</html>",
    "200 application/json\n{\"ok\":",
    "200 application/json\n{\"ok\":\"false\"}",
    "200 application/json\n{\"ok\":true,\"user\":\"\"}",
    "200 application/json\n",
    "404 application/json\n{}",
    "429 text/plain\nslow down",
    "raw\nno HTTP\n",
];

const TEMPORARY: &str = "454 4.7.0 Temporary authentication failure";
const REFUSED: &str = "535 5.7.8 Error: authentication failed: ";

on_each_system! {
    every_way_to_log_in_is_judged_by_the_api,
    the_name_decides_which_senders_a_user_may_use,
    a_failure_of_the_api_is_never_a_wrong_password,
    a_restart_in_the_middle_of_a_dialog_is_a_temporary_failure,
    logins_go_on_while_the_program_is_restarted,
    a_new_smtpd_is_greeted_while_nothing_else_works,
    nothing_in_the_journal_has_a_password,
}

fn every_way_to_log_in_is_judged_by_the_api(system: System) {
    let Some(lab) = start(system) else { return };
    let mut client = Client::connect(&lab);
    let offered = client.ehlo();
    assert!(
        offered.contains("AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER"),
        "{offered}"
    );
    // With the message in the command, and after an empty challenge.
    assert!(client.auth(&plain(PASSWORD), true).starts_with("235 "));
    let mut client = Client::connect(&lab);
    assert!(client.auth(&plain(PASSWORD), false).starts_with("235 "));
    let mut client = Client::connect(&lab);
    assert!(client.auth(&login(PASSWORD), true).starts_with("235 "));
    let mut client = Client::connect(&lab);
    assert!(client.auth(&login(PASSWORD), false).starts_with("235 "));
    for (message, reason) in [
        (plain("wrong"), "no such password"),
        (login("wrong"), "no such password"),
        (plain(""), "wrong name or password"),
        (plain("loc\u{6b}ed"), "account locked"),
    ] {
        let mut client = Client::connect(&lab);
        for initial in [true, false] {
            let said = client.auth(&message, initial);
            assert_eq!(said.trim_end(), format!("{REFUSED}{reason}"));
        }
        // The session goes on, and the next login may be right.
        assert!(client.auth(&plain(PASSWORD), true).starts_with("235 "));
    }
    // What the client itself sends wrong, and what it takes back.
    let mut client = Client::connect(&lab);
    client.expect("AUTH PLAIN", "334 ");
    assert!(client.say("no*base64").starts_with("535 "));
    client.expect("AUTH LOGIN", "334 VXNlcm5hbWU6");
    client.expect("*", "501 ");
    assert!(client.auth(&login(PASSWORD), false).starts_with("235 "));

    for message in [xoauth2(BEARER), submission::oauthbearer(BEARER)] {
        let mut client = Client::connect(&lab);
        assert!(client.auth(&message, true).starts_with("235 "));
    }
    for (message, status) in [
        (
            xoauth2("stale"),
            "{\"status\":\"401\",\"schemes\":\"bearer\"}",
        ),
        (
            submission::oauthbearer("stale"),
            "{\"status\":\"invalid_token\"}",
        ),
    ] {
        let mut client = Client::connect(&lab);
        let said = client.auth(&message, true);
        assert_eq!(
            said.trim_end(),
            format!("334 {}", submission::base64(status))
        );
        assert!(client.say("AQ==").starts_with(REFUSED));
    }
    // Postfix has chrooted itself before it asked.
    let roots = lab.sh("for p in $(pgrep -x smtpd); do readlink /proc/$p/root; done");
    assert!(
        !roots.is_empty() && roots.lines().all(|root| root == "/var/spool/postfix"),
        "{roots}"
    );
    no_fatal(&lab);
}

fn the_name_decides_which_senders_a_user_may_use(system: System) {
    let Some(lab) = start(system) else { return };
    let mut client = Client::connect(&lab);
    client.expect("MAIL FROM:<user@lab.test>", "250 ");
    client.expect("RCPT TO:<someone@elsewhere.test>", "554 ");
    client.expect("RSET", "250 ");
    // The API says that the login of this name is another one's.
    assert!(client.auth(&plain(PASSWORD), true).starts_with("235 "));
    client.expect("MAIL FROM:<user@lab.test>", "250 ");
    client.expect("RCPT TO:<someone@elsewhere.test>", "250 ");
    client.expect("RSET", "250 ");
    client.expect("MAIL FROM:<ann@lab.test>", "250 ");
    let refused = client.say("RCPT TO:<someone@elsewhere.test>");
    assert!(refused.starts_with("553 5.7.1 "), "{refused}");
    lab.until("journalctl -u 'postfix*' --since @$(cat /run/began) -o cat | grep 'sasl_username=user@lab.test'");
}

fn a_failure_of_the_api_is_never_a_wrong_password(system: System) {
    let Some(lab) = start(system) else { return };
    let mut client = Client::connect(&lab);
    for answer in ILL.iter().chain(["hang"].iter()) {
        lab.backend_says("login", answer);
        for initial in [true, false] {
            let said = client.auth(&plain(PASSWORD), initial);
            assert!(said.starts_with(TEMPORARY), "{answer}: {said}");
        }
    }
    lab.sh("systemctl stop lab-backend");
    for message in [plain(PASSWORD), login(PASSWORD), xoauth2(BEARER)] {
        let said = client.auth(&message, true);
        assert!(said.starts_with(TEMPORARY), "{said}");
    }
    lab.backend_is_well();
    // Slow, but not too slow.
    lab.backend_says("login", "wait");
    client.begin(&plain(PASSWORD), true);
    lab.sh("echo > /tmp/go");
    assert!(client.reply().starts_with("235 "));
    lab.backend_is_well();
    let mut client = Client::connect(&lab);
    assert!(client.auth(&plain(PASSWORD), true).starts_with("235 "));
    no_fatal(&lab);
}

fn a_restart_in_the_middle_of_a_dialog_is_a_temporary_failure(system: System) {
    let Some(lab) = start(system) else { return };
    let mut client = Client::connect(&lab);
    for command in [
        "systemctl restart postgate-sasl",
        "systemctl stop postgate-sasl 2>/dev/null",
        // Until it is gone: what smtpd writes to it before that is lost.
        "pid=$(systemctl show -p MainPID --value postgate-sasl)
            kill -KILL $pid; tail --pid=$pid -f /dev/null",
    ] {
        // Between two challenges.
        client.expect(&format!("AUTH LOGIN {}", submission::base64(USER)), "334 ");
        lab.sh(command);
        let said = client.say(&submission::base64(PASSWORD));
        assert!(said.starts_with(TEMPORARY), "{command}: {said}");
        // While the API is being asked.
        lab.backend_says("login", "hang");
        client.begin(&plain(PASSWORD), true);
        lab.until(
            "journalctl -u lab-backend --since @$(cat /run/began) -o cat | grep 'asked .* /login'",
        );
        lab.sh(&format!("{command}; date +%s.%N > /run/began"));
        let said = client.reply();
        assert!(said.starts_with(TEMPORARY), "{command}: {said}");
        lab.backend_is_well();
        // An idle connection that was closed costs nothing.
        let said = client.auth(&plain("wrong"), true);
        assert!(said.starts_with(REFUSED), "{command}: {said}");
        lab.sh(command);
        let said = client.auth(&plain("wrong"), true);
        assert!(said.starts_with(REFUSED), "{command}: {said}");
    }
    assert!(client.auth(&plain(PASSWORD), true).starts_with("235 "));
    no_fatal(&lab);
}

fn logins_go_on_while_the_program_is_restarted(system: System) {
    let Some(lab) = start(system) else { return };
    let mut seen = (0, 0);
    std::thread::scope(|scope| {
        let restarts = scope.spawn(|| {
            lab.sh("for i in 1 2 3 4 5 6 7 8; do systemctl restart postgate-sasl; done");
        });
        while !restarts.is_finished() || seen.0 < 5 {
            // Each is another smtpd now and then, which needs a greeting.
            let mut client = Client::connect(&lab);
            let said = client.auth(&plain(PASSWORD), true);
            match said.get(..3) {
                Some("235") => seen.0 += 1,
                Some("454") => seen.1 += 1,
                _ => panic!("{said}"),
            }
        }
    });
    assert!(seen.0 >= 5, "{seen:?}");
    no_fatal(&lab);
}

fn a_new_smtpd_is_greeted_while_nothing_else_works(system: System) {
    let Some(lab) = start(system) else { return };
    lab.sh("systemctl stop lab-backend postgate-sasl.service 2>/dev/null; postfix reload 2>&1");
    let mut client = Client::connect(&lab);
    let offered = client.ehlo();
    assert!(offered.contains("AUTH PLAIN LOGIN"), "{offered}");
    let said = client.auth(&plain(PASSWORD), true);
    assert!(said.starts_with(TEMPORARY), "{said}");
    lab.sh("systemctl -q is-active postgate-sasl.service postgate-sasl.socket");
    no_fatal(&lab);
}

fn nothing_in_the_journal_has_a_password(system: System) {
    let Some(lab) = start(system) else { return };
    let planted = "Hunter2-in-the-attic";
    let mut client = Client::connect(&lab);
    for answer in ["", "401 text/plain\n", ILL[0], ILL[4], "hang"] {
        if answer.is_empty() {
            lab.backend_is_well();
        } else {
            lab.backend_says("login", answer);
        }
        for message in [plain(planted), login(planted), xoauth2(planted)] {
            for initial in [true, false] {
                let said = client.auth(&message, initial);
                if said.starts_with("334 ") {
                    client.say("AQ==");
                }
            }
        }
    }
    lab.sh("systemctl stop postgate-sasl 2>/dev/null");
    // All fields of all records, also those that are no text.
    let journal = lab.sh(
        "journalctl -u postgate-sasl -u 'postfix*' --since @$(cat /run/began) -o export --no-pager",
    );
    assert!(journal.contains(&format!("username={USER}")), "{journal}");
    for trace in submission::traces(planted) {
        assert!(!journal.contains(&trace), "{trace}: {journal}");
    }
    // systemd keeps no core, and /proc shows that the program makes none.
    let limits = lab.sh("systemctl start postgate-sasl
        cat /proc/$(systemctl show -p MainPID --value postgate-sasl)/limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<_> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");
    let owner = lab.sh("stat -c %U /proc/$(systemctl show -p MainPID --value postgate-sasl)/mem");
    assert_eq!(owner.trim(), "root", "its memory is its own");
}

/// smtplib of Python, where the host has one.
#[test]
fn pythons_client_logs_in() {
    let Some(lab) = start(System::Host) else {
        return;
    };
    if lab.run(&["python3", "-c", "import smtplib, ssl"]).status != Some(0) {
        submission::no_python();
        return;
    }
    lab.write("/tmp/client.py", submission::PYTHON);
    let said = lab.sh("timeout 60 python3 /tmp/client.py");
    assert_eq!(
        said,
        "CRAM-less PLAIN 235\nLOGIN 235\nPLAIN without 235\nwrong 535\n"
    );
    no_fatal(&lab);
}

fn start(system: System) -> Option<lab::Turn> {
    let lab = lab(system, CONFIG)?;
    submission::start(&lab);
    Some(lab)
}

/// smtpd has not once ended for want of a greeting.
#[track_caller]
fn no_fatal(lab: &Lab) {
    let fatal = lab.sh(
        "journalctl -u 'postfix*' --since @$(cat /run/began) -o cat | grep -E 'fatal|panic|bad startup' || true",
    );
    assert_eq!(fatal, "");
}
