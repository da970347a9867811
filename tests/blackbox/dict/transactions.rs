//! Whole transactions as one call, and transactions that are open side by side.

use super::{bodies, hello, serve, served, table, talk};
use crate::support::{
    backend::{Act, Backend, Gate, Script, raw, status},
    program::Launch,
};

fn commit(backend: &Backend) -> String {
    format!("commit = {{ target = \"{}\" }}", backend.url("/tx"))
}

#[tokio::test]
async fn a_transaction_is_one_call_with_all_its_operations() {
    let backend = Backend::always(status(200));
    let (_program, mut peer) = served(&backend, &commit(&backend)).await;
    talk(&mut peer,
        "B7\tjoe@x.test\t60\nS7\tpriv/quota/storage\t476\nU7\tshared/b\nA7\tshared/n\t-018\nS7\tpriv/m\ta\x01t\"\x01n\x010\nC7\n",
        "O7\n").await;
    talk(&mut peer, "B8\t\nS8\tshared/k\t\nC8\n", "O8\n").await;
    talk(&mut peer, "B9\t\nC9\n", "O9\n").await;
    let requests = backend.requests();
    assert_eq!(
        bodies(&requests),
        [
            "POST /tx {\"user\":\"joe@x.test\",\"dict\":\"t\",\"operations\":[\
             {\"op\":\"set\",\"key\":\"priv/quota/storage\",\"value\":\"476\"},\
             {\"op\":\"unset\",\"key\":\"shared/b\"},\
             {\"op\":\"increment\",\"key\":\"shared/n\",\"by\":-18},\
             {\"op\":\"set\",\"key\":\"priv/m\",\"value\":\"a\\t\\\"\\n\\u0000\"}],\"expires\":60}",
            "POST /tx {\"user\":\"\",\"dict\":\"t\",\"operations\":[\
             {\"op\":\"set\",\"key\":\"shared/k\",\"value\":\"\"}],\"expires\":0}",
        ]
    );
    assert_eq!(requests[0].header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn the_call_may_have_more_than_the_operations() {
    let backend = Backend::always(status(200));
    let keys = format!(
        "commit = {{ target = \"{}\", method = \"PUT\", query = {{ d = \"{{dict}}\" }}, json = {{ tx = [\"{{*}}\"], by = \"{{user}}\" }}, headers = {{ X-User = \"{{user}}\" }} }}",
        backend.url("/tx/{user}")
    );
    let (_program, mut peer) = served(&backend, &keys).await;
    talk(&mut peer, "B1\tj/o\nS1\tpriv/k\tv\nC1\n", "O1\n").await;
    let request = backend.only();
    assert_eq!(
        bodies(std::slice::from_ref(&request)),
        [
            "PUT /tx/j%2Fo?d=t {\"tx\":[{\"user\":\"j/o\",\"dict\":\"t\",\"operations\":[{\"op\":\"set\",\"key\":\"priv/k\",\"value\":\"v\"}],\"expires\":0}],\"by\":\"j/o\"}"
        ]
    );
    assert_eq!(request.header("x-user"), Some("j/o"));
}

#[tokio::test]
async fn a_transaction_is_done_failed_or_uncertain_as_a_whole() {
    for (answer, expected) in [
        (status(204), "O1\n"),
        (status(404), "F1\tbackend answered 404\n"),
        (status(409), "F1\tbackend answered 409\n"),
        (status(503), "F1\tbackend answered 503\n"),
        (vec![Act::Close], "W1\tbackend unreachable\n"),
        (vec![Act::Hang], "W1\tbackend timed out\n"),
        (
            vec![
                raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
                Act::Reset,
            ],
            "W1\tbackend answer not understood\n",
        ),
    ] {
        let backend = Backend::always(answer);
        let keys = format!("{}\nrequest-timeout = \"500ms\"", commit(&backend));
        let (_program, mut peer) = served(&backend, &keys).await;
        talk(
            &mut peer,
            "B1\t\nS1\tshared/a\t1\nA1\tshared/n\t1\nC1\n",
            expected,
        )
        .await;
        assert_eq!(backend.count(), 1, "{expected}");
    }
    // Bytes that are not UTF-8 cannot be sent in JSON, and a key of a user needs one.
    let backend = Backend::always(status(200));
    let (_program, mut peer) = served(&backend, &commit(&backend)).await;
    peer.send(b"B1\t\nS1\tshared/a\t\xff\nC1\n").await;
    peer.expect("F1\tvalue cannot be sent\n").await;
    peer.send(b"B1\t\nS1\tshared/\xff\ta\nC1\n").await;
    peer.expect("F1\tkey cannot be sent\n").await;
    talk(
        &mut peer,
        "B1\t\nS1\tpriv/a\tv\nC1\n",
        "F1\tkey cannot be sent\n",
    )
    .await;
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_client_that_goes_leaves_nothing_behind() {
    let backend = Backend::always(status(200));
    let program = serve(table(&backend.url("/d"), &commit(&backend))).await;
    for sent in [
        "B1\t\nS1\tshared/a\t1\n",
        "B1\t\nS1\tshared/a\t1\nC1",
        "B1\t\nS1\tshared/a\t1\nR1\n",
    ] {
        let mut peer = hello(&program).await;
        peer.send(sent).await;
        peer.finish().await;
        peer.expect_eof().await;
    }
    // The number of another connection's transaction is that of none.
    let mut other = hello(&program).await;
    talk(&mut other, "C1\n", "F1\trequest not understood\n").await;
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn bounds_are_said_at_the_commit_and_cost_nothing_else() {
    let backend = Backend::always(status(200));
    let (_program, mut peer) = served(&backend, &commit(&backend)).await;
    let operations = |id: usize, count: usize, length: usize| {
        format!("S{id}\tshared/k\t{}\n", "x".repeat(length)).repeat(count)
    };
    for (count, length, expected) in [
        (1_000, 1, "O1\n"),
        (1_001, 1, "F1\trequest too long\n"),
        (17, 61_000, "O1\n"),
        (18, 61_000, "F1\trequest too long\n"),
    ] {
        peer.send(format!("B1\t\n{}C1\n", operations(1, count, length)))
            .await;
        peer.expect(expected).await;
    }
    assert_eq!(backend.count(), 2);
    for id in 1..=65 {
        peer.send(format!("B{id}\t\n{}", operations(id, 1, 1)))
            .await;
    }
    for id in (1..=65).rev() {
        let expected = if id == 65 {
            "F65\trequest too long\n".to_owned()
        } else {
            format!("O{id}\n")
        };
        talk(&mut peer, &format!("C{id}\n"), &expected).await;
    }
    // A line that is too long closes the connection, and no other.
    let mut other = hello(&_program).await;
    other.send_what_it_takes(operations(1, 1, 70_000)).await;
    other.expect_closed().await;
    talk(&mut peer, "B1\t\nC1\n", "O1\n").await;
}

#[tokio::test]
async fn a_transaction_that_was_asked_for_is_finished_at_a_stop() {
    let gate = Gate::shut();
    let mut script: Script = vec![Act::Wait(gate.clone())];
    script.extend(status(200));
    let backend = Backend::always(script);
    let (program, mut peer) = served(&backend, &commit(&backend)).await;
    peer.send("B1\t\nS1\tshared/a\t1\nC1\nB2\t\nS2\tshared/b\t1\n")
        .await;
    backend.asked(1).await;
    program.signal(rustix::process::Signal::TERM);
    program.logged("stopping: ").await;
    gate.pass(1);
    peer.expect("O1\n").await;
    peer.expect_eof().await;
    program.end().await.status(0);
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_commit_stands_in_place_of_single_operations() {
    let config = table(
        "http://127.0.0.1:9/",
        "commit = { target = \"http://127.0.0.1:9/\" }\nset = { target = \"http://127.0.0.1:9/{key}\", body = \"{value}\" }",
    );
    let end = Launch::dict()
        .config(config)
        .argument("--check")
        .end()
        .await;
    end.status(78).says("dict.t.set: commit is there as well");
}
