//! The sockets of each table.

use crate::support::{
    backend::{Backend, good},
    peer::{netstring, question},
    program::{Binary, Launch},
    same,
    tables::{echo, echoed, found, table},
};

#[tokio::test]
async fn several_sockets_under_several_names_serve_their_tables() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let one = Backend::always(good(binary, "DUNNO"));
        let two = Backend::always(good(binary, "REJECT"));
        let name = binary.name();
        let config = format!(
            "[{name}.one]\ntarget = \"{}\"\n[{name}.two]\ntarget = \"{}\"\nsocket = \"second\"\n",
            one.url("/"),
            two.url("/")
        );
        let program = Launch::new(binary)
            .config(config)
            .unix("second")
            .tcp4("one")
            .tcp6("second")
            .tcp4("second")
            .unix("one")
            .ready()
            .await;
        for (number, value) in ["REJECT", "DUNNO", "REJECT", "REJECT", "DUNNO"]
            .into_iter()
            .enumerate()
        {
            let mut peer = program.peer_at(number).await;
            let reply = peer.ask(question(binary, "", "key")).await;
            same(name, &reply, &found(binary, value));
        }
        program.stop().await;
    }
}

#[tokio::test]
async fn what_is_ready_is_counted_without_tables_that_have_no_socket() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let config: String = ["one", "two", "three"]
            .map(|name| format!("[{}.{name}]\ntarget = \"http://[::1]:9/\"\n", binary.name()))
            .concat();
        let launch = Launch::new(binary).config(config);
        let launch = launch.unix("one").unix("three").tcp4("one");
        let program = launch.tcp4("metrics").ready().await;
        program.logged("ready: serving 2 tables on 3 sockets").await;
        program
            .notified("STATUS=serving 2 tables on 3 sockets", 1)
            .await;
    }
}

#[tokio::test]
async fn any_socket_serves_every_map() {
    let backend = echo(Binary::Socketmap);
    let config = table(Binary::Socketmap, &backend.url("/"), "")
        + &format!("[socketmap.u]\ntarget = \"{}\"\n", backend.url("/u"));
    let program = Launch::new(Binary::Socketmap)
        .config(config)
        .unix("anything")
        .tcp6("t")
        .tcp4("connection")
        .ready()
        .await;
    for number in 0..3 {
        let mut peer = program.peer_at(number).await;
        for map in ["t", "u"] {
            let reply = peer.ask(question(Binary::Socketmap, map, "key")).await;
            same(map, &reply, &netstring("OK key"));
        }
    }
}

#[tokio::test]
async fn with_one_table_every_socket_serves_it() {
    for binary in [Binary::TcpLookup, Binary::Policy] {
        let backend = echo(binary);
        let program = Launch::new(binary)
            .config(table(binary, &backend.url("/"), ""))
            .tcp4("whatever")
            .unix("t")
            .ready()
            .await;
        for number in 0..2 {
            let reply = program
                .peer_at(number)
                .await
                .ask(question(binary, "", "key"))
                .await;
            same(binary.name(), &reply, &echoed(binary, "key"));
        }
    }
}
