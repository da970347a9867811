//! What can become of a Redis: no mail stops, nothing passes uncounted, one warning, and the store
//! comes back by itself.

use std::time::Duration;

use futures_util::FutureExt;
use postgate::config::{self, Secret};
use postgate::limits::{Message, Mode, Part, Question, Rate, Units};
use postgate::store::Store;
use tokio::time::{Instant, advance, pause, resume, sleep};

use crate::log::Log;
use crate::server::{Server, free_port};

/// The most units of an account.
const MOST: usize = 3;

/// Time enough for a slow machine.
const LONG: Duration = Duration::from_secs(20);

const PASSWORD: &str = "correct-horse";

/// What happens to a server, what ends it, and what the warning says.
struct Fault<'f> {
    begin: &'f dyn Fn(&mut Server),
    end: &'f dyn Fn(&mut Server),
    warning: &'f str,
}

/// Has one unit used, the fault happen and end, and returns how many more units pass after that.
async fn suffer(server: &mut Server, url: &str, timeout: Duration, fault: Fault<'_>) -> usize {
    let log = Log::start();
    let store = store(url, timeout);
    assert!(passes(&store).await);
    assert!(store.is_up(), "{}", log.text());
    (fault.begin)(server);
    a_second_later().await;
    assert_eq!(pass_in_memory(&store).await, MOST, "{}", log.text());
    (fault.end)(server);
    let mut passed = 0;
    for _ in 0..=MOST {
        a_second_later().await;
        passed += usize::from(passes(&store).await);
        assert!(store.is_up(), "{}", log.text());
    }
    check(&log, fault.warning);
    passed
}

/// Asks while the store is down, and returns how often it passes.
async fn pass_in_memory(store: &Store) -> usize {
    let mut passed = 0;
    for _ in 0..=MOST {
        passed += usize::from(passes(store).await);
        assert!(!store.is_up());
        // The next question asks Redis again.
        a_second_later().await;
    }
    passed
}

/// Holds that there is one warning, and one line that it is over.
fn check(log: &Log, warning: &str) {
    let text = log.text();
    let lines: Vec<_> = text.lines().collect();
    let [down, back] = lines.as_slice() else {
        panic!("{text}")
    };
    let down = down.trim_start();
    assert!(
        down.starts_with(&format!("WARN store: {warning}")),
        "{text}"
    );
    assert!(
        down.contains(": until it is back, this process counts in its memory"),
        "{text}"
    );
    assert!(back.contains("INFO store: it is back"), "{text}");
    assert!(
        !text.contains(PASSWORD) && !text.contains("redis+unix"),
        "{text}"
    );
}

/// Lets a second pass at once, after all that has happened to the connections is noticed.
async fn a_second_later() {
    pause();
    sleep(Duration::from_secs(1)).await;
    resume();
}

/// Holds that so much time has passed. A timer of tokio fires up to a millisecond late.
fn assert_passed(began: Instant, time: Duration) {
    let passed = began.elapsed();
    assert!(
        (time..=time + Duration::from_millis(1)).contains(&passed),
        "{passed:?}"
    );
}

fn store(url: &str, timeout: Duration) -> Store {
    let settings = config::Store::Redis {
        url: Secret::text(url),
        prefix: "postgate:".to_owned(),
        timeout,
    };
    Store::new(&settings, "policy").expect("a store")
}

async fn passes(store: &Store) -> bool {
    store.decide(question()).await.refusal.is_none()
}

/// Needs one unit more, each time.
fn question() -> Question {
    Question {
        table: "policy.outgoing".into(),
        message: None,
        parts: vec![Part {
            limit: "login".into(),
            account: "a@example.org".to_owned(),
            rates: vec![Rate {
                window: Duration::from_secs(3600),
                most: Some(MOST as u64),
            }],
            units: Units::Add(1),
            charges_refused: false,
            is_dry_run: false,
        }],
        mode: Mode::Decide,
    }
}

#[tokio::test]
async fn killed_and_started_again_without_its_data() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    let at = server.socket().display().to_string();
    let fault = Fault {
        begin: &Server::kill,
        end: &Server::run,
        warning: &format!("cannot connect: {at}: No such file or directory (os error 2)"),
    };
    let url = server.url("");
    assert_eq!(suffer(&mut server, &url, LONG, fault).await, MOST);
}

#[tokio::test]
async fn refusing_connections() {
    let Some(mut server) = Server::start(&["--port", &free_port()]) else {
        return;
    };
    let at = format!("127.0.0.1:{}", server.port());
    let fault = Fault {
        begin: &Server::kill,
        end: &Server::run,
        warning: &format!("cannot connect: {at}: Connection refused (os error 111)"),
    };
    let url = format!("redis://{at}");
    assert_eq!(suffer(&mut server, &url, LONG, fault).await, MOST);
}

#[tokio::test]
async fn hanging() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    let fault = Fault {
        begin: &|server| server.hang(true),
        end: &|server| server.hang(false),
        warning: "no answer within 100ms",
    };
    let url = server.url("");
    let passed = suffer(&mut server, &url, Duration::from_millis(100), fault).await;
    // What it was asked while it hung it may still have counted.
    assert!(passed < MOST, "{passed}");
}

#[tokio::test]
async fn a_question_to_one_that_hangs_takes_the_timeout_and_later_ones_do_not_wait() {
    let Some(server) = Server::start(&["--port", &free_port()]) else {
        return;
    };
    let timeout = Duration::from_millis(250);
    let tcp = format!("redis://127.0.0.1:{}", server.port());
    let with_login = format!("redis://:{PASSWORD}@127.0.0.1:{}", server.port());
    server.hang(true);
    for url in [server.url(""), tcp, with_login] {
        let store = store(&url, timeout);
        // Nothing else can happen than that the time passes, so it passes at once.
        pause();
        let began = Instant::now();
        assert!(passes(&store).await);
        assert_passed(began, timeout);
        for _ in 0..2 {
            for _ in 0..100 {
                assert!(store.decide(question()).now_or_never().is_some());
            }
            advance(Duration::from_secs(1)).await;
            let began = Instant::now();
            assert!(!passes(&store).await);
            assert_passed(began, timeout);
        }
        resume();
    }
}

#[tokio::test]
async fn many_questions_at_once_to_one_that_hangs_all_take_the_timeout() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let timeout = Duration::from_millis(250);
    let store = store(&server.url(""), timeout);
    assert!(passes(&store).await);
    server.hang(true);
    pause();
    let began = Instant::now();
    let all = (0..200).map(|_| passes(&store));
    let passed = futures_util::future::join_all(all).await;
    assert_passed(began, timeout);
    assert_eq!(passed.iter().filter(|passes| **passes).count(), MOST);
}

#[tokio::test]
async fn out_of_memory() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    let fault = Fault {
        begin: &|server| server.command("CONFIG SET maxmemory 1"),
        end: &|server| server.command("CONFIG SET maxmemory 0"),
        warning: "OOM command not allowed when used memory > 'maxmemory':",
    };
    let url = server.url("");
    assert_eq!(suffer(&mut server, &url, LONG, fault).await, MOST - 1);
}

#[tokio::test]
async fn a_replica_that_is_promoted() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    // Without a primary it answers from the data it has.
    let fault = Fault {
        begin: &|server| server.command("REPLICAOF 127.0.0.1 1"),
        end: &|server| server.command("REPLICAOF NO ONE"),
        warning: "READONLY You can't write against a read only replica:",
    };
    let url = server.url("");
    assert_eq!(suffer(&mut server, &url, LONG, fault).await, MOST - 1);
}

#[tokio::test]
async fn a_password_that_is_set_meanwhile() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    let fault = Fault {
        begin: &|server| {
            let mut connection = server.connection("");
            connection.command(&format!("CONFIG SET requirepass {PASSWORD}"));
            connection.command("CLIENT KILL TYPE normal SKIPME yes");
        },
        end: &|server| {
            server
                .connection(PASSWORD)
                .command("CONFIG SET requirepass ");
        },
        warning: "Redis wants a password:",
    };
    let url = server.url("");
    assert_eq!(suffer(&mut server, &url, LONG, fault).await, MOST - 1);
}

#[tokio::test]
async fn a_password_that_is_changed_and_changed_back() {
    let Some(mut server) = Server::start(&["--requirepass", PASSWORD]) else {
        return;
    };
    let fault = Fault {
        begin: &|server| {
            let mut connection = server.connection(PASSWORD);
            connection.command("CONFIG SET requirepass other");
            connection.command("CLIENT KILL TYPE normal SKIPME yes");
        },
        end: &|server| {
            let set = format!("CONFIG SET requirepass {PASSWORD}");
            server.connection("other").command(&set);
        },
        warning: "cannot log in: wrong user or password:",
    };
    let url = server.url(&format!("?pass={PASSWORD}"));
    assert_eq!(suffer(&mut server, &url, LONG, fault).await, MOST - 1);
}

#[tokio::test]
async fn a_user_that_loses_a_right() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    // What the documentation asks for.
    server.command(&format!(
        "ACL SETUSER mail on >{PASSWORD} resetkeys ~postgate:* +eval +evalsha +time +mget +set \
         +setrange +scan +unlink"
    ));
    let url = server.url(&format!("?user=mail&pass={PASSWORD}"));
    for (right, warning) in [("set", ""), ("evalsha", "NOPERM")] {
        server.command("FLUSHALL");
        let fault = Fault {
            begin: &|server| server.command(&format!("ACL SETUSER mail -{right}")),
            end: &|server| server.command(&format!("ACL SETUSER mail +{right}")),
            warning,
        };
        assert_eq!(suffer(&mut server, &url, LONG, fault).await, MOST - 1);
    }
}

#[tokio::test]
async fn a_user_that_is_deleted_and_made_again() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    let make = format!("ACL SETUSER mail on >{PASSWORD} ~* +@all");
    server.command(&make);
    let fault = Fault {
        begin: &|server| server.command("ACL DELUSER mail"),
        end: &|server| server.command(&make),
        // Its connections are closed a little later.
        warning: "",
    };
    let url = server.url(&format!("?user=mail&pass={PASSWORD}"));
    assert_eq!(suffer(&mut server, &url, LONG, fault).await, MOST - 1);
}

#[tokio::test]
async fn a_key_of_another_kind_and_foreign_bytes_count_as_nothing() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let key = "postgate:{policy.outgoing}:limit:login:a@example.org";
    let foreign: [(&str, &[&[u8]]); 6] = [
        ("LPUSH", &[b"foreign"]),
        ("HSET", &[b"x", b"y"]),
        ("SET", &[b"foreign"]),
        // MessagePack: a window whose news is a text, one with half a frame, and no window.
        ("SET", &[b"\x91\x95\xce\x00\x36\xee\x80\x04\xa1x\x00\x00"]),
        (
            "SET",
            &[b"\x91\x96\xce\x00\x36\xee\x80\x04\x00\x00\x00\x00"],
        ),
        ("SET", &[b"\x91\x05"]),
    ];
    for (command, value) in foreign {
        server.command("FLUSHALL");
        let _: redis::Value = server.connection("").bytes(command, key, value);
        let store = store(&server.url(""), LONG);
        for number in 0..MOST * 2 {
            assert_eq!(passes(&store).await, number < MOST, "{value:?}");
            assert!(store.is_up(), "{value:?}");
        }
    }
}

/// What happens here is noticed by nobody.
#[tokio::test]
async fn a_script_that_is_forgotten_and_connections_that_are_closed_cost_no_question() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    let log = Log::start();
    let store = store(&server.url(""), LONG);
    assert!(passes(&store).await);
    server.command("SCRIPT FLUSH");
    assert!(passes(&store).await);
    // Noticed by the loop before the next question.
    server.command("CLIENT KILL TYPE normal SKIPME yes");
    a_second_later().await;
    assert!(passes(&store).await);
    assert!(!passes(&store).await);
    server.kill();
    server.run();
    a_second_later().await;
    assert!(passes(&store).await);
    // Not noticed before, but a question that may be asked twice is asked twice.
    for number in 0..2 {
        server.command("CLIENT KILL TYPE normal SKIPME yes");
        let question = Question {
            message: Some(Message {
                id: "1".to_owned(),
                repeat: Some(number),
            }),
            ..question()
        };
        assert!(store.decide(question).await.refusal.is_none());
    }
    assert!(!passes(&store).await);
    assert!(store.is_up());
    assert_eq!(log.text(), "");
}

#[tokio::test]
async fn a_primary_that_hands_over_and_takes_over_again() {
    let (first_port, second_port) = (free_port(), free_port());
    let Some(mut first) = Server::start(&["--port", &first_port]) else {
        return;
    };
    let second = Server::start(&["--port", &second_port, "--repl-diskless-sync-delay", "0"]);
    let second = second.expect("a second server");
    second.command(&format!("REPLICAOF 127.0.0.1 {first_port}"));
    wait_for_replica(&first);
    let fault = Fault {
        begin: &|first| {
            // The replica has all that was counted.
            first.command("FAILOVER TIMEOUT 20000");
            wait_for_replica(&second);
        },
        end: &|first| {
            second.command("FAILOVER TIMEOUT 20000");
            wait_for_replica(first);
        },
        warning: "READONLY You can't write against a read only replica:",
    };
    let url = first.url("");
    assert_eq!(suffer(&mut first, &url, LONG, fault).await, MOST - 1);
    // Whoever asks the second one finds the same.
    first.command("FAILOVER TIMEOUT 20000");
    wait_for_replica(&second);
    let store = store(&second.url(""), LONG);
    assert!(!passes(&store).await);
    assert!(store.is_up());
}

/// Waits until a server is primary and has its replica beside it.
fn wait_for_replica(primary: &Server) {
    let mut connection = primary.connection("");
    loop {
        let role: Vec<redis::Value> = connection.answer("ROLE");
        if matches!(role.as_slice(), [redis::Value::BulkString(role), ..] if role == b"master") {
            // Answers once a replica has all there is, or after a while.
            let replicas: usize = connection.answer("WAIT 1 50");
            if replicas == 1 {
                return;
            }
        }
    }
}

/// Otherwise the counts of memory would be dropped again and again, and let pass what has no room.
#[tokio::test]
async fn a_look_up_of_a_shared_answer_does_not_bring_a_store_back_that_cannot_count() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    server.command(&format!("ACL SETUSER mail on >{PASSWORD} ~* +@all"));
    let url = server.url(&format!("?user=mail&pass={PASSWORD}"));
    for (begin, end) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("ACL SETUSER mail -set", "ACL SETUSER mail +set"),
        ("ACL SETUSER mail -evalsha", "ACL SETUSER mail +evalsha"),
    ] {
        server.command("FLUSHALL");
        let store = store(&url, LONG);
        let looks_up = async || store.look_up("policy.other", "name").await.is_some();
        assert!(looks_up().await && passes(&store).await);
        server.command(begin);
        let mut passed = 0;
        for _ in 0..MOST * 2 {
            passed += usize::from(passes(&store).await);
            a_second_later().await;
            assert!(!looks_up().await && !store.is_up(), "{begin}");
            a_second_later().await;
        }
        assert_eq!(passed, MOST, "{begin}");
        server.command(end);
        a_second_later().await;
        assert!(looks_up().await && store.is_up(), "{begin}");
    }
}
