//! What connections take: as much as those of socketmap, whatever was asked on them.

use super::{hello, table, talk};
use crate::support::{
    backend::{Backend, good, json, status},
    peer::{Peer, question},
    program::{Binary, Launch, Program, allow_descriptors},
    tables,
};

/// How many KiB more a program takes for so many connections, without the first tenth of them.
async fn more(program: &Program, peers: usize, mut next: impl AsyncFnMut(&Program) -> Peer) -> u64 {
    let mut open = Vec::with_capacity(peers);
    let mut before = 0;
    for number in 0..peers {
        // Those allocate memory that the program uses for all of them.
        if number == peers / 10 {
            before = program.memory();
        }
        open.push(next(program).await);
    }
    program.memory().saturating_sub(before)
}

#[tokio::test]
async fn a_thousand_connections_take_as_much_as_those_of_socketmap() {
    const PEERS: usize = 1_000;
    allow_descriptors(10_000);
    let server = "[server]\nmax-connections = 4096\n";
    let backend = Backend::always(json("\"v\""));
    let config = format!("{server}{}", table(&backend.url("/d"), ""));
    let dict = Launch::dict().config(config).unix("dict").ready().await;
    let of_dict = more(&dict, PEERS, async |program| {
        let mut peer = hello(program).await;
        talk(&mut peer, "Lshared/passdb/joe@x.test\tjoe@x.test\n", "Ov\n").await;
        peer
    })
    .await;
    let binary = Binary::Socketmap;
    let backend = Backend::always(good(binary, "v"));
    let config = format!("{server}{}", tables::table(binary, &backend.url("/"), ""));
    let socketmap = Launch::new(binary).config(config).unix("t").ready().await;
    let of_socketmap = more(&socketmap, PEERS, async |program| {
        let mut peer = program.peer().await;
        peer.ask(question(binary, "t", "joe@x.test")).await;
        peer
    })
    .await;
    println!("dict: {of_dict} KiB, socketmap: {of_socketmap} KiB");
    // Half a KiB for each is what a hello and its bookkeeping may take.
    assert!(
        of_dict <= of_socketmap + 512,
        "{of_dict} KiB, and socketmap {of_socketmap} KiB"
    );
}

#[tokio::test]
async fn an_idle_connection_keeps_nothing_of_what_was_asked() {
    const PEERS: usize = 200;
    let backend = Backend::new(|request| match request.method.as_str() {
        "GET" => json("\"v\""),
        _ => status(200),
    });
    let keys = format!("commit = {{ target = \"{}\" }}", backend.url("/tx"));
    let config = table(&backend.url("/d"), &keys);
    let program = Launch::dict().config(config).unix("dict").ready().await;
    let lookup = format!("Lshared/{}\t\n", "x".repeat(60_000));
    let set = format!("S1\tshared/k\t{}\n", "x".repeat(60_000));
    let transaction = format!("B1\t\n{}C1\n", set.repeat(2));
    let rolled_back = format!("B2\t\n{}R2\n", set.replace("S1", "S2").repeat(2));
    let more = more(&program, PEERS, async |program| {
        let mut peer = hello(program).await;
        talk(&mut peer, &lookup, "Ov\n").await;
        talk(&mut peer, &transaction, "O1\n").await;
        talk(&mut peer, &format!("{rolled_back}Lshared/k\t\n"), "Ov\n").await;
        peer
    })
    .await;
    // Half of what one line of each would take. The allocator itself keeps some.
    assert!(more <= 5 * 1024, "{more} KiB more");
}
