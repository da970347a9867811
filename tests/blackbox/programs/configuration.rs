//! Messages about a configuration, from `--check`, from `--show` and at the start.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Signal,
};

use super::{NOWHERE, users};
use crate::{
    servers::certificates::authority,
    support::{
        Directory,
        backend::{Backend, good, json},
        peer::{netstring, question},
        program::{ALL, Binary, Launch},
        replies::DUNNO,
        same,
    },
};

#[tokio::test]
async fn what_suits_lookups_alone_is_warned_about_for_a_policy_that_inherits_it() {
    const CONFIG: &str =
        "[http]\nmissing = \"not-found\"\n[policy.t]\ntarget = \"http://127.0.0.1/\"\n";
    const WARNING: &str = "warning: policy.t.missing: is inherited from [http]";
    let launch = || Launch::new(Binary::Policy).config(CONFIG);
    launch()
        .argument("--check")
        .end()
        .await
        .status(0)
        .says(WARNING);
    let program = launch().unix("t").ready().await;
    program.stop().await.says(WARNING);
}

#[tokio::test]
async fn a_program_stops_while_it_reads_a_configuration_that_does_not_end() {
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let program = Launch::new(binary)
            .config(users(binary, &backend.url("/")))
            .unix("users")
            .ready()
            .await;
        let path = program.config_path();
        std::fs::remove_file(path).expect("a removed file");
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        program.signal(Signal::HUP);
        program.notified("RELOADING=1", 1).await;
        // It opens when the program does, and says nothing.
        let writing = tokio::fs::OpenOptions::new().write(true).open(path).await;
        let _silent = writing.expect("a pipe that is read");
        let reply = program
            .peer()
            .await
            .ask(question(binary, "users", "key"))
            .await;
        same(binary.name(), &reply, &DUNNO.by(binary));
        program.stop().await;
    }
}

#[tokio::test]
async fn the_first_line_of_the_log_tells_version_and_configuration() {
    for binary in ALL {
        let program = Launch::new(binary)
            .config(users(binary, NOWHERE))
            .unix("users")
            .ready()
            .await;
        let path = program.config_path().display().to_string();
        let end = program.stop().await;
        let first = end.stderr.lines().next().expect("a line");
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            " INFO starting: {} {version}, configuration {path}",
            binary.name()
        );
        assert!(first.ends_with(&expected), "{first}");
    }
}

#[tokio::test]
async fn a_missing_file_is_a_configuration_error() {
    for binary in ALL {
        let missing = Directory::new().join("nothing.toml");
        for check in [true, false] {
            let mut launch = Launch::new(binary).argument("--config").argument(&missing);
            if check {
                launch = launch.argument("--check");
            } else {
                launch = launch.unix("users");
            }
            let end = launch.end().await;
            end.status(78).says(&missing.display().to_string());
            assert_eq!(end.stdout, "");
        }
    }
}

#[tokio::test]
async fn a_program_without_a_table_of_its_own_does_not_start() {
    for binary in ALL {
        let other = match binary {
            Binary::TcpLookup => Binary::Socketmap,
            Binary::Socketmap => Binary::Policy,
            Binary::Policy => Binary::TcpLookup,
        };
        for config in [users(other, NOWHERE), String::new()] {
            let launch = || Launch::new(binary).config(config.clone());
            let end = launch().argument("--check").end().await;
            end.status(78).says(&format!("[{}.", binary.name()));
            assert_eq!(end.stdout, "");
            let end = launch().unix("users").end().await;
            end.status(78).says(&format!("[{}.", binary.name()));
        }
    }
}

#[tokio::test]
async fn a_good_configuration_is_ok() {
    let all = ALL.map(|binary| users(binary, NOWHERE)).concat();
    for binary in ALL {
        let end = Launch::new(binary)
            .config(all.clone())
            .argument("--check")
            .end()
            .await;
        end.status(0);
        assert_eq!(end.stdout, "ok\n");
        assert_eq!(end.stderr, "");

        let directory = Directory::new();
        let path = directory.write("other.toml", &all);
        let end = Launch::new(binary)
            .argument("-c")
            .argument(path)
            .argument("--check")
            .end()
            .await;
        end.status(0);
        assert_eq!(end.stdout, "ok\n");
    }
}

#[tokio::test]
async fn every_problem_is_shown_with_its_place() {
    for binary in ALL {
        // The second table belongs to another program, which is no excuse.
        let other = match binary {
            Binary::Policy => "socketmap",
            _ => "policy",
        };
        let name = binary.name();
        let config = format!(
            "[{name}.users]\n\
             target = \"htp://directory/users\"\n\
             requst-timeout = \"5s\"\n\
             \n\
             [{other}.rest]\n\
             target = \"http://directory/\"\n\
             request-timeout = 5\n"
        );
        for check in [true, false] {
            let mut launch = Launch::new(binary).config(config.clone());
            let path = launch.directory().join("config.toml");
            let path = path.display();
            if check {
                launch = launch.argument("--check");
            } else {
                launch = launch.unix("users");
            }
            let end = launch.end().await;
            end.status(78);
            assert_eq!(end.stdout, "");
            for (place, key, word, line) in [
                (
                    "2:10",
                    format!("{name}.users.target"),
                    "htp://directory/users",
                    "target = \"htp://directory/users\"",
                ),
                (
                    "3:1",
                    format!("{name}.users.requst-timeout"),
                    "\"request-timeout\"",
                    // The value of an unknown key may be a secret.
                    "requst-timeout = ***",
                ),
                (
                    "7:19",
                    format!("{other}.rest.request-timeout"),
                    "\"5s\"",
                    "request-timeout = 5",
                ),
            ] {
                let start = format!("{name}: {path}:{place}: {key}: ");
                let mut lines = end.stderr.lines();
                let problem = lines.find(|line| line.starts_with(&start));
                let problem = problem.unwrap_or_else(|| panic!("no {start:?} in {end:#?}"));
                assert!(problem.contains(word), "no {word} in {problem}");
                let quoted = lines.next().unwrap_or_default();
                assert!(quoted.ends_with(line), "{quoted:?} does not quote {line:?}");
                let caret = lines.next().unwrap_or_default();
                assert!(caret.contains('^'), "no caret in {caret:?}");
                let under = caret.find('^').expect("a caret");
                let column = quoted.len() - line.len() + column(place) - 1;
                assert_eq!(under, column, "{quoted}\n{caret}");
            }
        }
    }
}

/// The column in `line:column`, counted from 1.
fn column(place: &str) -> usize {
    let (_, column) = place.split_once(':').expect("a place");
    column.parse().expect("a number")
}

#[tokio::test]
async fn a_secret_in_a_faulty_line_is_not_shown() {
    for config in [
        "[socketmap.t]\ntarget = \"http://h/\"\nauth-token = \"s3cret\n",
        "[socketmap.t]\ntarget = \"http://h/\"\nauth-token = 53\nbearer-token = [\"s3cret\"]\n",
        "[socketmap.t]\ntarget = \"http://h/\"\nauth-tokn = \"s3cret\"\n",
        "[socketmap.t]\ntarget = \"http://joe:s3cret@h/\"\n",
        "[socketmap.t]\ntarget = \"http://h/\"\nbearer-token = \"s3cret\" x\n",
        "[socketmap.t]\ntarget = \"http://h/\"\nbasic-auth = { user = \"u\", pasword = \"s3cret\" }\n",
        "[socketmap.t]\ntarget = \"http://h/\"\nheaders = { Host = \"s3cret\" }\n",
        "[socketmap.t]\ntarget = \"http://h/\"\nauth-token = \"s3cret\\nline\"\n",
    ] {
        let end = Launch::new(Binary::Socketmap)
            .config(config)
            .argument("--check")
            .end()
            .await;
        assert_eq!(end.status, Some(78), "{config}\n{end:#?}");
        end.says("config.toml:");
        assert!(!end.stderr.contains("s3cret"), "{config}\n{end:#?}");
        assert_eq!(end.stdout, "");
    }
}

#[tokio::test]
async fn a_variable_that_is_not_utf_8_is_not_shown() {
    let config = users(Binary::Policy, NOWHERE) + "auth-token = { env = \"POSTGATE_BYTES\" }\n";
    let launch = || {
        Launch::new(Binary::Policy)
            .config(config.clone())
            .environment("POSTGATE_BYTES", OsStr::from_bytes(b"p\xe4ss-s3cret"))
    };
    for (launch, status) in [
        (launch().argument("--check"), 0),
        (launch().unix("users"), 78),
    ] {
        let end = launch.end().await;
        end.status(status);
        end.says("not UTF-8");
        assert!(!end.stderr.contains("s3cret"), "{end:#?}");
    }
}

#[tokio::test]
async fn a_missing_or_empty_credential_is_a_warning_for_check_and_an_error_at_the_start() {
    for (secret, words) in [
        ("{ credential = \"s3t\" }", "s3t"),
        ("{ file = \"/nonexistent/s3t\" }", "s3t"),
        ("{ env = \"POSTGATE_S3T\" }", "s3t"),
        ("{ file = \"/dev/null\" }", "is empty"),
        ("{ env = \"POSTGATE_EMPTY\" }", "is empty"),
    ] {
        let config = users(Binary::Policy, NOWHERE) + &format!("auth-token = {secret}\n");
        let launch = || {
            Launch::new(Binary::Policy)
                .config(config.clone())
                .environment("POSTGATE_EMPTY", "")
        };
        let end = launch().argument("--check").end().await;
        end.status(0);
        end.says("warning: policy.users.auth-token: ");
        assert!(end.stderr.to_lowercase().contains(words), "{end:#?}");
        let end = launch().unix("users").end().await;
        end.status(78);
        assert!(end.stderr.to_lowercase().contains(words), "{end:#?}");
    }
}

#[tokio::test]
async fn show_prints_every_table_after_inheritance_and_hides_secrets() {
    for binary in ALL {
        let config = "[http]\nrequest-timeout = \"7s\"\nauth-token = \"s3cret-a\"\n\
                      [tcp-lookup.tl]\ntarget = \"http://tl.example/\"\n\
                      [socketmap.sm]\ntarget = \"http://sm.example/\"\n\
                      basic-auth = { user = \"joe\", password = \"s3cret-b\" }\n\
                      headers = { X-Api = \"s3cret-c\", X-Key = \"s3cret-e {key}\" }\n\
                      [policy.po]\ntarget = \"http://po.example/\"\nbearer-token = \"s3cret-d\"\n";
        let end = Launch::new(binary)
            .config(config)
            .argument("--show")
            .end()
            .await;
        end.status(0);
        for shown in [
            "[tcp-lookup.tl]",
            "[socketmap.sm]",
            "[policy.po]",
            "http://tl.example/",
            "http://sm.example/",
            "http://po.example/",
            "(hidden){key}",
            "max-in-flight",
        ] {
            assert!(end.stdout.contains(shown), "no {shown} in {end:#?}");
        }
        let inherited = end.stdout.matches("\"7s\"").count();
        assert!(inherited >= 3, "{end:#?}");
        assert!(!end.stdout.contains("s3cret"), "{end:#?}");
        assert!(!end.stderr.contains("s3cret"), "{end:#?}");
    }
}

#[tokio::test]
async fn show_prints_the_keys_of_transport() {
    let (_authority, directory, ca) = authority();
    let keys = format!(
        "{ca}tls.min-version = \"1.3\"\nproxy = \"environment\"\nredirects = \"same-origin\"\n\
         compression = \"both\"\nretries = 3\npool-idle = \"7s\"\n\
         normalise = {{ lowercase = true, delimiter = \"+\", pattern = \"a.*\" }}\n\
         basic-auth = {{ user = \"u\", password = \"s3cret\" }}\n"
    );
    let urls = "target = [\"https://one.example/{key}\", \"https://two.example/{key}\"]";
    let config = format!("[socketmap.t]\n{urls}\n{keys}");
    let end = Launch::new(Binary::Socketmap)
        .config(config)
        .argument("--show")
        .end()
        .await;
    end.status(0);
    let ca_file = directory.join("ca.pem").display().to_string();
    for shown in [
        "https://one.example/{key}",
        "https://two.example/{key}",
        ca_file.as_str(),
        "\"1.3\"",
        "\"environment\"",
        "\"same-origin\"",
        "\"both\"",
        "retries = 3",
        "pool-idle = \"7s\"",
        "\"a.*\"",
    ] {
        assert!(end.stdout.contains(shown), "no {shown:?} in {end:#?}");
    }
    assert!(!end.stdout.contains("s3cret"), "{end:#?}");
    assert!(!end.stdout.contains("BEGIN"), "{end:#?}");
}

#[tokio::test]
async fn the_environment_does_not_change_the_way_to_the_backend() {
    let backend = Backend::always(json("\"v\""));
    let proxy = Backend::always(json("\"from the proxy\""));
    let program = Launch::new(Binary::Socketmap)
        .config(users(Binary::Socketmap, &backend.url("/")))
        .environment("http_proxy", proxy.url(""))
        .environment("HTTP_PROXY", proxy.url(""))
        .environment("ALL_PROXY", proxy.url(""))
        .unix("users")
        .ready()
        .await;
    let reply = program
        .peer()
        .await
        .ask(question(Binary::Socketmap, "users", "key"))
        .await;
    same("direct", &reply, &netstring("OK v"));
    assert_eq!(proxy.count(), 0);
}
