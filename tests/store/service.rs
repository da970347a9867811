//! The store as the service has it, and as a command has it beside the service.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use postgate::limits::{Mode, Usage};
use rusqlite::Connection;

use crate::support::{
    Folder, HOUR, Log, MINUTE, TABLE, asks, asks_of, beside, look_into, names, part, passes,
    service, until,
};
use postgate::limits::Units;

#[tokio::test]
async fn only_the_service_makes_the_file() {
    let (folder, log) = (Folder::new(), Log::new());
    let file = folder.file();
    let store = beside(&file);
    let error = store.usage(TABLE, None).await.expect_err("no file");
    let why = "there is no such file: the service makes it when it starts";
    assert_eq!(error.to_string(), format!("{}: {why}", file.display()));
    let error = store.reset(TABLE, "a").await.expect_err("no file");
    assert_eq!(error.to_string(), format!("{}: {why}", file.display()));
    let mut question = asks("a", 1);
    question.mode = Mode::Peek;
    assert!(passes(&store, question).await);
    assert!(!file.exists() && !store.is_up());
    let meanwhile = "until it is back, this process counts in its memory and shares no answers";
    assert_eq!(
        log.lines(&folder),
        [format!("WARN store: limits.sqlite: {why}: {meanwhile}")]
    );
    let store = service(&file).await;
    assert!(store.is_up() && passes(&store, asks("a", 1)).await);
    for name in ["limits.sqlite", "limits.sqlite-wal", "limits.sqlite-shm"] {
        let path = folder.path().join(name);
        let mode = fs::metadata(path).expect(name).permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    store.close().await;
    let left = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 1, "only the file, with everything in it");
}

#[tokio::test]
async fn what_was_counted_is_kept() {
    let folder = Folder::new();
    let store = service(&folder.file()).await;
    assert!(passes(&store, asks("a", 2)).await);
    assert!(passes(&store, asks_of("1.m", "a", 2)).await);
    assert!(!passes(&store, asks("a", 2)).await);
    drop(store);
    // Its threads end by themselves, with everything in the file.
    until(|| names(&folder) == ["limits.sqlite"]).await;
    let store = service(&folder.file()).await;
    assert!(!passes(&store, asks("a", 2)).await);
    assert!(passes(&store, asks_of("1.m", "a", 2)).await);
    assert!(!passes(&store, asks_of("2.m", "a", 2)).await);
}

/// A power cut leaves what has been written back, and no log.
#[tokio::test]
async fn the_log_is_written_back_while_the_file_is_in_use() {
    let folder = Folder::new();
    let store = service(&folder.file()).await;
    let copy = folder.path().join("copy.sqlite");
    let is_in_the_file = |account: &str| {
        fs::copy(folder.file(), &copy).expect("a copy");
        let count = "SELECT count(*) FROM usage WHERE account = ?1";
        // A copy of a file that is being written may be anything.
        look_into(&copy).query_row(count, [account], |row| row.get(0)) == Ok(1)
    };
    for account in ["a", "b"] {
        assert!(passes(&store, asks(account, 2)).await);
        assert!(!is_in_the_file(account));
        until(|| is_in_the_file(account)).await;
    }
}

#[tokio::test]
async fn commands_work_beside_the_service() {
    let folder = Folder::new();
    let store = service(&folder.file()).await;
    for (account, most, times) in [("a", 10, 3), ("b", 4, 3), ("c", 100, 20)] {
        for _ in 0..times {
            assert!(passes(&store, asks(account, most)).await);
        }
    }
    let mut other = asks("d", 1);
    other.parts = vec![part(
        "domain",
        "d",
        &[(MINUTE, None), (HOUR, Some(2))],
        Units::Add(1),
    )];
    assert!(passes(&store, other.clone()).await);
    other.table = "policy.other".into();
    assert!(passes(&store, other).await);
    let command = beside(&folder.file());
    let usage = command.usage(TABLE, None).await.expect("usage");
    let row = |u: &Usage| (u.limit.clone(), u.account.clone(), u.window, u.used, u.most);
    let rows: Vec<_> = usage.iter().map(row).collect();
    let expected = [
        ("login", "b", HOUR, 3, Some(4)),
        ("domain", "d", HOUR, 1, Some(2)),
        ("login", "a", HOUR, 3, Some(10)),
        ("login", "c", HOUR, 20, Some(100)),
        ("domain", "d", MINUTE, 1, None),
    ];
    let expected = expected.map(|(limit, account, window, used, most)| {
        (limit.to_owned(), account.to_owned(), window, used, most)
    });
    assert_eq!(rows, expected);
    assert!(usage.iter().all(|u| u.free_in == Duration::ZERO));
    let usage = command.usage(TABLE, Some("c")).await.expect("usage");
    assert_eq!(usage.iter().map(row).collect::<Vec<_>>(), expected[3..4]);
    // It works at once.
    assert!(passes(&store, asks("b", 4)).await);
    assert!(!passes(&store, asks("b", 4)).await);
    assert_eq!(command.reset(TABLE, "b").await, Ok(1));
    assert_eq!(command.reset(TABLE, "nobody").await, Ok(0));
    assert!(passes(&store, asks("b", 4)).await);
    // A question that charges nothing leaves nothing.
    let mut question = asks("e", 1);
    question.mode = Mode::Peek;
    assert!(passes(&command, question).await);
    assert_eq!(command.usage(TABLE, Some("e")).await, Ok(Vec::new()));
}

#[tokio::test]
async fn people_can_look_into_the_file_while_it_is_in_use() {
    let folder = Folder::new();
    let store = service(&folder.file()).await;
    let mut question = asks_of("1.m", "a", 7);
    question.parts[0]
        .rates
        .extend(asks("a", 9).parts[0].rates.clone());
    question.parts[0].rates[0].window = MINUTE;
    assert!(passes(&store, question).await);
    let connection = look_into(&folder.file());
    let text = |sql: &str| -> String {
        let row = connection.query_row(sql, [], |row| row.get(0));
        row.unwrap_or_else(|error| panic!("{sql}: {error}"))
    };
    let usage = r#"tbl || ' ' || "limit" || ' ' || account || ' ' || used"#;
    let expected = format!("{TABLE} login a 1m=1/7 1h=1/9");
    assert_eq!(text(&format!("SELECT {usage} FROM usage")), expected);
    let is_in_an_hour = "expires - unixepoch() BETWEEN 3600 AND 3600 + 3600 / 60 + 2";
    let count = format!("SELECT '' || count(*) FROM usage WHERE {is_in_an_hour}");
    assert_eq!(text(&count), "1");
    let count = "SELECT '' || count(*) FROM messages WHERE unixepoch() - seen BETWEEN 0 AND 60";
    assert_eq!(text(count), "1");
    assert_eq!(text("PRAGMA journal_mode"), "wal");
    assert_eq!(text("PRAGMA integrity_check"), "ok");
    // A reader that stays does not stop anything.
    let reader: Connection = look_into(&folder.file());
    reader
        .execute_batch("BEGIN; SELECT * FROM usage")
        .expect("a reader");
    for _ in 0..6 {
        assert!(passes(&store, asks("a", 7)).await);
    }
    assert!(!passes(&store, asks("a", 7)).await);
}
