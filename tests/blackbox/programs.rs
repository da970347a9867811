//! The programs as commands: options, exit statuses, what they print, and the sockets they take
//! and refuse.

use std::{
    ffi::OsStr,
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{
        ffi::OsStrExt,
        fs::FileTypeExt,
        net::{UnixDatagram, UnixListener},
    },
    path::Path,
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    net::{AddressFamily, SocketFlags, SocketType, bind, socket_with},
    process::Signal,
};

use crate::support::{
    Directory,
    backend::{Act, Backend, Script, good, json, plain, status},
    peer::{Address, Peer, framed, netstring, question},
    program::{ALL, Binary, End, Launch, Reserved, Socket, listen, said},
    said::{BROKEN, DUNNO, LATER},
    same,
};

/// A target nobody asks.
const NOWHERE: &str = "http://127.0.0.1:9/";

/// One endpoint `users` at this target.
fn users(binary: Binary, target: &str) -> String {
    format!("[{}.users]\ntarget = \"{target}\"\n", binary.name())
}

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

#[tokio::test]
async fn without_sockets_the_expected_name_is_told() {
    for binary in ALL {
        let end = Launch::new(binary)
            .config(users(binary, NOWHERE))
            .end()
            .await;
        end.status(69).says("FileDescriptorName=").says("--listen");
        if binary != Binary::Socketmap {
            end.says("users");
        }
    }
}

#[tokio::test]
async fn the_sockets_of_another_process_are_not_taken() {
    for binary in ALL {
        let launch = || {
            Launch::new(binary)
                .config(users(binary, NOWHERE))
                .unix("users")
        };
        let end = launch().foreign_pid().end().await;
        end.status(69)
            .says("FileDescriptorName=")
            .says("LISTEN_PID is 1, and this process is ");
        let end = launch().no_pid().end().await;
        end.status(69)
            .says("FileDescriptorName=")
            .says("LISTEN_FDS is set and LISTEN_PID is not");
        let broken = launch().no_pid().environment("LISTEN_PID", "1x");
        let end = broken.end().await;
        end.status(69)
            .says("FileDescriptorName=")
            .says("LISTEN_PID is \"1x\", which is no process id");
        let end = launch().environment("LISTEN_FDS", "0").end().await;
        end.status(69);
    }
}

#[tokio::test]
async fn names_and_sockets_must_be_equally_many() {
    for binary in ALL {
        for names in ["users:users", "users:users:users:users"] {
            let end = Launch::new(binary)
                .config(users(binary, NOWHERE))
                .unix("users")
                .unix("users")
                .unix("users")
                .names(names)
                .end()
                .await;
            end.status(69).says("LISTEN_FDNAMES");
        }
    }
}

#[tokio::test]
async fn a_number_of_sockets_that_is_none_is_refused() {
    for number in ["x", "-1", "99999999999999999999"] {
        Launch::new(Binary::Socketmap)
            .config(users(Binary::Socketmap, NOWHERE))
            .unix("users")
            .environment("LISTEN_FDS", number)
            .end()
            .await
            .status(69);
    }
}

#[tokio::test]
async fn what_is_no_listening_stream_socket_is_refused() {
    let directory = Directory::new();
    let udp = || UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let datagram = |name: &str| UnixDatagram::bind(directory.join(name)).expect("a socket");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let connected = || TcpStream::connect(address).expect("a connection");
    let bound = || {
        let family = AddressFamily::INET;
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.expect("a socket");
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
        bind(&socket, &any).expect("a bound socket");
        socket
    };
    let file = || std::fs::File::open("/dev/null").expect("a file");
    for binary in ALL {
        for socket in [
            Socket::odd("users", udp()),
            Socket::odd("users", datagram(binary.name())),
            Socket::odd("users", connected()),
            Socket::odd("users", bound()),
            Socket::odd("users", file()),
        ] {
            let end = Launch::new(binary)
                .config(users(binary, NOWHERE))
                .socket(socket)
                .end()
                .await;
            end.status(69).says("users");
        }
        // One among good ones is refused as well: a unit that is half right is wrong.
        Launch::new(binary)
            .config(users(binary, NOWHERE))
            .unix("users")
            .socket(Socket::odd("users", udp()))
            .end()
            .await
            .status(69)
            .says("users");
    }
    // The usual reason for a connected socket has a remedy.
    Launch::new(Binary::Socketmap)
        .config(users(Binary::Socketmap, NOWHERE))
        .socket(Socket::odd("users", connected()))
        .end()
        .await
        .status(69)
        .says("Accept=");
}

#[tokio::test]
async fn a_socket_whose_name_fits_no_table_is_a_configuration_error() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let name = binary.name();
        let config = users(binary, NOWHERE)
            + &format!("[{name}.domains]\ntarget = \"{NOWHERE}\"\nsocket = \"other\"\n");
        // A table with a socket name of its own does not answer to its own any more.
        for socket in ["nobody", "domains", "connection"] {
            let end = Launch::new(binary)
                .config(config.clone())
                .unix("users")
                .unix(socket)
                .end()
                .await;
            end.status(78).says(socket);
        }
    }
}

#[tokio::test]
async fn a_table_without_a_socket_is_a_warning() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let backend = Backend::always(good(binary, "DUNNO"));
        let config = users(binary, &backend.url("/"))
            + &format!("[{}.domains]\ntarget = \"{NOWHERE}\"\n", binary.name());
        let program = Launch::new(binary)
            .config(config)
            .unix("users")
            .ready()
            .await;
        let reply = program.peer().await.ask(question(binary, "", "key")).await;
        same(binary.name(), &reply, &DUNNO.by(binary));
        program.stop().await.says("domains");
    }
}

#[tokio::test]
async fn a_table_without_a_socket_is_a_warning_of_a_reload_too() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let name = binary.name();
        let program = Launch::new(binary)
            .config(users(binary, NOWHERE))
            .unix("users")
            .ready()
            .await;
        let domains = format!("[{name}.domains]\ntarget = \"{NOWHERE}\"\n");
        program.rewrite(&(users(binary, NOWHERE) + &domains));
        program.signal(Signal::HUP);
        program.logged("reload: done").await;
        let end = program.stop().await;
        end.says(&format!("reload: {name}: no socket named \"domains\""));
    }
}

#[tokio::test]
async fn what_suits_lookups_alone_is_warned_about_for_a_policy_that_inherits_it() {
    const CONFIG: &str =
        "[http]\nmissing = \"not-found\"\n[policy.t]\ntarget = \"http://127.0.0.1/\"\n";
    const WARNING: &str = "warning: policy.t.missing: comes from [http]";
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
        program.told("RELOADING=1", 1).await;
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
                    // What an unknown key holds may be a secret.
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

/// Asks once by `--query`.
async fn query(binary: Binary, script: Script, arguments: &[&str], input: &str) -> End {
    let backend = Backend::always(script);
    let mut launch = Launch::new(binary)
        .config(users(binary, &backend.url("/")))
        .argument("--query");
    for argument in arguments {
        launch = launch.argument(*argument);
    }
    launch.end_after(input.as_bytes()).await
}

#[tokio::test]
async fn a_queried_lookup_exits_as_postmap_does() {
    for binary in [Binary::TcpLookup, Binary::Socketmap] {
        let ask = |script| query(binary, script, &["users", "a b@c.example"], "");
        let end = ask(json("\"Grüße, 50%\"")).await;
        end.status(0);
        assert_eq!(end.stdout, "Grüße, 50%\n", "as it is, not as it is framed");
        for (script, exit, reason) in [
            (status(404), 1, ""),
            (json("null"), 1, ""),
            (status(503), 75, "backend answered 503"),
            (vec![Act::Reset], 75, "backend unreachable"),
            (json("{}"), 75, "backend answer not understood"),
            (json("\"a\\u0000\""), 75, "value cannot be sent"),
            (status(400), 76, "backend answered 400"),
        ] {
            let end = ask(script).await;
            end.status(exit).says(reason);
            assert_eq!(end.stdout, "");
        }
    }
}

#[tokio::test]
async fn a_queried_socketmap_value_with_a_newline_is_temporary() {
    let end = query(Binary::Socketmap, json("\"a\\nb\""), &["users", "k"], "").await;
    end.status(75).says("value cannot be sent");
    assert_eq!(end.stdout, "");
}

#[tokio::test]
async fn a_queried_name_that_no_table_has_is_said() {
    let end = query(Binary::Socketmap, json("\"v\""), &["nobody", "key"], "").await;
    assert_eq!(end.stdout, "");
    end.status(76).says("unknown map");
    for (binary, arguments) in [
        (Binary::TcpLookup, &["nobody", "key"][..]),
        (Binary::Policy, &["nobody"]),
    ] {
        let end = query(binary, json("\"v\""), arguments, "sender=\n\n").await;
        assert_eq!(end.stdout, "");
        end.status(64).says("nobody");
    }
}

#[tokio::test]
async fn a_queried_policy_reads_attributes_and_prints_the_action() {
    let input = "request=smtpd_access_policy\nsender=a=b&c@d.example\n\n";
    for (script, exit, action) in [
        (plain("REJECT no"), 0, "REJECT no"),
        (status(204), 1, "DUNNO"),
        (status(503), 75, LATER),
        (plain("OK"), 75, LATER),
        (plain(""), 75, LATER),
        (status(404), 76, BROKEN),
    ] {
        let end = query(Binary::Policy, script, &["users"], input).await;
        end.status(exit);
        assert_eq!(end.stdout, format!("{action}\n"));
    }
}

#[tokio::test]
async fn a_queried_policy_asks_with_the_attributes_it_read() {
    let backend = Backend::always(plain("DUNNO"));
    let config = users(Binary::Policy, &backend.url("/"));
    let launch = || {
        Launch::new(Binary::Policy)
            .config(config.clone())
            .argument("--query")
            .argument("users")
    };
    // With and without the empty line, as people type it.
    for input in [
        "sender=a=b&c@d.example\nsize=\n\n",
        "sender=a=b&c@d.example\nsize=\n",
    ] {
        launch().end_after(input.as_bytes()).await.status(0);
    }
    for request in backend.requests() {
        assert_eq!(
            request.form(),
            [
                (b"sender".to_vec(), b"a=b&c@d.example".to_vec()),
                (b"size".to_vec(), b"".to_vec())
            ]
        );
    }
    assert_eq!(backend.count(), 2);
    let end = launch().end_after(b"no attribute\n\n").await;
    assert_ne!(end.status, Some(0));
    assert_eq!(backend.count(), 2, "a malformed request was asked");
}

#[tokio::test]
async fn a_query_needs_no_socket_and_takes_none() {
    let backend = Backend::always(json("\"v\""));
    let program = Launch::new(Binary::Socketmap)
        .config(users(Binary::Socketmap, &backend.url("/")))
        .argument("--query")
        .argument("users")
        .argument("key")
        .start();
    let told = program.notices.clone();
    let end = program.end().await;
    end.status(0);
    assert_eq!(end.stdout, "v\n");
    assert_eq!(said(&told.all(), "READY=1"), 0);
}

#[tokio::test]
async fn a_unix_socket_of_its_own_is_made_and_removed() {
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let launch = Launch::new(binary).config(users(binary, &backend.url("/")));
        let path = launch.directory().join("own.sock");
        let [option, value] = listen(&path);
        let program = launch.argument(option).argument(value).ready().await;
        let mut peer = Peer::connect(&Address::Unix(path.clone()), binary).await;
        let reply = peer.ask(question(binary, "users", "key")).await;
        same(binary.name(), &reply, &DUNNO.by(binary));
        program.signal(Signal::TERM);
        peer.expect_eof().await;
        let left = program.end_then(|| path.exists()).await;
        assert!(!left, "the socket was left behind");
    }
}

#[tokio::test]
async fn a_unix_socket_of_a_successor_is_left_alone() {
    for binary in ALL {
        let launch = Launch::new(binary).config(users(binary, NOWHERE));
        let path = launch.directory().join("own.sock");
        let [option, value] = listen(&path);
        let program = launch.argument(option).argument(value).ready().await;
        std::fs::remove_file(&path).expect("a removed socket");
        let successor = UnixListener::bind(&path).expect("a socket");
        program.signal(Signal::TERM);
        let connected = program.end_then(|| std::os::unix::net::UnixStream::connect(&path));
        connected.await.expect("a connection");
        successor.accept().expect("the successor's connection");
    }
}

#[tokio::test]
async fn a_unix_socket_left_behind_is_replaced() {
    for binary in ALL {
        let backend = Backend::always(good(binary, "DUNNO"));
        let launch = Launch::new(binary).config(users(binary, &backend.url("/")));
        let path = launch.directory().join("own.sock");
        drop(UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists());
        let [option, value] = listen(&path);
        let _program = launch.argument(option).argument(value).ready().await;
        let mut peer = Peer::connect(&Address::Unix(path), binary).await;
        let reply = peer.ask(question(binary, "users", "key")).await;
        same(binary.name(), &reply, &DUNNO.by(binary));
    }
}

/// Starts a program that cannot have this path for its socket, and says so.
async fn listens_in_vain(binary: Binary, path: &Path) -> End {
    let [option, value] = listen(path);
    let end = Launch::new(binary)
        .config(users(binary, NOWHERE))
        .argument(option)
        .argument(value)
        .end()
        .await;
    end.status(69).says(&path.display().to_string());
    end
}

#[tokio::test]
async fn a_living_unix_socket_is_not_stolen() {
    for binary in ALL {
        let directory = Directory::new();
        let path = directory.join("other.sock");
        let other = UnixListener::bind(&path).expect("a socket");
        listens_in_vain(binary, &path).await;
        // It is still the other's: a connection arrives there.
        let _connected = std::os::unix::net::UnixStream::connect(&path).expect("a connection");
        other.accept().expect("the other's connection");
    }
}

#[tokio::test]
async fn a_unix_socket_that_may_be_in_use_is_left_alone() {
    for binary in ALL {
        let directory = Directory::new();
        let path = directory.join("other.sock");
        // It takes no connection of ours, and yet it is in use.
        let other = UnixDatagram::bind(&path).expect("a socket");
        listens_in_vain(binary, &path)
            .await
            .says("another program may listen there");
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.send_to(b"x", &path).expect("the other's datagram");
        assert_eq!(other.recv(&mut [0]).expect("a datagram"), 1);
    }
}

#[tokio::test]
async fn a_file_in_the_way_of_a_unix_socket_is_left_alone() {
    for binary in ALL {
        let directory = Directory::new();
        let path = directory.write("precious", "data");
        listens_in_vain(binary, &path).await;
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "data");
    }
}

#[tokio::test]
async fn a_unix_socket_that_cannot_be_made_ends_with_69() {
    let directory = Directory::new();
    let taken = directory.path().display().to_string();
    // The kernel takes 107 bytes.
    let long = format!("{taken}/{}", "a".repeat(108));
    for binary in ALL {
        for path in ["/nonexistent/directory/own.sock", &taken, &long] {
            let [option, value] = listen(path);
            Launch::new(binary)
                .config(users(binary, NOWHERE))
                .argument(option)
                .argument(value)
                .end()
                .await
                .status(69)
                .says(path);
        }
    }
}

#[tokio::test]
async fn listen_serves_tcp_and_several_addresses_by_name() {
    for binary in ALL {
        let one = Backend::always(good(binary, "DUNNO"));
        let two = Backend::always(good(binary, "REJECT"));
        let name = binary.name();
        let config = format!(
            "[{name}.one]\ntarget = \"{}\"\n[{name}.two]\ntarget = \"{}\"\n",
            one.url("/"),
            two.url("/")
        );
        let reserved = Reserved::new();
        let tcp = reserved.address();
        let launch = Launch::new(binary).config(config);
        let path = launch.directory().join("two.sock");
        let program = launch
            .argument("--listen")
            .argument(format!("one={tcp}"))
            .argument("--listen")
            .argument(format!("two={}", path.display()))
            .ready()
            .await;
        assert!(
            std::fs::metadata(&path)
                .expect("a file")
                .file_type()
                .is_socket()
        );
        let mut peer = Peer::connect(&Address::Tcp(tcp), binary).await;
        let reply = peer.ask(question(binary, "one", "key")).await;
        same(name, &reply, &DUNNO.by(binary));
        let mut peer = Peer::connect(&Address::Unix(path), binary).await;
        let reply = peer.ask(question(binary, "two", "key")).await;
        let second = match binary {
            Binary::TcpLookup => "200 REJECT",
            Binary::Socketmap => "OK REJECT",
            Binary::Policy => "REJECT",
        };
        same(name, &reply, &framed(binary, second));
        program.stop().await;
    }
}

#[tokio::test]
async fn listen_takes_an_ipv6_address() {
    for binary in ALL {
        let program = Launch::new(binary)
            .config(users(binary, NOWHERE))
            .argument("--listen")
            .argument("[::1]:0")
            .ready()
            .await;
        program.stop().await;
    }
}

#[tokio::test]
async fn every_socket_that_fits_no_table_is_named() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let config = users(binary, NOWHERE)
            + &format!("[{}.domains]\ntarget = \"{NOWHERE}\"\n", binary.name());
        let launch = Launch::new(binary).config(config);
        let launch = launch.unix("two").unix("users").unix("one").unix("two");
        let end = launch.tcp4("metrics").end().await;
        end.status(78)
            .says("sockets \"one\", \"two\" fit no table")
            .says("domains, users");
    }
}

#[tokio::test]
async fn a_name_for_listen_that_fits_no_table_is_a_configuration_error() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let config = users(binary, NOWHERE)
            + &format!("[{}.domains]\ntarget = \"{NOWHERE}\"\n", binary.name());
        Launch::new(binary)
            .config(config)
            .argument("--listen")
            .argument("nobody=127.0.0.1:0")
            .end()
            .await
            .status(78)
            .says("nobody");
    }
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
