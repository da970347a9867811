//! The way to a Redis: TCP, TLS or a unix socket, and the login.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::select;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::failure::Failure;
use crate::config::{HttpVersion, RedisAddress, RedisUrl, Tls};
use crate::http::resolver::Resolver;
use crate::http::tls::{Authorities, client_config};
use crate::serve::socket::tune;
use crate::store::error::StoreError;

/// Makes connections to a Redis.
pub(super) struct Connector {
    address: RedisAddress,
    login: RedisConnectionInfo,
    resolver: Resolver,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// After this time without an answer from an address the next one is tried beside it.
    patience: Duration,
}

/// A connection, which is closed once nobody holds it.
pub(super) struct Live {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Live {
    /// Returns the connection, which many may use at once.
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Returns whether the connection has not been closed by the other side.
    pub(super) fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // It would wait for the answers of a Redis that hangs.
        self.driver.abort();
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Makes a connector. For TLS it reads the system's authorities.
    pub(super) fn new(url: &RedisUrl, timeout: Duration) -> Result<Self, StoreError> {
        let mut login = RedisConnectionInfo::default()
            .set_db(url.database.into())
            // A user of the access control list may lack the right to say it.
            .set_skip_set_lib_name();
        if let Some(user) = &url.user {
            login = login.set_username(user);
        }
        if let Some(password) = url.password() {
            login = login.set_password(password);
        }
        let tls = match &url.address {
            RedisAddress::Tcp { host, is_tls, .. } if *is_tls => Some(tls(host)?),
            _ => None,
        };
        Ok(Self {
            address: url.address.clone(),
            login,
            resolver: Resolver::default(),
            tls,
            patience: timeout / 4,
        })
    }

    /// Connects and logs in. The caller bounds the time.
    pub(super) async fn connect(&self) -> Result<Live, Failure> {
        let failed =
            |error: io::Error| Failure::Other(format!("cannot connect: {}: {error}", self.address));
        match &self.address {
            RedisAddress::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(failed)?;
                self.log_in(stream).await
            }
            RedisAddress::Tcp { host, port, .. } => {
                let addresses = self.addresses(host, *port).await.map_err(failed)?;
                let stream = any(addresses, self.patience).await.map_err(failed)?;
                tune(&stream).map_err(failed)?;
                match &self.tls {
                    None => self.log_in(stream).await,
                    Some((connector, name)) => {
                        let stream = connector.connect(name.clone(), stream).await;
                        self.log_in(stream.map_err(failed)?).await
                    }
                }
            }
        }
    }

    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let found = self.resolver.look_up(host).await?;
        Ok(found.into_iter().map(|ip| (ip, port).into()).collect())
    }

    async fn log_in<C>(&self, stream: C) -> Result<Live, Failure>
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let made = MultiplexedConnection::new_with_config(&self.login, stream, config).await;
        let (connection, driver) = made.map_err(Failure::from)?;
        Ok(Live {
            connection,
            driver: tokio::spawn(driver),
        })
    }
}

/// Returns TLS as backends have it, and the name that the certificate must have.
fn tls(host: &str) -> Result<(TlsConnector, ServerName<'static>), StoreError> {
    let mut authorities = Authorities::default();
    let config = client_config(&Tls::default(), HttpVersion::Auto, &mut authorities);
    let mut config = config.map_err(StoreError)?;
    config.alpn_protocols.clear();
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| StoreError("the host has no name for TLS".to_owned()))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// Connects to the first address that answers. An address that is silent must not use up the time
/// for the next.
async fn any(addresses: Vec<SocketAddr>, patience: Duration) -> io::Result<TcpStream> {
    let mut addresses = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        let is_last = match addresses.next() {
            Some(address) => {
                attempts.spawn(TcpStream::connect(address));
                false
            }
            None => true,
        };
        let joined = select! {
            joined = attempts.join_next() => joined,
            () = sleep(patience), if !is_last => continue,
        };
        match joined {
            None => return Err(error),
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(failed))) => error = failed,
            Some(Err(failed)) => error = failed.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address that does not answer: its backlog is full.
    async fn silent() -> (TcpListener, SocketAddr, JoinSet<()>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = JoinSet::new();
        for _ in 0..8 {
            waiting.spawn(async move {
                let _stream = TcpStream::connect(address).await;
                pending::<()>().await;
            });
        }
        tokio::task::yield_now().await;
        (listener, address, waiting)
    }

    #[tokio::test]
    async fn the_first_address_that_answers_is_taken() {
        let patience = Duration::from_millis(10);
        let (_listener, good) = listener().await;
        let (closed, refusing) = listener().await;
        drop(closed);
        let (_full, silent, _waiting) = silent().await;
        for addresses in [
            vec![good],
            vec![good, silent],
            vec![refusing, good],
            vec![silent, good],
            vec![silent, refusing, silent, good],
        ] {
            let stream = any(addresses.clone(), patience).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), good, "{addresses:?}");
        }
        let error = any(vec![refusing, refusing], patience).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = any(Vec::new(), patience).await.unwrap_err();
        assert_eq!(error.to_string(), "the host has no address");
    }
}
