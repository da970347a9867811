//! `--listen`.

use std::{
    os::unix::{
        fs::FileTypeExt,
        net::{UnixDatagram, UnixListener},
    },
    path::Path,
};

use rustix::process::Signal;

use super::{NOWHERE, users};
use crate::support::{
    Directory,
    backend::{Backend, good},
    peer::{Address, Peer, framed, question},
    program::{ALL, Binary, End, Launch, Reserved, listen},
    replies::DUNNO,
    same,
};

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
