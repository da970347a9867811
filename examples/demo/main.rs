//! `make demo`: the three programs, their sockets and a backend, with requests as Postfix sends them.
//!
//! Starts a sample backend and the programs with `demo.toml`, and sends them some requests. Then it
//! stops the backend, to show that a failure is never answered as "not found", and starts it again.
//! It exits with 0 only if every answer was the expected one. It uses free ports and a temporary
//! folder, needs no privileges, and leaves nothing behind. With `KEEP=1` in the environment it keeps
//! serving until Ctrl-C, for requests of your own. With `API=python` or `API=php` the backend is
//! `directory.py` or `directory.php` in place of `directory.rs`.

#[path = "../../tests/client/mod.rs"]
#[expect(dead_code, reason = "the demo plays no program")]
mod client;
mod postfix;
mod stage;

use std::env;
use std::error::Error;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use postfix::Answer::{Found, NotFound, Temporary};
use postfix::Question::{Mail, Table, TableOverUnix, Transport};
use postfix::{Answer, Asker, Question};
use stage::{Addresses, Stage};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut signals = Signals::new()?;
    let mut stage = Stage::new()?;
    let played = tokio::select! {
        played = play(&mut stage) => played,
        () = signals.next() => Err("interrupted".into()),
    };
    match &played {
        Ok(at) if env::var_os("KEEP").is_some_and(|keep| keep == "1") => {
            print_invitation(at);
            signals.next().await;
        }
        Ok(_) => {}
        Err(_) => eprint!("\n{}", stage.logs()),
    }
    let ended = stage.end().await;
    if let (Err(_), Err(also)) = (&played, &ended) {
        eprintln!("demo: {also}");
    }
    played?;
    ended?;
    println!("\nEvery answer was the expected one, and all programs stopped cleanly.");
    Ok(())
}

async fn play(stage: &mut Stage) -> Result<Addresses, Box<dyn Error>> {
    stage.start_backend().await?;
    let at = stage.start_programs().await?;
    let asker = Asker::new(at.clone(), stage.folder())?;
    println!("The backend is {}.", stage.backend());
    println!("The sockets come from {}.", stage.activator());
    println!("The lookups are made {asker}, the policy requests as smtpd makes them.");

    let mut unexpected = 0;
    for (heading, questions) in [lookups(), addresses(), mails()] {
        unexpected += ask(&asker, heading, &questions).await;
    }
    stage.stop_backend().await?;
    let (heading, questions) = outage();
    unexpected += ask(&asker, heading, &questions).await;

    stage.start_backend().await?;
    let (heading, questions) = recovery();
    unexpected += ask(&asker, heading, &questions).await;

    match unexpected {
        0 => Ok(at),
        1 => Err("one answer was not the expected one".into()),
        several => Err(format!("{several} answers were not the expected ones").into()),
    }
}

type Act = (&'static str, Vec<(Question, Answer)>);

fn lookups() -> Act {
    let questions = vec![
        (
            Transport("jane@example.org"),
            found("lmtp:inet:mail.example.org:24"),
        ),
        (
            Transport("joe@example.org"),
            found("lmtp:inet:old.example.org:24"),
        ),
        (Transport("someone@example.com"), NotFound),
        // The default route, which Postfix looks up in every transport table.
        (Transport("*"), NotFound),
    ];
    (
        "tcp-lookup: the server that takes mail for this address",
        questions,
    )
}

fn addresses() -> Act {
    let questions = vec![
        (Table("domains", "example.org"), found("ours")),
        (Table("domains", "example.com"), NotFound),
        (
            Table("mailboxes", "Jane+news@Example.org"),
            found("example.org/jane/"),
        ),
        (Table("mailboxes", "nobody@example.org"), NotFound),
        (
            Table("aliases", "sales@example.org"),
            found("jane@example.org,joe@example.org"),
        ),
        (
            Table("aliases", "50% für alle@example.org"),
            found("sales@example.org"),
        ),
        (
            TableOverUnix("aliases", "postmaster@example.org"),
            found("jane@example.org"),
        ),
    ];
    ("socketmap: domains, mailboxes and aliases", questions)
}

fn mails() -> Act {
    let questions = vec![
        (mail("friend@example.com", "192.0.2.1"), found("DUNNO")),
        (
            mail("spammer@example.com", "192.0.2.1"),
            found("REJECT 5.7.1 Mail from this sender is not accepted"),
        ),
        (
            mail("friend@example.com", "192.0.2.99"),
            found("DEFER_IF_PERMIT 4.7.1 Greylisted, please try again later"),
        ),
    ];
    ("policy: whether to accept this mail", questions)
}

fn outage() -> Act {
    let questions = vec![
        (Transport("jane@example.org"), Temporary),
        (Table("mailboxes", "jane@example.org"), Temporary),
        (Table("mailboxes", "nobody@example.org"), Temporary),
        (
            mail("friend@example.com", "192.0.2.1"),
            found("DEFER_IF_PERMIT 4.3.0 Policy service temporarily unavailable"),
        ),
    ];
    (
        "The backend is stopped: mail waits, and no address is \"not found\"",
        questions,
    )
}

fn recovery() -> Act {
    let questions = vec![
        (
            Transport("jane@example.org"),
            found("lmtp:inet:mail.example.org:24"),
        ),
        (
            Table("mailboxes", "jane@example.org"),
            found("example.org/jane/"),
        ),
        (Table("mailboxes", "nobody@example.org"), NotFound),
        (mail("friend@example.com", "192.0.2.1"), found("DUNNO")),
    ];
    ("The backend is back, and so are the answers", questions)
}

fn found(value: &str) -> Answer {
    Found(value.to_owned())
}

fn mail(sender: &'static str, client_address: &'static str) -> Question {
    Mail {
        sender,
        recipient: "jane@example.org",
        client_address,
    }
}

/// Sends the requests, prints them, and returns how many answers were not the expected ones.
async fn ask(asker: &Asker, heading: &str, questions: &[(Question, Answer)]) -> usize {
    println!("\n{heading}");
    let mut unexpected = 0;
    for (question, expected) in questions {
        let reply = asker.ask(question).await;
        let is_expected = reply.answer.as_ref() == Some(expected);
        let mark = if is_expected { "ok  " } else { "FAIL" };
        println!("  {mark}  {}", reply.asked);
        for line in reply.shown.lines() {
            println!("          {line}");
        }
        if !is_expected {
            println!("        expected: {expected}");
            unexpected += 1;
        }
    }
    unexpected
}

fn print_invitation(at: &Addresses) {
    println!(
        "
Everything keeps running until Ctrl-C. For requests of your own:

    postmap -q jane@example.org tcp:{tcp_lookup}
    postmap -q sales@example.org socketmap:{socketmap}:aliases
    postmap -q sales@example.org socketmap:{socketmap_unix}:aliases

For the main.cf of a test server:

    transport_maps = tcp:{tcp_lookup}
    virtual_mailbox_domains = socketmap:{socketmap}:domains
    virtual_mailbox_maps = socketmap:{socketmap}:mailboxes
    virtual_alias_maps = socketmap:{socketmap}:aliases
    smtpd_recipient_restrictions = check_policy_service {policy}
",
        tcp_lookup = at.tcp_lookup,
        socketmap = at.socketmap,
        socketmap_unix = at.socketmap_unix,
        policy = at.policy,
    );
}

/// The signals of a terminal or a supervisor that end the demo.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
