//! The server's HTTP: a connection, a request over it, and its answer.
//!
//! - `ask.rs` a question with the client's token · `base.rs` where the server is · `problem.rs` what a refusal says (pure) · `tokens.rs` who asks
//!
//! The HTTP client is hyper over rustls with the authorities that the system trusts: what an SDK needs of HTTP is a few requests to one
//! server, and hyper and rustls are in every program that uses this crate anyway.

mod ask;
pub(crate) mod base;
mod problem;
mod tokens;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::http::response::Parts;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

pub(crate) use base::Base;
pub(crate) use problem::Problem;
pub(crate) use tokens::{Fixed, OfClient, Tokens};

/// How long connecting may take, with TLS.
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// How long the head of an answer may take once the request is sent: the server answers after its commit, and with S3 that takes time.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// How long nothing may come of a body, or go of one.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Most bytes of an answer that is no file.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How we are called.
const AGENT: &str = concat!("natter-client/", env!("CARGO_PKG_VERSION"));

/// What a request carries.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Why there is no answer, or none that could be read.
#[derive(Debug)]
pub(crate) enum HttpError {
    /// A URL or a name that cannot be.
    Invalid(String),
    /// The server was not there, or the connection broke.
    Unreachable(String),
    /// It answered with a refusal.
    Refused(Problem),
}

/// Nothing.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// JSON.
pub(crate) fn json(value: &serde_json::Value) -> Body {
    Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync()
}

/// Any number.
pub(crate) fn random() -> u32 {
    // The last 62 bits of a UUIDv7 are random.
    let (_, low) = uuid::Uuid::now_v7().as_u64_pair();
    u32::try_from(low & 0xffff_ffff).unwrap_or(0)
}

/// Makes connections, one a request.
pub(crate) struct Http {
    base: Base,
    tls: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Http {
    /// `tls`: other authorities than those of the system.
    pub(crate) fn new(base: Base, tls: Option<Arc<ClientConfig>>) -> Self {
        let cell = OnceLock::new();
        if let Some(tls) = tls {
            let _first = cell.set(Ok(tls));
        }
        Self { base, tls: cell }
    }

    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    /// A request to the server's own `path`, without a token.
    pub(crate) fn open_request(&self, method: Method, path: &str) -> Builder {
        request(&self.base, method, path)
    }

    /// A request to the server's own `path`, with the token.
    pub(crate) fn request(&self, method: Method, path: &str, token: &str) -> Builder {
        request(&self.base, method, path).header(header::AUTHORIZATION, format!("Bearer {token}"))
    }

    /// Sends a request to the server.
    pub(crate) async fn send(&self, request: Builder, body: Body) -> Result<Response<Incoming>, HttpError> {
        self.send_to(&self.base, request, body, ANSWER_MAX).await
    }

    /// Sends a request to the server, and reads its answer, which is no file.
    pub(crate) async fn ask(&self, request: Builder, body: Body) -> Result<(Parts, Bytes), HttpError> {
        let (head, body) = self.send(request, body).await?.into_parts();
        let body = whole(body).await;
        if head.status.is_success() {
            return Ok((head, body?));
        }
        Err(HttpError::Refused(Problem::of(&head, &body.unwrap_or_default())))
    }

    /// Sends a request to where the server redirects to, without a token.
    pub(crate) async fn follow(&self, base: &Base, request: Builder) -> Result<Response<Incoming>, HttpError> {
        self.send_to(base, request, empty(), ANSWER_MAX).await
    }

    /// Sends a body, for as long as it moves; `stalled` ends when it does not.
    pub(crate) async fn send_body(
        &self,
        request: Builder,
        body: Body,
        stalled: impl Future<Output = ()>,
    ) -> Result<Response<Incoming>, HttpError> {
        let sent = self.send_to(&self.base, request, body, Duration::MAX);
        tokio::select! {
            answer = sent => answer,
            () = stalled => Err(unreachable("the server takes no more of the file")),
        }
    }

    async fn send_to(
        &self,
        base: &Base,
        request: Builder,
        body: Body,
        at_most: Duration,
    ) -> Result<Response<Incoming>, HttpError> {
        let request = request.body(body).map_err(|error| HttpError::Invalid(format!("request: {error}")))?;
        let connected = timeout(CONNECT_MAX, self.connect(base)).await;
        let mut connection = connected.unwrap_or_else(|_| Err(unreachable("connecting takes too long")))?;
        match timeout(at_most, connection.send_request(request)).await {
            Ok(answer) => answer.map_err(|error| broken(&error)),
            Err(_) => Err(unreachable("the server does not answer")),
        }
    }

    async fn connect(&self, base: &Base) -> Result<http1::SendRequest<Body>, HttpError> {
        let stream = TcpStream::connect((base.name(), base.port)).await;
        let stream = stream.map_err(|error| unreachable(&format!("{}: {error}", base.authority())))?;
        let _ = stream.set_nodelay(true);
        if !base.is_tls {
            return speak(stream).await;
        }
        let config = self.tls.get_or_init(system_roots).clone().map_err(HttpError::Invalid)?;
        let name = ServerName::try_from(base.name().to_owned())
            .map_err(|error| HttpError::Invalid(format!("url: {}: {error}", base.host)))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        speak(stream.map_err(|error| unreachable(&format!("TLS with {}: {error}", base.authority())))?).await
    }
}

/// A request without a token.
pub(crate) fn request(base: &Base, method: Method, path: &str) -> Builder {
    Request::builder()
        .method(method)
        .uri(format!("{}{path}", base.prefix))
        .header(header::HOST, base.authority())
        .header(header::USER_AGENT, AGENT)
}

/// An answer that is no file.
pub(crate) async fn whole<B>(body: B) -> Result<Bytes, HttpError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match timeout(SILENCE_MAX, Limited::new(body, ANSWER_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(unreachable(&format!("the answer broke off: {error}"))),
        Err(_) => Err(unreachable("the answer does not come to its end")),
    }
}

fn unreachable(text: &str) -> HttpError {
    HttpError::Unreachable(text.to_owned())
}

/// hyper's words alone say "error sending request"; what lies below says why.
pub(crate) fn broken(error: &hyper::Error) -> HttpError {
    let source = std::error::Error::source(error);
    HttpError::Unreachable(source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
}

async fn speak<S>(stream: S) -> Result<http1::SendRequest<Body>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // Ends with its sender and its answer.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "http: a connection");
        }
    });
    Ok(sender)
}

/// TLS with the authorities that this system trusts.
fn system_roots() -> Result<Arc<ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(
            "TLS: expected certificates of authorities on this system (SSL_CERT_FILE names some), got none".into()
        );
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| format!("TLS: {error}"))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
