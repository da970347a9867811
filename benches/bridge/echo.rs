//! The least that any server can do: it sends back what it reads.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves connections until the process ends.
pub(crate) async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream));
    }
}

/// Serves one connection; any error ends it.
async fn connection(mut stream: TcpStream) -> Option<()> {
    let mut input = Vec::with_capacity(2048);
    while stream.read_buf(&mut input).await.ok()? > 0 {
        stream.write_all(&input).await.ok()?;
        input.clear();
    }
    Some(())
}
