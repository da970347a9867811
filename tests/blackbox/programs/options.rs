//! Options and wrong usage.

use std::net::TcpListener;

use super::{NOWHERE, users};
use crate::support::program::{ALL, Binary, Launch, listen};

#[tokio::test]
async fn help_and_version_are_printed_without_any_configuration() {
    for binary in ALL {
        for option in ["--help", "-h"] {
            let end = Launch::new(binary).argument(option).end().await;
            end.status(0);
            assert_eq!(end.stderr, "", "{option}");
            for word in [
                binary.name(),
                "--config",
                "--check",
                "--show",
                "--listen",
                "--query",
                "--help",
                "--version",
                "/etc/postgate/config.toml",
            ] {
                assert!(end.stdout.contains(word), "no {word} in {}", end.stdout);
            }
        }
        for option in ["--version", "-V"] {
            let end = Launch::new(binary).argument(option).end().await;
            end.status(0);
            assert_eq!(end.stderr, "", "{option}");
            let version = env!("CARGO_PKG_VERSION");
            assert!(end.stdout.contains(version), "{option}: {}", end.stdout);
            assert_eq!(end.stdout.lines().count(), 1, "{option}: {}", end.stdout);
        }
    }
}

#[tokio::test]
async fn a_reader_that_has_gone_away_is_no_fault_of_the_program() {
    for binary in ALL {
        for option in ["--help", "--version", "--show", "--check"] {
            let end = Launch::new(binary)
                .config(users(binary, NOWHERE))
                .argument(option)
                .unheard()
                .end()
                .await;
            // 101 would be a panic.
            assert_ne!(end.status, Some(101), "{binary:?} {option}");
        }
    }
}

#[tokio::test]
async fn wrong_usage_is_named_and_ends_with_64() {
    for binary in ALL {
        for (arguments, named) in [
            (&["--chek"][..], "--chek"),
            (&["-x"], "-x"),
            (&["surplus"], "surplus"),
            (&["--check", "surplus"], "surplus"),
            (&["--check=yes"], "--check"),
            (&["--listen"], "--listen"),
            (&["--config"], "--config"),
            (&["--query"], "--query"),
            (&["--query", "users", "key", "surplus"], "surplus"),
        ] {
            let mut launch = Launch::new(binary).config(users(binary, NOWHERE));
            for argument in arguments {
                launch = launch.argument(*argument);
            }
            let end = launch.end().await;
            end.status(64).says(named);
            assert!(
                end.stderr.starts_with(&format!("{}: ", binary.name())),
                "{end:?}"
            );
            assert_eq!(end.stdout, "");
        }
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_read_is_wrong_usage() {
    for address in [
        "",
        "nonsense",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:99999",
        "127.0.0.1:http",
        "256.0.0.1:9001",
        "[::1]",
        "[::1:9001",
        "users=",
        "users=127.0.0.1",
        "relative/path.sock",
    ] {
        let [option, value] = listen(address);
        let end = Launch::new(Binary::TcpLookup)
            .config(users(Binary::TcpLookup, NOWHERE))
            .argument(option)
            .argument(value)
            .end()
            .await;
        assert_eq!(end.status, Some(64), "{address:?}: {end:?}");
        end.says(address);
    }
}

#[tokio::test]
async fn listen_beside_the_sockets_of_systemd_is_wrong_usage() {
    for binary in ALL {
        let [option, value] = listen("127.0.0.1:0");
        Launch::new(binary)
            .config(users(binary, NOWHERE))
            .unix("users")
            .argument(option)
            .argument(value)
            .end()
            .await
            .status(64)
            .says("--listen");
    }
}

#[tokio::test]
async fn an_address_in_use_ends_with_69_and_is_named() {
    for binary in ALL {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = taken.local_addr().expect("an address").to_string();
        let [option, value] = listen(&address);
        Launch::new(binary)
            .config(users(binary, NOWHERE))
            .argument(option)
            .argument(value)
            .end()
            .await
            .status(69)
            .says(&address);
    }
}
