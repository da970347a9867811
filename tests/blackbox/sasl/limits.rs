//! Limits of refusals.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::{JOE, OK, PASSWORD, REFUSED, Smtpd, api, login, serve, table};
use crate::support::{
    backend::{Act, Backend, Gate, status},
    program::{Launch, Program},
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

/// An API that answers once the gate is open.
fn gated(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::new(move |request| {
        let mut script = vec![Act::Wait(gate.clone())];
        script.extend(api(request));
        script
    })
}

/// Begins so many logins, each over a connection of its own.
async fn begun(program: &Program, count: usize, password: &str) -> Vec<Smtpd> {
    let mut smtpds = Vec::new();
    for number in 0..count {
        let mut smtpd = Smtpd::connect(program).await;
        // No two are the same login.
        let password = password.replace('#', &number.to_string());
        smtpd
            .ask("PLAIN", Some(&super::plain(JOE, &password)))
            .await;
        smtpds.push(smtpd);
    }
    smtpds
}

/// Waits until the program has read what was sent before. Each of its two threads serves connections
/// in the order in which they have something to read, and a new one goes to that with the fewest.
async fn read_by_program(program: &Program) {
    let mut last = Vec::new();
    for _ in 0..2 {
        let mut smtpd = Smtpd::connect(program).await;
        let said = smtpd.auth("NONE", None).await;
        assert!(said.starts_with("FAIL "), "{said}");
        last.push(smtpd);
    }
}

/// How many logins have each reply.
async fn replies(smtpds: Vec<Smtpd>) -> [usize; 3] {
    let mut counts = [0; 3];
    for mut smtpd in smtpds {
        let said = smtpd.said().await;
        let at = [OK, REFUSED, CLOSED].iter().position(|one| *one == said);
        counts[at.unwrap_or_else(|| panic!("{said}"))] += 1;
    }
    counts
}

/// A program with a store of its own, and its configuration.
async fn stored(backend: &Backend) -> (Program, String) {
    let launch = Launch::sasl();
    let store = launch.directory().join("limits.sqlite");
    let config = with_store(&store, &table(&backend.url("/login"), LIMITS));
    let program = launch.config(config.as_str()).unix("t").ready().await;
    (program, config)
}

/// The folder of a store that outlives its program, and the configuration.
fn outliving(backend: &Backend, name: &str) -> (PathBuf, String) {
    let folder = std::env::temp_dir().join(format!("postgate-{name}-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    let store = folder.join("limits.sqlite");
    let config = with_store(&store, &table(&backend.url("/login"), LIMITS));
    (folder, config)
}

/// A store of its own, in the folder of a program's configuration.
fn with_store(path: &Path, config: &str) -> String {
    format!("[store]\npath = \"{}\"\n{config}", path.display())
}

#[tokio::test]
async fn a_reload_gives_nobody_more_refusals() {
    let gate = Gate::shut();
    let backend = gated(&gate);
    let (program, config) = stored(&backend).await;
    let before = begun(&program, 3, "wrong#").await;
    backend.asked(3).await;
    program.rewrite(&config.replace("failure-delay = false", "failure-delay = \"1ms\""));
    program.signal(Signal::HUP);
    program.notified("READY=1", 2).await;
    let after = begun(&program, 10, "other#").await;
    gate.pass(100);
    assert_eq!(replies(before).await, [0, 3, 0]);
    assert_eq!(replies(after).await, [0, 0, 10]);
    assert_eq!(backend.count(), 3);
}

#[tokio::test]
async fn two_programs_with_one_store_give_nobody_more_refusals() {
    let gate = Gate::shut();
    let backend = gated(&gate);
    let (program, config) = stored(&backend).await;
    let other = Launch::sasl().config(config.as_str());
    let other = other.unix("t").ready().await;
    let first = begun(&program, 2, "wrong#").await;
    backend.asked(2).await;
    // One of them is asked about, and the others wait for it, since it may be a good one.
    let second = begun(&other, 5, "other#").await;
    backend.asked(3).await;
    gate.pass(100);
    assert_eq!(replies(first).await, [0, 2, 0]);
    assert_eq!(replies(second).await, [0, 1, 4]);
    assert_eq!(backend.count(), 3);
}

/// What was reserved by a program that is killed counts as used.
#[tokio::test]
async fn a_program_that_is_killed_gives_nobody_more_refusals() {
    let gate = Gate::shut();
    let backend = gated(&gate);
    let (folder, config) = outliving(&backend, "killed");
    let program = serve(config.as_str()).await;
    let _smtpds = begun(&program, 2, "wrong#").await;
    backend.asked(2).await;
    program.signal(Signal::KILL);
    program.end().await;
    let program = serve(config.as_str()).await;
    gate.pass(100);
    assert_eq!(login(&program, JOE, "wrong").await, REFUSED);
    assert_eq!(login(&program, JOE, "wrong").await, CLOSED);
    assert_eq!(backend.count(), 3);
    program.stop().await;
    std::fs::remove_dir_all(folder).expect("a folder");
}

/// What was reserved by a program that stops before its calls have an answer is free.
#[tokio::test]
async fn a_program_that_is_stopped_reserves_nothing() {
    let gate = Gate::shut();
    let backend = gated(&gate);
    let (folder, config) = outliving(&backend, "stopped");
    let program = serve(config.as_str()).await;
    let _smtpds = begun(&program, 3, "wrong#").await;
    backend.asked(3).await;
    program.signal(Signal::TERM);
    program.notified("STOPPING=1", 1).await;
    program.signal(Signal::INT);
    program.end().await.status(0);
    let program = serve(config.as_str()).await;
    gate.pass(100);
    let after = begun(&program, 4, "other#").await;
    assert_eq!(replies(after).await, [0, 3, 1]);
    program.stop().await;
    std::fs::remove_dir_all(folder).expect("a folder");
}

/// A client that opens many connections at once, next to its limit: one call says that they all
/// have the right password.
#[tokio::test]
async fn the_same_login_many_times_at_once_needs_one_unit_and_one_call() {
    let gate = Gate::shut();
    let backend = gated(&gate);
    let program = serve(table(&backend.url("/login"), LIMITS)).await;
    gate.pass(2);
    for password in ["wrong", "other"] {
        assert_eq!(login(&program, JOE, password).await, REFUSED);
    }
    let smtpds = begun(&program, 30, PASSWORD).await;
    read_by_program(&program).await;
    backend.asked(3).await;
    gate.pass(1);
    assert_eq!(replies(smtpds).await, [30, 0, 0]);
    assert_eq!(backend.count(), 3);
    // The unit is free again.
    gate.pass(10);
    assert_eq!(login(&program, JOE, "wrong").await, REFUSED);
    assert_eq!(login(&program, JOE, PASSWORD).await, CLOSED);
}

/// Good logins that are not the same wait for the unit that another gives back.
#[tokio::test]
async fn good_logins_beyond_the_room_wait_for_each_other() {
    let gate = Gate::shut();
    let backend = gated(&gate);
    let program = serve(table(&backend.url("/login"), LIMITS)).await;
    gate.pass(2);
    for password in ["wrong", "other"] {
        assert_eq!(login(&program, JOE, password).await, REFUSED);
    }
    let mut smtpds = Vec::new();
    for mechanism in ["PLAIN", "plain", "LOGIN"] {
        let mut smtpd = Smtpd::connect(&program).await;
        match mechanism {
            "LOGIN" => {
                smtpd.auth(mechanism, Some(JOE.as_bytes())).await;
                smtpd.send(PASSWORD).await;
            }
            _ => {
                let message = super::plain(JOE, PASSWORD);
                smtpd.ask(mechanism, Some(&message)).await;
            }
        }
        smtpds.push(smtpd);
    }
    gate.pass(100);
    assert_eq!(replies(smtpds).await, [3, 0, 0]);
}

/// A failure is no refusal, however it comes: each gives its unit back.
#[tokio::test]
async fn failures_and_clients_that_go_away_use_nothing_up() {
    let gate = Gate::shut();
    let backend = gated(&gate);
    let keys = format!("request-timeout = \"50ms\"\n{LIMITS}");
    let program = serve(table(&backend.url("/login"), &keys)).await;
    for _ in 0..5 {
        assert_eq!(login(&program, JOE, PASSWORD).await, CLOSED);
    }
    let calls = backend.count();
    assert_eq!(calls, 5, "each had room");
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
    // Those that had no room were the same as others, and had their answer.
    assert!((1..=40).contains(&backend.count()));
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
    // As many refusals as it has are no excess, and a good login is none.
    let program = serve(table(&backend.url("/login"), keys)).await;
    assert_eq!(login(&program, JOE, "wrong").await, REFUSED);
    assert_eq!(login(&program, JOE, PASSWORD).await, OK);
    let end = program.stop().await;
    assert!(!end.stderr.contains("has reached"), "{}", end.stderr);
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
