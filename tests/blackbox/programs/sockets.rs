//! Sockets from systemd, and their names.

use std::{
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixDatagram,
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, bind, socket_with},
    process::Signal,
};

use super::{NOWHERE, users};
use crate::support::{
    Directory,
    backend::{Backend, good},
    peer::question,
    program::{ALL, Binary, Launch, Socket},
    replies::DUNNO,
    same,
};

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
            .says("LISTEN_PID is \"1x\", which is not a process id");
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
