//! An HTTP listener: accepts, does TLS where it is asked to, and waits for nobody longer than it must.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use natter_bridge::http::media::Secure;
use natter_broker::{Addresses, Seat, TlsAcceptor, limit_writes};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::config::Http as Limits;
use crate::write_timeout::WriteTimeout;

/// The pause after a failed accept, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An HTTP listener and its task.
pub(crate) struct HttpServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl HttpServer {
    /// Serves `router` over HTTP/1.1, over TLS if `tls` is there. Requests carry a `ConnectInfo<SocketAddr>` with the peer's address and,
    /// with `addresses`, an `Arc<Seat>`: what becomes of the connection keeps the seat that it has there.
    ///
    /// # Errors
    /// When the listener has no address.
    pub(crate) fn start(
        listener: TcpListener,
        router: Router,
        limits: &Limits,
        tls: Option<Arc<TlsAcceptor>>,
        addresses: Option<Arc<Addresses>>,
    ) -> Result<Self> {
        let address = listener.local_addr().context("local address")?;
        limit_writes(&listener, limits.write_timeout());
        let stop = CancellationToken::new();
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout());
        let served = Served { router, http, tls, addresses, write_timeout: limits.write_timeout(), stop: stop.clone() };
        let task = tokio::spawn(accept(listener, Arc::new(served), limits.connections_max));
        Ok(Self { address, stop, task })
    }

    /// Accepts nothing more, and waits for the requests that are being answered.
    pub(crate) async fn drain(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "HTTP");
        }
    }
}

/// What all connections of a listener share.
struct Served {
    router: Router,
    http: http1::Builder,
    tls: Option<Arc<TlsAcceptor>>,
    addresses: Option<Arc<Addresses>>,
    write_timeout: Duration,
    stop: CancellationToken,
}

async fn accept(listener: TcpListener, served: Arc<Served>, connections_max: usize) {
    let places = Arc::new(Semaphore::new(connections_max));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = served.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    tracing::debug!(%peer, connections_max, "HTTP: full");
                    continue;
                };
                let seat = served.addresses.as_ref().map(|addresses| addresses.seat(peer).map(Arc::new));
                let seat = match seat {
                    Some(None) => continue,
                    Some(seat) => seat,
                    None => None,
                };
                let served = Arc::clone(&served);
                connections.spawn(async move {
                    served.connection(stream, peer, seat).await;
                    drop(place);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "HTTP: accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Whether a failed accept says nothing about the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl Served {
    async fn connection(&self, stream: TcpStream, peer: SocketAddr, seat: Option<Arc<Seat>>) {
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.requests(stream, peer, seat).await };
        let accepted = tokio::select! {
            // Who has not said anything yet does not hold the drain.
            () = self.stop.cancelled() => return,
            accepted = tls.accept(stream) => accepted,
        };
        match accepted {
            Ok(stream) => self.requests(Box::new(stream), peer, seat).await,
            Err(error) => tracing::debug!(%peer, %error, "HTTP: no TLS session"),
        }
    }

    /// Answers requests until the client leaves, or, once the listener stops, to the end of the one that is being answered.
    async fn requests<S>(&self, stream: S, peer: SocketAddr, seat: Option<Arc<Seat>>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            if self.tls.is_some() {
                request.extensions_mut().insert(Secure);
            }
            if let Some(seat) = &seat {
                request.extensions_mut().insert(Arc::clone(seat));
            }
            self.router.clone().call(request)
        });
        let stream = TokioIo::new(WriteTimeout::new(stream, self.write_timeout));
        let mut connection = pin!(self.http.serve_connection(stream, service).with_upgrades());
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "HTTP");
        }
    }
}
