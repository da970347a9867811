//! How large the file and the memory become.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use postgate::limits::decide::{Account, Window};
use postgate::limits::frames::{FRAMES, Frames, frame_at};
use postgate::limits::held::Holds;
use postgate::limits::memory::Memory;
use postgate::store::sqlite::file::File;
use postgate::store::sqlite::format::{from_account, summary};
use postgate::store::sqlite::place::Access;
use rusqlite::params;

use crate::children::{As, run};
use crate::support::{Folder, HOUR, TABLE, asks, asks_of, look_into, passes, seed, service};

const ACCOUNTS: usize = 100_000;

/// Enough for a file that is larger than SQLite's cache.
const FEWER: usize = 60_000;

const DAY: Duration = Duration::from_secs(86_400);
const NOW: u64 = 1_700_000_000_000;

fn name(number: usize) -> String {
    format!("somebody-{number}@customers.example.org")
}

/// Makes a file of accounts that have used so many frames of two windows.
fn fill(file: &Path, accounts: usize, now_ms: u64, frames: u64) {
    let mut rng = Rng::with_seed(seed() + frames);
    let mut connection = look_into(file);
    let mut order: Vec<usize> = (0..accounts).collect();
    rng.shuffle(&mut order);
    let transaction = connection.transaction().expect("a transaction");
    {
        let replace = "REPLACE INTO usage VALUES (?1, 'login', ?2, ?3, ?4, ?5)";
        let mut replace = transaction.prepare(replace).expect(replace);
        for number in order {
            let windows = [HOUR, DAY].map(|length| {
                let last = frame_at(now_ms, length);
                let first = last + 1 - frames;
                Window {
                    length,
                    most: Some(1000),
                    news_ms: 0,
                    frames: Frames((first..=last).map(|at| (at, rng.u64(1..20))).collect()),
                }
            });
            let account = Account {
                windows: windows.into(),
                held: Holds::default(),
            };
            let expires = account.expires_ms(now_ms) / 1000;
            let row = params![
                TABLE,
                name(number),
                summary(&account),
                expires as i64,
                from_account(&account)
            ];
            replace.execute(row).expect("a row");
        }
    }
    transaction.commit().expect("a commit");
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).expect("a file").len()
}

#[test]
fn a_hundred_thousand_accounts_take_less_than_64_mb() {
    let folder = Folder::new();
    drop(File::open(&folder.file(), Access::Service).expect("a file"));
    // Rows that grow in any order leave pages that are partly empty.
    for frames in [1, FRAMES + 1] {
        fill(&folder.file(), ACCOUNTS, NOW, frames);
    }
    let size = size(&folder.file()) >> 20;
    assert!((8..64).contains(&size), "{size} MiB");
    let mut file = File::open(&folder.file(), Access::Service).expect("a file");
    let usage = file.usage(TABLE, Some(&name(7)), NOW).expect("usage");
    assert_eq!(usage.len(), 2);
    // Two months later a few decisions have swept everything but the account that makes them.
    let later = NOW + 60 * 86_400_000;
    let questions: Vec<_> = (0..500).map(|_| Arc::new(asks("a", 1_000_000))).collect();
    for _ in 0..=ACCOUNTS / 4 / questions.len() {
        file.decide(&questions, || later).expect("decisions");
    }
    let usage = file.usage(TABLE, None, NOW).expect("usage");
    assert_eq!(usage.len(), 1);
}

#[test]
fn what_has_expired_is_deleted_and_nothing_else() {
    let folder = Folder::new();
    let mut file = File::open(&folder.file(), Access::Service).expect("a file");
    let decide = |file: &mut File, accounts: usize, kind: &str, now_ms: u64| {
        for number in 0..accounts {
            let account = format!("{kind}{number}");
            let question = asks_of(&format!("1.{account}"), &account, 10);
            file.decide(&[Arc::new(question)], || now_ms)
                .expect("a decision");
        }
    };
    decide(&mut file, 300, "old", NOW);
    let half = NOW + 30 * 60_000;
    decide(&mut file, 300, "new", half);
    let connection = look_into(&folder.file());
    let count = |table: &str| -> i64 {
        let count = format!("SELECT count(*) FROM {table}");
        connection
            .query_row(&count, [], |row| row.get(0))
            .expect("a count")
    };
    assert_eq!((count("usage"), count("messages")), (600, 600));
    // An hour, and the sixtieth by which a unit may be late.
    let later = NOW + 61 * 60_000 + 2_000;
    decide(&mut file, 400, "late", later);
    assert_eq!((count("usage"), count("messages")), (700, 700));
    // A clock that is set back makes nothing older.
    decide(&mut file, 400, "late", NOW);
    assert_eq!((count("usage"), count("messages")), (700, 700));
}

#[test]
fn memory_stays_flat_with_the_number_of_accounts() {
    let folder = Folder::new();
    drop(File::open(&folder.file(), Access::Service).expect("a file"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = now.expect("a time").as_millis() as u64;
    fill(&folder.file(), FEWER, now_ms, FRAMES + 1);
    run("reader", &folder, As::Self_);
}

/// Asks about accounts of the whole file.
pub(crate) async fn reader(folder: &Folder) {
    let store = service(&folder.file()).await;
    let mut rng = Rng::with_seed(seed());
    let mut ask = async |questions: usize| {
        for _ in 0..questions {
            let account = name(rng.usize(..FEWER));
            assert!(passes(&store, asks(&account, 1_000_000)).await);
        }
        assert!(store.is_up());
        resident()
    };
    let before = ask(100).await;
    let after = ask(20_000).await;
    assert!(after < before + (8 << 10), "{before} KiB, then {after} KiB");
}

/// The memory of this process in KiB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let mut words = line.expect("its memory").split_whitespace();
    words.nth(1).expect("a number").parse().expect("a number")
}

#[test]
fn memory_has_room_for_so_many_accounts_and_no_more() {
    let mut memory = Memory::default();
    let asks_again = |memory: &mut Memory| memory.decide(&asks("full", 2), NOW).refusal;
    assert_eq!(asks_again(&mut memory), None);
    assert_eq!(asks_again(&mut memory), None);
    for number in 0..250_000 {
        let account = format!("a{number}");
        let used = if number < 1000 { 3 } else { 1 };
        for turn in 0..used {
            let question = asks_of(&format!("{turn}.{number}"), &account, 10);
            memory.decide(&question, NOW);
        }
    }
    let usage = memory.usage(TABLE, None, NOW);
    assert!(usage.len() <= 200_000, "{}", usage.len());
    // Those stay that are nearest to their limit, whatever it is.
    assert_eq!(usage.iter().filter(|u| u.used == 3).count(), 1000);
    assert!(asks_again(&mut memory).is_some());
}
