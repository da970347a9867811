//! An address that never answers.

use std::{future::pending, net::SocketAddr};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::support::soon;

/// A listener that accepts no connection and whose queue is full: further connections wait.
pub(crate) struct Hole {
    address: SocketAddr,
    _listener: TcpListener,
    _queue: JoinSet<()>,
}

impl Hole {
    pub(crate) async fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind("127.0.0.1:0".parse().expect("an address"))
            .expect("a bound socket");
        // A queue of 0 holds one connection.
        let listener = socket.listen(0).expect("a listening socket");
        let address = listener.local_addr().expect("an address");
        let first = soon("a connection", TcpStream::connect(address)).await;
        let first = first.expect("a connection");
        let mut queue = JoinSet::new();
        queue.spawn(async move {
            let _kept = first;
            pending::<()>().await;
        });
        for _ in 0..8 {
            queue.spawn(async move {
                let _kept = TcpStream::connect(address).await;
                pending::<()>().await;
            });
        }
        Self {
            address,
            _listener: listener,
            _queue: queue,
        }
    }

    pub(crate) fn url(&self, scheme: &str, target: &str) -> String {
        format!("{scheme}://{}{target}", self.address)
    }
}
