//! A proxy that connects its clients with one address, whatever they ask for.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::support::{Seen, program::Reserved};

/// A running proxy for CONNECT.
pub(crate) struct Tunnel {
    address: SocketAddr,
    heads: Seen<String>,
    task: JoinHandle<()>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tunnel {
    /// Leads everybody to this address.
    pub(crate) fn to(goal: SocketAddr) -> Self {
        let reserved = Reserved::new();
        let address = reserved.address();
        let heads = Seen::new();
        let task = tokio::spawn(accept(reserved.listen(), goal, heads.clone()));
        Self {
            address,
            heads,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.all()
    }
}

async fn accept(listener: TcpListener, goal: SocketAddr, heads: Seen<String>) {
    let mut conversations = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        conversations.spawn(lead(stream, goal, heads.clone()));
    }
}

async fn lead(mut stream: TcpStream, goal: SocketAddr, heads: Seen<String>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).expect("a head of text");
    let is_connect = head.starts_with("CONNECT ");
    heads.push(head);
    if !is_connect {
        let refusal = b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n";
        drop(stream.write_all(refusal).await);
        return;
    }
    let Ok(mut there) = TcpStream::connect(goal).await else {
        return;
    };
    if stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.is_ok() {
        drop(copy_bidirectional(&mut stream, &mut there).await);
    }
}
