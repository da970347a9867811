//! Files and disks that fail: memory counts until the store is back, with one warning.

use std::fs::{self, Permissions};
use std::iter;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;

use postgate::store::Store;
use rusqlite::Connection;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::children::{As, NOBODY, can_mount, is_root, remount, run};
use crate::support::{
    Folder, Log, SECOND, TABLE, asks, asks_of, beside, look_into, names, pass_time, passes, service,
};

const MEANWHILE: &str = "until it is back, this process counts in its memory and shares no answers";
const BACK: &str = "INFO store: it is back, and what it has counted holds again";

fn down(why: &str) -> String {
    format!("WARN store: {why}: {MEANWHILE}")
}

/// How many of these questions pass.
async fn count(store: &Store, account: &str, most: u64, questions: usize) -> usize {
    let mut passed = 0;
    for _ in 0..questions {
        passed += usize::from(passes(store, asks(account, most)).await);
    }
    passed
}

#[tokio::test]
async fn without_a_folder_memory_counts_until_there_is_one() {
    let (folder, log) = (Folder::new(), Log::new());
    let state = folder.path().join("state");
    let file = state.join("limits.sqlite");
    let store = service(&file).await;
    assert!(!store.is_up());
    assert_eq!(count(&store, "a", 3, 5).await, 3);
    pass_time(SECOND).await;
    assert_eq!(count(&store, "a", 3, 1).await, 0);
    fs::create_dir(&state).expect("a folder");
    // Nobody has looked since.
    assert_eq!(count(&store, "a", 3, 1).await, 0);
    pass_time(SECOND).await;
    assert_eq!(count(&store, "a", 3, 5).await, 3);
    assert!(store.is_up());
    let why = format!(
        "{}: there is no such folder (StateDirectory= in the unit makes it)",
        state.display()
    );
    let why = why.replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(log.lines(&folder), [down(&why), BACK.to_owned()]);
}

#[tokio::test]
async fn a_file_that_is_locked_costs_its_questions_a_moment_and_no_more() {
    let (folder, log) = (Folder::new(), Log::new());
    let store = Arc::new(service(&folder.file()).await);
    assert_eq!(count(&store, "a", 9, 4).await, 4);
    let other = look_into(&folder.file());
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    // All that are under way when it fails are one failure.
    let asking = iter::repeat_with(|| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { passes(&store, asks("a", 9)).await })
    });
    let asking: Vec<_> = asking.take(50).collect();
    let mut passed = 0;
    for asked in asking {
        passed += usize::from(asked.await.expect("an answer"));
    }
    assert_eq!((passed, store.is_up()), (9, false));
    pass_time(SECOND).await;
    assert_eq!(count(&store, "a", 9, 1).await, 0);
    assert!(!store.is_up());
    other.execute_batch("COMMIT").expect("no lock");
    pass_time(SECOND).await;
    // What memory has counted is dropped, and what the file has counted holds.
    assert_eq!(count(&store, "a", 9, 9).await, 5);
    let why = "limits.sqlite: it is locked by another process";
    assert_eq!(log.lines(&folder), [down(why), BACK.to_owned()]);
}

/// Whatever becomes of reservations while the store is down, it is so once it is back.
#[tokio::test]
async fn reservations_end_in_the_store_once_it_is_back() {
    let folder = Folder::new();
    let store = Arc::new(service(&folder.file()).await);
    let reserve = async || {
        let parts = asks("a", 4).parts;
        store.reserve(TABLE.into(), parts).await.1
    };
    let mut reserved = Vec::new();
    for _ in 0..4 {
        reserved.push(reserve().await.expect("room"));
    }
    assert!(reserve().await.is_none());
    let other = look_into(&folder.file());
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    // Two are refused by the API, one ends well, and of one nobody knows.
    for _ in 0..2 {
        assert!(reserved.remove(0).keep().await.is_some());
    }
    reserved.remove(0).release().await;
    drop(reserved);
    assert!(!store.is_up());
    other.execute_batch("COMMIT").expect("no lock");
    pass_time(SECOND).await;
    let (first, second) = (reserve().await, reserve().await);
    assert!(store.is_up() && first.is_some() && second.is_some());
    assert!(reserve().await.is_none());
    let used = store.usage(TABLE, Some("a")).await.expect("usage");
    assert_eq!(used.iter().map(|u| u.used).collect::<Vec<_>>(), [2]);
    // What is reserved at the end of the program is not reserved after it.
    drop((first, second));
    store.close().await;
    let store = service(&folder.file()).await;
    assert_eq!(count(&store, "a", 4, 3).await, 2);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_moved_aside() {
    let (folder, log) = (Folder::new(), Log::new());
    let file = folder.file();
    let text = "a text that somebody has put here, longer than the head of a database is, and more";
    fs::write(&file, text).expect("a file");
    fs::write(folder.path().join("limits.sqlite-wal"), "its log").expect("a file");
    // A command leaves it as it is.
    let error = beside(&file).usage(TABLE, None).await.expect_err("a text");
    assert_eq!(
        error.to_string(),
        format!("{}: it is no database", file.display())
    );
    let store = service(&file).await;
    assert!(store.is_up());
    assert_eq!(count(&store, "a", 3, 5).await, 3);
    store.close().await;
    let names = names(&folder);
    let [own, aside, _, log_aside] = &names[..] else {
        panic!("{names:?}");
    };
    assert_eq!(own, "limits.sqlite");
    let time = aside
        .strip_prefix("limits.sqlite.corrupt-")
        .expect("a name");
    assert!(time.parse::<u64>().is_ok(), "{aside}");
    assert_eq!(*log_aside, format!("{aside}-wal"));
    let moved = fs::read_to_string(folder.path().join(aside)).expect("the text");
    assert_eq!(moved, text);
    let moved = format!(
        "WARN store: limits.sqlite: it is no database: moved to {aside}, and the count begins anew"
    );
    assert_eq!(log.lines(&folder), [moved]);
}

/// Writes over the pages of a file, all but the first.
fn damage(file: &Path) {
    let size = fs::metadata(file).expect("a file").len();
    let file = fs::OpenOptions::new().write(true).open(file);
    let zeros = vec![0xff; usize::try_from(size).expect("a size") - 4096];
    file.expect("a file")
        .write_all_at(&zeros, 4096)
        .expect("a write");
}

#[tokio::test]
async fn a_file_that_is_damaged_is_moved_aside_once_in_a_minute() {
    let (folder, log) = (Folder::new(), Log::new());
    let file = folder.file();
    let store = service(&file).await;
    assert_eq!(count(&store, "a", 3, 5).await, 3);
    store.close().await;
    damage(&file);
    assert_eq!(count(&store, "a", 3, 5).await, 3);
    assert!(store.is_up());
    store.close().await;
    damage(&file);
    assert_eq!(count(&store, "a", 3, 5).await, 3);
    assert!(!store.is_up());
    let names = names(&folder);
    let is_file = |name: &&String| !name.ends_with("-wal") && !name.ends_with("-shm");
    let files: Vec<_> = names.iter().filter(is_file).collect();
    assert_eq!(files.len(), 2, "{names:?}");
    let moved = format!(
        "WARN store: limits.sqlite: it is damaged: moved to {}, and the count begins anew",
        files[1]
    );
    let expected = [moved, down("limits.sqlite: it is damaged")];
    assert_eq!(log.lines(&folder), expected);
}

#[tokio::test]
async fn a_file_of_another_kind_is_left_as_it_is() {
    for (schema, why) in [
        ("PRAGMA user_version = 2", "its version 2 is unknown"),
        (
            "CREATE TABLE mail (id)",
            "it is the database of something else",
        ),
    ] {
        let (folder, log) = (Folder::new(), Log::new());
        let made = Connection::open(folder.file()).expect("a database");
        made.execute_batch(schema).expect(schema);
        drop(made);
        let before = fs::read(folder.file()).expect("a file");
        let store = service(&folder.file()).await;
        assert_eq!(count(&store, "a", 3, 5).await, 3);
        assert!(!store.is_up());
        drop(store);
        let after = fs::read(folder.file()).expect("a file");
        assert!(after == before, "{schema}");
        assert_eq!(log.lines(&folder), [down(&format!("limits.sqlite: {why}"))]);
    }
    let folder = Folder::new();
    fs::write(folder.file(), "").expect("a file");
    let error = beside(&folder.file()).usage(TABLE, None).await;
    let error = error.expect_err("no tables").to_string();
    assert!(
        error.ends_with("it has no tables: the service makes them when it starts"),
        "{error}"
    );
    // The service does.
    assert!(service(&folder.file()).await.is_up());
}

/// A store that fails again and again must not give an account its limit each time.
#[tokio::test]
async fn what_memory_has_counted_is_there_at_the_next_failure() {
    let (folder, _log) = (Folder::new(), Log::new());
    let store = service(&folder.file()).await;
    let other = look_into(&folder.file());
    let mut passed = count(&store, "a", 4, 9).await;
    for _ in 0..3 {
        other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
        passed += count(&store, "a", 4, 9).await;
        assert!(!store.is_up());
        other.execute_batch("COMMIT").expect("an end");
        let began = std::time::Instant::now();
        while !store.is_up() {
            assert!(began.elapsed().as_secs() < 10, "it is not back");
            passed += count(&store, "a", 4, 1).await;
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(passed, 8);
}

const REPLACED: &str =
    "WARN store: limits.sqlite: it or its log was deleted or replaced, and what is there counts";

#[tokio::test]
async fn a_file_that_is_deleted_or_replaced_is_noticed_by_the_next_question() {
    let (folder, log) = (Folder::new(), Log::new());
    let file = folder.file();
    let store = service(&file).await;
    assert_eq!(count(&store, "a", 3, 2).await, 2);
    store.close().await;
    let copy = folder.path().join("copy");
    fs::copy(&file, &copy).expect("a copy");
    assert_eq!(count(&store, "a", 3, 2).await, 1);
    for name in ["limits.sqlite", "limits.sqlite-wal", "limits.sqlite-shm"] {
        fs::remove_file(folder.path().join(name)).expect(name);
    }
    assert_eq!(count(&store, "a", 3, 5).await, 3);
    fs::rename(&copy, &file).expect("a rename");
    assert_eq!(count(&store, "a", 3, 5).await, 1);
    assert!(store.is_up());
    assert_eq!(log.lines(&folder), [REPLACED, REPLACED]);
}

#[tokio::test]
async fn a_log_that_is_deleted_alone_loses_nothing() {
    let (folder, log) = (Folder::new(), Log::new());
    let store = service(&folder.file()).await;
    assert_eq!(count(&store, "a", 3, 2).await, 2);
    fs::remove_file(folder.path().join("limits.sqlite-wal")).expect("a log");
    assert_eq!(count(&store, "a", 3, 2).await, 1);
    // Another process sees all of it.
    let usage = beside(&folder.file()).usage(TABLE, Some("a")).await;
    assert_eq!(usage.expect("usage")[0].used, 3);
    assert!(store.is_up());
    assert_eq!(log.lines(&folder), [REPLACED]);
}

#[tokio::test]
async fn a_symlink_is_followed_and_stays() {
    let (folder, log) = (Folder::new(), Log::new());
    let target = folder.path().join("real");
    fs::write(&target, [b'x'; 8192]).expect("a corrupt file");
    std::os::unix::fs::symlink(&target, folder.file()).expect("a symlink");
    let store = service(&folder.file()).await;
    assert_eq!(count(&store, "a", 3, 5).await, 3);
    assert!(store.is_up());
    let is_link = fs::symlink_metadata(folder.file())
        .expect("the link")
        .is_symlink();
    assert!(is_link);
    let moved = names(&folder);
    let aside: Vec<_> = moved
        .iter()
        .filter(|name| name.starts_with("real.corrupt-"))
        .collect();
    assert_eq!(aside.len(), 1, "{moved:?}");
    assert_eq!(log.lines(&folder).len(), 1);
}

#[tokio::test]
async fn a_row_that_is_damaged_begins_anew() {
    let (folder, log) = (Folder::new(), Log::new());
    let store = service(&folder.file()).await;
    for account in ["a", "b", "c"] {
        assert_eq!(count(&store, account, 3, 2).await, 2);
    }
    assert!(passes(&store, asks_of("1.m", "c", 3)).await);
    let other = look_into(&folder.file());
    for damage in [
        "UPDATE usage SET state = x'0102' WHERE account = 'a'",
        "UPDATE usage SET state = 'text' WHERE account = 'b'",
        "UPDATE messages SET state = x''",
    ] {
        assert_eq!(other.execute(damage, []).expect(damage), 1);
    }
    assert_eq!(count(&store, "a", 3, 5).await, 3);
    assert_eq!(count(&store, "b", 3, 5).await, 3);
    assert_eq!(count(&store, "c", 3, 5).await, 0);
    // The message is charged once more, which its account has no room for.
    assert!(!passes(&store, asks_of("1.m", "c", 3)).await);
    assert!(store.is_up());
    let line = format!(
        "WARN store: {}: a row is damaged, and its count begins anew",
        "limits.sqlite"
    );
    assert_eq!(log.lines(&folder), [line]);
}

#[tokio::test]
async fn names_that_are_no_text_stop_nothing() {
    let folder = Folder::new();
    let store = service(&folder.file()).await;
    let other = look_into(&folder.file());
    let insert = "INSERT INTO usage VALUES
        (CAST(x'ff' AS TEXT), 'l', CAST(x'fe' AS TEXT), '', 0, x'01'),
        ('policy.outgoing', 'l', CAST(x'fe' AS TEXT), '', 'never', x'01')";
    assert_eq!(other.execute(insert, []).expect("rows"), 2);
    assert_eq!(count(&store, "a", 1000, 300).await, 300);
    assert!(store.is_up());
    let usage = store.usage(TABLE, None).await.expect("usage");
    assert_eq!(usage.len(), 1);
    // One has expired, the other says no time.
    let rows = "SELECT count(*) FROM usage";
    let rows: i64 = other
        .query_row(rows, [], |row| row.get(0))
        .expect("a count");
    assert_eq!(rows, 2);
}

#[test]
fn a_disk_that_is_full_or_read_only() {
    if can_mount() {
        run("full", &Folder::new(), As::WithDisk);
        run("read-only", &Folder::new(), As::WithDisk);
    }
}

pub(crate) async fn full(folder: &Folder) {
    let log = Log::new();
    let store = service(&folder.file()).await;
    assert_eq!(count(&store, "a", 1000, 3).await, 3);
    assert_eq!(count(&store, "spent", 2, 4).await, 2);
    let fill = |name| {
        let filler = folder.path().join(name);
        fs::write(&filler, vec![1; 2 << 20]).expect_err("a full disk");
        filler
    };
    let filler = fill("filler");
    let mut counted = 3;
    while store.is_up() {
        assert!(counted < 100, "the disk is not full");
        assert_eq!(count(&store, "a", 1000, 1).await, 1);
        counted += usize::from(store.is_up());
    }
    // The log was written back when the file was closed, which has left some room.
    let more = fill("more");
    pass_time(SECOND).await;
    assert_eq!(count(&store, "a", 10, 20).await, 9);
    // A refusal changes nothing, and must not make the store look as if it were back.
    pass_time(SECOND).await;
    assert_eq!(count(&store, "spent", 2, 1).await, 1);
    assert!(!store.is_up());
    fs::remove_file(&filler).expect("a file");
    fs::remove_file(&more).expect("a file");
    pass_time(SECOND).await;
    assert_eq!(count(&store, "a", 1000, 1).await, 1);
    let usage = store.usage(TABLE, None).await.expect("usage");
    let usage = usage.iter().find(|usage| usage.account == "a");
    assert_eq!(usage.expect("an account").used, counted as u64 + 1);
    let full = down("limits.sqlite: the disk is full");
    assert_eq!(log.lines(folder), [full, BACK.to_owned()]);
}

pub(crate) async fn read_only(folder: &Folder) {
    let store = service(&folder.file()).await;
    assert_eq!(count(&store, "a", 3, 2).await, 2);
    store.close().await;
    let log = Log::new();
    remount(folder.path(), "ro");
    assert_eq!(count(&store, "a", 3, 5).await, 3);
    remount(folder.path(), "rw");
    pass_time(SECOND).await;
    assert_eq!(count(&store, "a", 3, 5).await, 1);
    let lines = log.lines(folder);
    assert_eq!(
        lines,
        [
            down("limits.sqlite: Read-only file system (os error 30)"),
            BACK.to_owned()
        ]
    );
}

#[test]
fn a_disk_whose_writes_fail() {
    run("failing", &Folder::new(), As::WithLimit);
}

pub(crate) async fn failing(folder: &Folder) {
    let log = Log::new();
    let store = service(&folder.file()).await;
    assert_eq!(count(&store, "a", 3, 2).await, 2);
    let largest = getrlimit(Resource::Fsize);
    let none = Rlimit {
        current: Some(0),
        ..largest
    };
    setrlimit(Resource::Fsize, none).expect("a limit");
    assert_eq!(count(&store, "a", 3, 5).await, 3);
    setrlimit(Resource::Fsize, largest).expect("no limit");
    pass_time(SECOND).await;
    assert_eq!(count(&store, "a", 3, 5).await, 1);
    let lines = log.lines(folder);
    assert_eq!(
        lines,
        [down("limits.sqlite: disk I/O error"), BACK.to_owned()]
    );
}

#[test]
fn a_folder_or_file_that_may_not_be_written_to() {
    let folder = Folder::new();
    if is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("an owner");
    }
    run("forbidden", &folder, As::Nobody);
}

pub(crate) async fn forbidden(folder: &Folder) {
    let allow = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    };
    let log = Log::new();
    allow(folder.path(), 0o500);
    let store = service(&folder.file()).await;
    assert_eq!(count(&store, "a", 3, 5).await, 3);
    allow(folder.path(), 0o700);
    pass_time(SECOND).await;
    assert_eq!(count(&store, "a", 3, 2).await, 2);
    let why = "limits.sqlite: Permission denied (os error 13)";
    assert_eq!(log.lines(folder), [down(why), BACK.to_owned()]);
    store.close().await;
    pass_time(10 * SECOND).await;
    let log = Log::new();
    allow(&folder.file(), 0o400);
    // Memory has counted three before.
    assert_eq!(count(&store, "a", 3, 5).await, 0);
    allow(&folder.file(), 0o600);
    pass_time(SECOND).await;
    assert_eq!(count(&store, "a", 3, 5).await, 1);
    assert_eq!(log.lines(folder), [down(why), BACK.to_owned()]);
}
