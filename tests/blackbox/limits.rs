//! Limits of calls and connections: they hold exactly, and each table has its own.

use rustix::process::Signal;

use crate::support::{
    backend::{Act, Backend, Gate, good},
    peer::{netstring, question},
    program::{ALL, Binary, Launch},
    same,
    tables::{echo, echo_of, echoed, found, gated, key_of, serve_tcp, table, table_named},
};

#[tokio::test]
async fn a_slow_endpoint_delays_nobody_elses() {
    const SLOW: usize = 40;
    for binary in ALL {
        let gate = Gate::shut();
        // Both tables are at one backend, which the connections are shared to.
        let backend = {
            let gate = gate.clone();
            Backend::new(move |request| {
                if !request.target.starts_with("/slow") {
                    return echo_of(binary, &key_of(binary, request));
                }
                let mut script = vec![Act::Wait(gate.clone())];
                script.extend(good(binary, "DUNNO"));
                script
            })
        };
        let patient = "request-timeout = \"80s\"\nmax-in-flight = 10";
        let config = table_named(binary, "slow", &backend.url("/slow"), patient)
            + &table(binary, &backend.url("/"), "max-in-flight = 1");
        let launch = Launch::new(binary).config(config);
        let program = launch.tcp4("slow").tcp4("t").ready().await;
        let mut slow = Vec::new();
        for _ in 0..SLOW {
            let mut peer = program.peer_at(0).await;
            peer.send(question(binary, "slow", "key")).await;
            slow.push(peer);
        }
        backend.asked(10).await;
        let mut kept = program.peer_at(1).await;
        for round in 0..30 {
            let key = format!("key{round}");
            let mut fresh = program.peer_at(1).await;
            for peer in [&mut kept, &mut fresh] {
                let reply = peer.ask(question(binary, "t", &key)).await;
                same(binary.name(), &reply, &echoed(binary, &key));
            }
        }
        assert_eq!(backend.count(), 10 + 60, "{binary:?}");
        gate.pass(SLOW);
        for peer in &mut slow {
            same(binary.name(), &peer.reply().await, &found(binary, "DUNNO"));
        }
    }
}

#[tokio::test]
async fn there_are_never_more_calls_than_allowed_and_as_many() {
    const PEERS: usize = 40;
    const MOST: usize = 7;
    for binary in ALL {
        let (backend, gate) = gated(binary);
        let keys = format!("request-timeout = \"80s\"\nmax-in-flight = {MOST}");
        let program = serve_tcp(binary, table(binary, &backend.url("/"), &keys)).await;
        let mut peers = program.asking(PEERS).await;
        for answered in 0..PEERS {
            backend.asked((answered + MOST).min(PEERS)).await;
            gate.pass(1);
        }
        for peer in &mut peers {
            same(binary.name(), &peer.reply().await, &found(binary, "DUNNO"));
        }
        assert_eq!(backend.count(), PEERS, "{binary:?}");
        assert_eq!(backend.most_at_once(), MOST, "{binary:?}");
    }
}

#[tokio::test]
async fn a_peer_that_goes_away_gives_its_place_back() {
    const MOST: usize = 3;
    for binary in ALL {
        let (backend, gate) = gated(binary);
        let keys = format!("request-timeout = \"80s\"\nmax-in-flight = {MOST}");
        let program = serve_tcp(binary, table(binary, &backend.url("/"), &keys)).await;
        for round in 1..=5 {
            let mut peers = Vec::new();
            // One is being asked for, one waits for its place.
            for _ in 0..2 * MOST {
                let mut peer = program.peer().await;
                peer.send(question(binary, "t", "key")).await;
                peers.push(peer);
            }
            backend.asked(round * MOST).await;
            let waiting = peers.split_off(MOST);
            for peer in waiting.into_iter().chain(peers) {
                peer.reset();
            }
            // The gate is shut, so these calls end only because nobody waits for them.
            gate.pass(0);
            let mut peer = program.peer().await;
            peer.send(question(binary, "t", "key")).await;
            peer.reset();
            if round < 5 {
                continue;
            }
            let mut last = program.peer().await;
            last.send(question(binary, "t", "key")).await;
            gate.pass(1_000);
            same(binary.name(), &last.reply().await, &found(binary, "DUNNO"));
        }
    }
}

#[tokio::test]
async fn of_more_connections_than_allowed_none_is_closed_before_its_first_answer() {
    const PEERS: usize = 30;
    for binary in ALL {
        let backend = echo(binary);
        let config = format!(
            "[server]\nmax-connections = 5\n{}",
            table(binary, &backend.url("/"), "")
        );
        let program = serve_tcp(binary, config).await;
        let mut peers = Vec::new();
        for _ in 0..PEERS {
            let mut peer = program.peer().await;
            peer.send_what_it_takes(question(binary, "t", "key")).await;
            peers.push(peer);
        }
        let mut unanswered = 0;
        for peer in &mut peers {
            match peer.reply_or_end().await {
                Ok(reply) => same(binary.name(), &reply, &echoed(binary, "key")),
                Err(_) => unanswered += 1,
            }
        }
        assert_eq!(unanswered, 0, "{binary:?}: of {PEERS}");
    }
}

#[tokio::test]
async fn there_are_never_more_connections_than_allowed_and_as_many() {
    const PEERS: usize = 30;
    const MOST: usize = 5;
    for binary in ALL {
        let (backend, gate) = gated(binary);
        let keys = "request-timeout = \"80s\"";
        let config = format!(
            "[server]\nmax-connections = {MOST}\n{}",
            table(binary, &backend.url("/"), keys)
        );
        let program = serve_tcp(binary, config).await;
        let mut peers = program.asking(PEERS).await;
        for answered in 0..PEERS {
            backend.asked((answered + MOST).min(PEERS)).await;
            gate.pass(1);
        }
        // Each of them is answered, and most had to make room afterwards.
        for peer in &mut peers {
            same(binary.name(), &peer.reply().await, &found(binary, "DUNNO"));
        }
        for peer in &mut peers[..PEERS - MOST] {
            peer.expect_eof().await;
        }
        assert_eq!(backend.count(), PEERS, "{binary:?}");
        assert_eq!(backend.most_at_once(), MOST, "{binary:?}");
    }
}

#[tokio::test]
async fn at_the_cap_the_connection_idle_longest_makes_room() {
    for binary in ALL {
        let backend = echo(binary);
        let config = format!(
            "[server]\nmax-connections = 3\n{}",
            table(binary, &backend.url("/"), "")
        );
        let program = serve_tcp(binary, config).await;
        let mut peers = Vec::new();
        for _ in 0..3 {
            let mut peer = program.peer().await;
            peer.ask(question(binary, "t", "first")).await;
            peers.push(peer);
        }
        // From here on the second one is idle longest, and has time to notice that itself.
        for _ in 0..20 {
            let reply = peers[0].ask(question(binary, "t", "again")).await;
            same(binary.name(), &reply, &echoed(binary, "again"));
        }
        let mut fourth = program.peer().await;
        let reply = fourth.ask(question(binary, "t", "fourth")).await;
        same(binary.name(), &reply, &echoed(binary, "fourth"));
        peers[1].expect_eof().await;
        for number in [0, 2] {
            let reply = peers[number].ask(question(binary, "t", "kept")).await;
            same(binary.name(), &reply, &echoed(binary, "kept"));
        }
    }
}

#[tokio::test]
async fn where_all_are_busy_a_new_connection_waits_and_is_served() {
    for binary in ALL {
        let gate = Gate::shut();
        let mut script = vec![Act::Wait(gate.clone())];
        script.extend(good(binary, "DUNNO"));
        let backend = Backend::always(script);
        let config = format!(
            "[server]\nmax-connections = 2\n{}",
            table(binary, &backend.url("/"), "request-timeout = \"80s\"")
        );
        let program = serve_tcp(binary, config).await;
        let mut busy = program.asking(2).await;
        backend.asked(2).await;
        let mut third = program.peer().await;
        third.send(question(binary, "t", "key")).await;
        assert_eq!(backend.count(), 2, "{binary:?}");
        gate.pass(2);
        for peer in &mut busy {
            same(binary.name(), &peer.reply().await, &found(binary, "DUNNO"));
        }
        backend.asked(3).await;
        gate.pass(1);
        same(binary.name(), &third.reply().await, &found(binary, "DUNNO"));
    }
}

#[tokio::test]
async fn a_reload_that_raises_the_cap_lets_in_who_waits() {
    let binary = Binary::Socketmap;
    let backend = Backend::always(vec![Act::Hang]);
    let table = table(binary, &backend.url("/"), "request-timeout = \"80s\"");
    let config = |cap| format!("[server]\nmax-connections = {cap}\n{table}");
    let program = serve_tcp(binary, config(1)).await;
    let _busy = program.asking(1).await;
    backend.asked(1).await;
    let _waiting = program.asking(1).await;
    program.rewrite(&config(2));
    program.signal(Signal::HUP);
    backend.asked(2).await;
}

#[tokio::test]
async fn a_hanging_backend_holds_up_its_own_table_only() {
    let hanging = Backend::always(vec![Act::Hang]);
    let well = echo(Binary::Socketmap);
    let config = format!(
        "[socketmap.slow]\ntarget = \"{}\"\nmax-in-flight = 1\nrequest-timeout = \"500ms\"\n\
         [socketmap.t]\ntarget = \"{}\"\nmax-in-flight = 1\n",
        hanging.url("/"),
        well.url("/")
    );
    let program = serve_tcp(Binary::Socketmap, config).await;
    let mut first = program.peer().await;
    let mut second = program.peer().await;
    let mut other = program.peer().await;
    first.send(netstring("slow a")).await;
    hanging.asked(1).await;
    second.send(netstring("slow b")).await;
    let reply = other.ask(question(Binary::Socketmap, "t", "key")).await;
    same("the other table", &reply, &echoed(Binary::Socketmap, "key"));
    same(
        "first",
        &first.reply().await,
        &netstring("TIMEOUT backend timed out"),
    );
    // It waits in vain to its own deadline, or gets the place in its last moment.
    let busy = netstring("TEMP backend busy");
    let late = netstring("TIMEOUT backend timed out");
    let reply = second.reply().await;
    assert!(
        reply == busy || reply == late,
        "{}",
        crate::support::shown(&reply)
    );
}

#[tokio::test]
async fn of_many_waiting_for_one_place_each_is_answered_in_time() {
    let hanging = Backend::always(vec![Act::Hang]);
    let keys = "max-in-flight = 1\nrequest-timeout = \"500ms\"";
    let config = table(Binary::Socketmap, &hanging.url("/"), keys);
    let program = serve_tcp(Binary::Socketmap, config).await;
    let mut peers = Vec::new();
    for _ in 0..100 {
        let mut peer = program.peer().await;
        peer.send(question(Binary::Socketmap, "t", "key")).await;
        peers.push(peer);
    }
    // The order decides which of these a peer gets; there is no other reply.
    let reasons = [
        "TEMP backend busy",
        "TIMEOUT backend timed out",
        "TEMP backend down",
    ];
    for peer in &mut peers {
        let reply = peer.reply().await;
        let is_one = reasons.iter().any(|reason| reply == netstring(reason));
        assert!(is_one, "{}", crate::support::shown(&reply));
    }
}

#[tokio::test]
async fn a_place_that_becomes_free_is_taken_by_the_one_who_waits() {
    for binary in ALL {
        let gate = Gate::shut();
        let mut script = vec![Act::Wait(gate.clone())];
        script.extend(good(binary, "DUNNO"));
        let backend = Backend::always(script);
        let keys = "max-in-flight = 1\nrequest-timeout = \"80s\"";
        let program = serve_tcp(binary, table(binary, &backend.url("/"), keys)).await;
        let mut first = program.peer().await;
        let mut second = program.peer().await;
        first.send(question(binary, "t", "key")).await;
        backend.asked(1).await;
        second.send(question(binary, "t", "key")).await;
        gate.pass(1);
        same(binary.name(), &first.reply().await, &found(binary, "DUNNO"));
        backend.asked(2).await;
        gate.pass(1);
        same(
            binary.name(),
            &second.reply().await,
            &found(binary, "DUNNO"),
        );
    }
}

#[tokio::test]
async fn many_take_turns_at_one_place() {
    for binary in ALL {
        let backend = echo(binary);
        let keys = "max-in-flight = 1\nrequest-timeout = \"80s\"";
        let program = serve_tcp(binary, table(binary, &backend.url("/"), keys)).await;
        let mut peers = Vec::new();
        for number in 0..200 {
            let mut peer = program.peer().await;
            peer.send(question(binary, "t", format!("key{number}")))
                .await;
            peers.push(peer);
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            let expected = echoed(binary, &format!("key{number}"));
            same(binary.name(), &peer.reply().await, &expected);
        }
    }
}
