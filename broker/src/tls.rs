//! TLS handshakes: under a deadline, a bounded number at a time, with a configuration that can be changed while the door runs.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// The first byte of a TLS connection: a record that holds a part of a handshake.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Why there is no TLS session.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The handshake was not done in time.
    #[error("the TLS handshake was not done in time")]
    Timeout,
    /// The client speaks something else. It got no answer.
    #[error("expected a TLS handshake (first byte 0x16), got 0x{0:02x}")]
    NotTls(u8),
    /// The client and this server do not agree, or the socket broke.
    #[error("the TLS handshake failed: {0}")]
    Failed(#[from] io::Error),
}

/// Takes TLS handshakes for a listener.
#[derive(Debug)]
pub struct TlsAcceptor {
    config: RwLock<Arc<ServerConfig>>,
    time_max: Duration,
    /// Those that have said hello; a silent client holds none.
    slots: Semaphore,
}

impl TlsAcceptor {
    /// A handshake may take `time_max` from accept to its last byte, and `handshakes_max` are worked at together; others wait for
    /// their turn within their own time.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>, time_max: Duration, handshakes_max: usize) -> Self {
        let slots = Semaphore::new(handshakes_max.min(Semaphore::MAX_PERMITS));
        Self { config: RwLock::new(config), time_max, slots }
    }

    /// Puts another configuration in force, for handshakes that begin from now on. Sessions that there are stay as they are.
    pub fn reload(&self, config: Arc<ServerConfig>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Does the handshake.
    ///
    /// # Errors
    /// [`TlsError`]; the socket is closed then.
    pub async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, TlsError> {
        timeout(self.time_max, self.shake_hands(stream)).await.unwrap_or(Err(TlsError::Timeout))
    }

    async fn shake_hands(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, TlsError> {
        // Looked at before anything is made for it, so that a silent client costs a socket and a timer, and one that speaks another
        // protocol hears nothing.
        let mut first = [0];
        match stream.peek(&mut first).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ if first[0] != HANDSHAKE_RECORD => return Err(TlsError::NotTls(first[0])),
            _ => {}
        }
        // A hello that comes byte by byte takes nobody's turn.
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let _slot = self.slots.acquire().await.map_err(io::Error::other)?;
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        Ok(hello.into_stream(config).await?)
    }
}
