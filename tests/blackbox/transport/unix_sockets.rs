//! Backends behind a unix socket.

use tokio::net::UnixListener;

use crate::{
    servers::web::{Answer, Web},
    support::{
        Directory,
        backend::{Backend, dunno, json as answer},
        peer::{netstring, question},
        program::{ALL, Binary, Launch},
        replies::{DUNNO, UNREACHABLE},
        same,
        tables::{ask, expect, expect_of, serve, table},
    },
};

#[tokio::test]
async fn a_backend_is_asked_over_a_unix_socket() {
    for binary in ALL {
        for host in ["backend.invalid", "backend.invalid:8080", "localhost"] {
            let directory = Directory::new();
            let path = directory.join("backend.sock");
            let server = Web::unix(&path, |_| Answer::dunno());
            let keys = format!("unix-socket = \"{}\"", path.display());
            let config = table(binary, &format!("http://{host}/ask"), &keys);
            expect(binary, config, DUNNO).await;
            let visit = server.only();
            assert_eq!(visit.header("host"), Some(host));
            let (method, target) = match binary {
                Binary::TcpLookup => ("GET", "/ask?key=key"),
                Binary::Socketmap => ("GET", "/ask?name=t&key=key"),
                Binary::Policy => ("POST", "/ask"),
            };
            assert_eq!(
                (visit.method.as_str(), visit.target.as_str()),
                (method, target)
            );
        }
    }
}

#[tokio::test]
async fn a_backend_on_a_unix_socket_learns_nothing_of_a_proxy() {
    let binary = Binary::Socketmap;
    let proxy = Backend::always(dunno());
    let directory = Directory::new();
    let path = directory.join("backend.sock");
    let server = Web::unix(&path, |_| Answer::dunno());
    let keys = format!("unix-socket = \"{}\"", path.display());
    let table = table(binary, "http://backend.invalid/", &keys);
    let url = proxy.url("").replace("http://", "http://user:s3cret@");
    let launch = Launch::new(binary)
        .config(format!("[http]\nproxy = \"environment\"\n{table}"))
        .environment("http_proxy", url);
    expect_of(launch, binary, DUNNO).await;
    assert_eq!(server.only().header("proxy-authorization"), None);
    assert_eq!(proxy.count(), 0);
}

#[tokio::test]
async fn a_connection_over_a_unix_socket_is_kept() {
    let directory = Directory::new();
    let path = directory.join("backend.sock");
    let server = Web::unix(&path, |_| Answer::dunno());
    let keys = format!("unix-socket = \"{}\"", path.display());
    let binary = Binary::Socketmap;
    let program = serve(binary, table(binary, "http://backend.invalid/", &keys)).await;
    let mut peer = program.peer().await;
    for _ in 0..5 {
        let reply = peer.ask(question(binary, "t", "key")).await;
        same("found", &reply, &DUNNO.by(binary));
    }
    let visits = server.visits();
    assert!(
        visits.iter().all(|visit| visit.connection == 0),
        "{visits:?}"
    );
}

#[tokio::test]
async fn a_unix_socket_without_anybody_behind_it_is_unreachable() {
    let binary = Binary::Socketmap;
    let directory = Directory::new();
    let deserted = directory.join("deserted.sock");
    drop(UnixListener::bind(&deserted).expect("a listening socket"));
    let missing = directory.join("missing.sock");
    let file = directory.write("file", "");
    for path in [&missing, &deserted, &file, &directory.path().to_owned()] {
        let keys = format!("unix-socket = \"{}\"", path.display());
        let config = table(binary, "http://127.0.0.1/", &keys);
        expect(binary, config, UNREACHABLE).await;
    }
}

#[tokio::test]
async fn a_unix_socket_that_comes_later_is_found() {
    let directory = Directory::new();
    let path = directory.join("backend.sock");
    let keys = format!("unix-socket = \"{}\"", path.display());
    let binary = Binary::Socketmap;
    let program = serve(binary, table(binary, "http://backend.invalid/", &keys)).await;
    let reply = ask(&program, binary, "key").await;
    same("before", &reply, &UNREACHABLE.by(binary));
    let _server = Web::unix(&path, |_| Answer::dunno());
    let reply = ask(&program, binary, "key").await;
    same("after", &reply, &DUNNO.by(binary));
}

#[tokio::test]
async fn two_unix_sockets_with_one_target_are_kept_apart() {
    let directory = Directory::new();
    let [one, two] = ["one", "two"].map(|name| directory.join(name));
    let _one = Web::unix(&one, |_| Answer::json("\"one\""));
    let _two = Web::unix(&two, |_| Answer::json("\"two\""));
    let tcp = Backend::always(answer("\"tcp\""));
    let url = tcp.url("/");
    let config = format!(
        "[socketmap.one]\ntarget = \"{url}\"\nunix-socket = \"{}\"\n\
         [socketmap.two]\ntarget = \"{url}\"\nunix-socket = \"{}\"\n\
         [socketmap.tcp]\ntarget = \"{url}\"\n",
        one.display(),
        two.display()
    );
    let program = serve(Binary::Socketmap, config).await;
    let mut peer = program.peer().await;
    for map in ["one", "two", "tcp", "one"] {
        let reply = peer.ask(question(Binary::Socketmap, map, "key")).await;
        same(map, &reply, &netstring(format!("OK {map}")));
    }
}

#[tokio::test]
async fn a_redirect_stays_on_the_unix_socket() {
    let directory = Directory::new();
    let path = directory.join("backend.sock");
    let server = Web::unix(&path, |visit| match visit.target.as_str() {
        "/ask?name=t&key=key" => Answer::redirect(302, "http://backend.invalid/there"),
        _ => Answer::dunno(),
    });
    let keys = format!(
        "unix-socket = \"{}\"\nredirects = \"same-origin\"\n",
        path.display()
    );
    let binary = Binary::Socketmap;
    expect(
        binary,
        table(binary, "http://backend.invalid/ask", &keys),
        DUNNO,
    )
    .await;
    assert_eq!(server.visits()[1].target, "/there");
}
