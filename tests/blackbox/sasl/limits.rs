//! Limits of refusals.

use super::{JOE, OK, PASSWORD, REFUSED, Smtpd, api, login, serve, table};
use crate::support::{
    backend::{Act, Backend, Gate, status},
    program::Launch,
};

const CLOSED: &str = "closed";

/// Limits by name and net, and by net, in the memory of the program: it has no directory to write to.
const LIMITS: &str = r#"
normalise = { lowercase = true }
[[sasl.t.limits]]
name = "both"
by = "{client_address.net} {username}"
rates = { "1h" = 3 }
[[sasl.t.limits]]
name = "net"
by = "{client_address.net}"
rates = { "1h" = 5 }
exempt = ["203.0.113.0/24"]
"#;

#[tokio::test]
async fn over_a_limit_there_is_no_call_and_the_connection_is_closed() {
    let backend = Backend::new(api);
    let program = serve(table(&backend.url("/login"), LIMITS)).await;
    // Good logins are not counted.
    for _ in 0..10 {
        assert_eq!(login(&program, JOE, PASSWORD).await, OK);
    }
    for name in [JOE, "Joe@Example.org", JOE] {
        let said = login(&program, name, "wrong").await;
        assert!(said.starts_with("FAIL "), "{said}");
    }
    assert_eq!(backend.count(), 13);
    // Not even a right password is asked about, and it is not called wrong.
    assert_eq!(login(&program, JOE, "wrong").await, CLOSED);
    assert_eq!(login(&program, JOE, PASSWORD).await, CLOSED);
    assert_eq!(backend.count(), 13);
    // Another name of the same net has two left.
    for _ in 0..2 {
        let said = login(&program, "ann@example.org", "wrong").await;
        assert!(said.starts_with("FAIL "), "{said}");
    }
    assert_eq!(login(&program, "ann@example.org", "wrong").await, CLOSED);
    assert_eq!(login(&program, "ben@example.org", "wrong").await, CLOSED);
    assert_eq!(backend.count(), 15);
    let end = program.stop().await;
    end.says("t: limit reached: both")
        .says("198.51.100.0/24 joe@example.org has reached its limit \"both\": 3 of 3 in 1h")
        .says("198.51.100.0/24 has reached its limit \"net\": 5 of 5 in 1h");
}

#[tokio::test]
async fn only_refusals_by_the_backend_are_counted() {
    let backend = Backend::in_turn([status(503), status(500), status(404), status(401)]);
    let keys = format!(
        "normalise = {{ pattern = '[^@]+@[^@]+' }}\n{}",
        &LIMITS[LIMITS.find("[[").unwrap()..]
    );
    let program = serve(table(&backend.url("/login"), &keys)).await;
    for _ in 0..3 {
        assert_eq!(login(&program, JOE, "x").await, CLOSED);
    }
    for _ in 0..5 {
        let said = login(&program, "joe", "x").await;
        assert!(said.starts_with("FAIL "), "{said}");
        let said = login(&program, JOE, "").await;
        assert!(said.starts_with("FAIL "), "{said}");
    }
    assert_eq!(backend.count(), 3);
    for _ in 0..3 {
        assert_eq!(login(&program, JOE, "x").await, REFUSED);
    }
    assert_eq!(login(&program, JOE, "x").await, CLOSED);
    assert_eq!(backend.count(), 6);
}

/// As many at once as there are processes of smtpd get no more refusals than one after the other.
#[tokio::test]
async fn many_at_once_get_no_more_refusals_than_the_limit_has() {
    let gate = Gate::shut();
    let wait = gate.clone();
    let backend = Backend::new(move |request| {
        let mut script = vec![Act::Wait(wait.clone())];
        script.extend(api(request));
        script
    });
    let program = serve(table(&backend.url("/login"), LIMITS)).await;
    let mut smtpds = Vec::new();
    for _ in 0..20 {
        let mut smtpd = Smtpd::connect(&program).await;
        smtpd.ask("PLAIN", Some(&super::plain(JOE, "wrong"))).await;
        smtpds.push(smtpd);
    }
    backend.asked(3).await;
    gate.pass(100);
    let mut refused = 0;
    for mut smtpd in smtpds {
        match smtpd.said().await.as_str() {
            REFUSED => refused += 1,
            CLOSED => {}
            said => panic!("{said}"),
        }
    }
    assert_eq!((refused, backend.count()), (3, 3));
}

/// Where none of them is refused, all get their answer.
#[tokio::test]
async fn many_good_logins_at_once_only_wait() {
    let backend = Backend::new(api);
    let program = serve(table(&backend.url("/login"), LIMITS)).await;
    let mut smtpds = Vec::new();
    for _ in 0..40 {
        let mut smtpd = Smtpd::connect(&program).await;
        smtpd.ask("PLAIN", Some(&super::plain(JOE, PASSWORD))).await;
        smtpds.push(smtpd);
    }
    for mut smtpd in smtpds {
        assert_eq!(smtpd.said().await, OK);
    }
    assert_eq!(backend.count(), 40);
}

#[tokio::test]
async fn a_dry_run_refuses_nobody_and_a_query_charges_nothing() {
    let backend = Backend::new(api);
    let keys = "[[sasl.t.limits]]\nname = \"user\"\nby = \"{username}\"\n\
                rates = { \"1h\" = 1 }\ndry-run = true\n";
    let program = serve(table(&backend.url("/login"), keys)).await;
    for _ in 0..3 {
        assert_eq!(login(&program, JOE, "wrong").await, REFUSED);
    }
    assert_eq!(login(&program, JOE, PASSWORD).await, OK);
    let end = program.stop().await;
    end.says("joe@example.org has reached its limit \"user\"")
        .says("is not refused (dry-run)");
}

/// The store is the policy's: it outlives the program, and the commands read it.
#[tokio::test]
async fn the_store_outlives_the_program_and_can_be_read_and_reset() {
    let backend = Backend::new(api);
    let launch = Launch::sasl();
    let path = std::env::temp_dir().join(format!("postgate-sasl-{}.sqlite", std::process::id()));
    let config = format!(
        "[store]\npath = \"{}\"\n{}",
        path.display(),
        table(&backend.url("/login"), LIMITS)
    );
    let program = launch.config(config.as_str()).unix("t").ready().await;
    for _ in 0..3 {
        assert_eq!(login(&program, JOE, "wrong").await, REFUSED);
    }
    program.stop().await;
    let program = serve(config.as_str()).await;
    assert_eq!(login(&program, JOE, PASSWORD).await, CLOSED);
    let command = |arguments: &[&str]| {
        arguments.iter().fold(
            Launch::sasl().config(config.as_str()),
            |launch, argument| launch.argument(*argument),
        )
    };
    let account = "198.51.100.0/24 joe@example.org";
    let end = command(&["--limits", "t"]).end().await;
    end.status(0);
    assert!(end.stdout.contains(account), "{end:?}");
    // What --query asks is neither charged nor refused for good.
    let end = command(&["--query", "t", JOE]).end_after(b"wrong\n").await;
    end.status(1);
    command(&["--reset", "t", account]).end().await.status(0);
    assert_eq!(login(&program, JOE, PASSWORD).await, OK);
    program.stop().await;
    for end in ["", "-wal", "-shm"] {
        let mut name = path.clone().into_os_string();
        name.push(end);
        let _ = std::fs::remove_file(name);
    }
}
