//! More than one process, and processes that are killed.

use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::sync::Arc;
use std::{fs, iter};

use rustix::fs::Mode;
use rustix::process::umask as set_umask;

use crate::children::{As, NOBODY, Player, can, is_root, listen, run, say};
use crate::support::{Folder, Log, TABLE, asks, asks_of, beside, names, passes, service};

#[test]
fn the_umask_changes_nothing() {
    run("umask", &Folder::new(), As::Self_);
}

pub(crate) async fn umask(folder: &Folder) {
    for (number, mask) in [0o000, 0o077, 0o777].into_iter().enumerate() {
        set_umask(Mode::from_raw_mode(mask));
        let name = format!("{number}.sqlite");
        let store = service(&folder.path().join(&name)).await;
        assert!(passes(&store, asks("a", 1)).await);
        for name in [name.clone(), format!("{name}-wal"), format!("{name}-shm")] {
            let metadata = fs::metadata(folder.path().join(&name)).expect("a file");
            let mode = metadata.permissions().mode() & 0o7777;
            assert_eq!(mode, 0o600, "{name} with {mask:o}");
        }
    }
}

/// How many ask at once.
const ASKING: usize = 8;

#[tokio::test]
async fn a_kill_forgets_no_decision_that_was_said() {
    let folder = Folder::new();
    let mut all = Vec::new();
    for round in 1..=4 {
        let mut teller = Player::start("teller", &folder, As::Self_);
        teller.tell(&round.to_string());
        let mut said: Vec<_> = (0..150 * round).map_while(|_| teller.hear()).collect();
        assert_eq!(said.len(), 150 * round, "it has ended by itself");
        said.extend(teller.kill());
        all.extend(said);
        let store = beside(&folder.file());
        let usage = store.usage(TABLE, None).await.expect("usage");
        let used: HashMap<_, _> = usage.iter().map(|u| (&*u.account, u.used)).collect();
        for account in &all {
            assert_eq!(used.get(&**account), Some(&1), "{account}");
            // Each is known to have been charged.
            let again = asks_of(&format!("1.{account}"), account, 1);
            assert!(passes(&store, again).await, "{account}");
        }
        assert!(store.is_up());
        // What was decided and not said: no more than were asked.
        assert!(usage.len() <= all.len() + ASKING * round);
    }
}

/// Says each decision, until it is killed.
pub(crate) async fn teller(folder: &Folder) {
    let round = listen();
    let store = Arc::new(service(&folder.file()).await);
    let asking = (0..ASKING).map(|asker| {
        let (store, round) = (Arc::clone(&store), round.clone());
        tokio::spawn(async move {
            for number in 0.. {
                let account = format!("{round}.{asker}.{number}");
                let question = asks_of(&format!("1.{account}"), &account, 1);
                let was_up = store.is_up();
                assert!(passes(&store, question).await);
                // A disk that is busy for two seconds is down, and what memory says is not meant.
                if was_up && store.is_up() {
                    say(&account);
                }
            }
        })
    });
    for asked in asking.collect::<Vec<_>>() {
        asked.await.expect("no end");
    }
}

#[test]
fn two_services_over_one_file_let_pass_what_may_pass() {
    const MOST: usize = 50;
    // On a busy machine one of them may have to wait for the other for so long that it counts in
    // memory instead, which says nothing.
    let passed = iter::repeat_with(|| contend(MOST)).take(5).flatten().next();
    let expected = ["a", "b", "c", "d"].map(|account| (account.to_owned(), MOST));
    let passed = passed.expect("a file that is not locked for a quarter of a second");
    assert_eq!(passed, HashMap::from(expected));
}

/// Starts two services on a file that is not there yet, and returns how many pass of each account,
/// if both could ask the file throughout.
fn contend(most: usize) -> Option<HashMap<String, usize>> {
    let folder = Folder::new();
    let start = |_| Player::start("contender", &folder, As::Self_);
    let mut players = [0, 1].map(start);
    for player in &mut players {
        assert_eq!(player.hear().as_deref(), Some("ready"));
    }
    for player in &mut players {
        player.tell(&most.to_string());
    }
    let mut passed = HashMap::new();
    for player in &mut players {
        loop {
            match player.hear()?.as_str() {
                "done" => break,
                account => *passed.entry(account.to_owned()).or_default() += 1,
            }
        }
    }
    Some(passed)
}

/// Asks more than may pass, and says what does.
pub(crate) async fn contender(folder: &Folder) {
    let log = Log::new();
    let store = Arc::new(service(&folder.file()).await);
    say("ready");
    let most = listen().parse().expect("a number");
    let asking = ["a", "b", "c", "d"].map(|account| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for _ in 0..most {
                if passes(&store, asks(account, most)).await {
                    say(account);
                }
            }
        })
    });
    for asked in asking {
        asked.await.expect("answers");
    }
    match &log.lines(folder)[..] {
        [] => say("done"),
        [line] => assert!(line.contains("it is locked by another process"), "{line}"),
        lines => panic!("{lines:?}"),
    }
}

#[tokio::test]
async fn what_root_does_beside_the_service_leaves_the_file_to_the_service() {
    if !can("not root", is_root()) {
        return;
    }
    let folder = Folder::new();
    chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("an owner");
    let start = || {
        let mut player = Player::start("served", &folder, As::Nobody);
        assert_eq!(player.hear().as_deref(), Some("ready"));
        player
    };
    let ask = |player: &mut Player, passed: &str| {
        player.tell("a");
        assert_eq!(player.hear().as_deref(), Some(passed));
    };
    let owners = || {
        let all = names(&folder).into_iter().map(|name| {
            let metadata = fs::metadata(folder.path().join(&name)).expect("a file");
            assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY), "{name}");
            name
        });
        all.collect::<Vec<_>>()
    };
    let mut player = start();
    ask(&mut player, "1");
    ask(&mut player, "0");
    let command = beside(&folder.file());
    assert_eq!(command.usage(TABLE, None).await.expect("usage").len(), 1);
    assert_eq!(command.reset(TABLE, "a").await, Ok(1));
    assert_eq!(owners().len(), 3);
    ask(&mut player, "1");
    // With the log of a service that was killed, and after a clean end.
    player.kill();
    for _ in 0..2 {
        assert_eq!(command.usage(TABLE, None).await.expect("usage").len(), 1);
        assert_eq!(owners(), ["limits.sqlite"]);
    }
    // A reader that is killed in the middle leaves what it has made.
    let reader = crate::support::look_into(&folder.file());
    reader
        .execute_batch("BEGIN; SELECT * FROM usage")
        .expect("a reader");
    assert_eq!(owners().len(), 3);
    let mut player = start();
    ask(&mut player, "0");
    assert_eq!(command.reset(TABLE, "a").await, Ok(1));
    ask(&mut player, "1");
}

/// Answers what it is asked, once an account.
pub(crate) async fn served(folder: &Folder) {
    let store = service(&folder.file()).await;
    say("ready");
    loop {
        let account = listen();
        if account.is_empty() {
            return;
        }
        let passed = passes(&store, asks(&account, 1)).await;
        assert!(store.is_up());
        say(if passed { "1" } else { "0" });
    }
}
