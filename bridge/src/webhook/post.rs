//! The HTTP client of webhooks: resolves once and connects to what it has resolved and judged, follows no redirect, waits for nobody longer
//! than it must, reads no more of an answer than it needs.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::http::{Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Settings;
use super::address::Target;

/// Most bytes of an answer that are read; the rest, and the connection with it, is of no interest.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How long the body of an answer may take once its head is there: what it says counts for little.
const BODY_TIME_MAX: Duration = Duration::from_secs(1);
/// How we are called.
const AGENT: &str = concat!("natter/", env!("CARGO_PKG_VERSION"));

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    settings: Settings,
    tls: Arc<OnceLock<Option<TlsConnector>>>,
}

/// A connection that may carry another request.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

impl Client {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, tls: Arc::default() }
    }

    /// Asks a callback to repeat the challenge (`hub.challenge`).
    ///
    /// # Errors
    /// Expected and got, as text.
    pub(super) async fn verify(&self, target: &Target, verify_token: &str, challenge: &str) -> Result<(), String> {
        let separator = if target.path_and_query.contains('?') { '&' } else { '?' };
        let path = format!(
            "{}{separator}hub.mode=subscribe&hub.challenge={challenge}&hub.verify_token={}",
            target.path_and_query,
            percent_encoded(verify_token)
        );
        let request = request(target, Method::GET, &path).body(Full::default());
        let asked = async {
            let mut connection = self.connect(target).await?;
            exchange(&mut connection, request).await.map(|answer| (answer, connection))
        };
        let (answer, _connection) = self.in_time(asked).await?;
        let status = answer.status();
        let body = whole_body(answer).await.unwrap_or_default();
        // The body decides: some refuse with 200 and other words.
        let repeats = std::str::from_utf8(&body).is_ok_and(|text| text.trim() == challenge);
        if status == StatusCode::OK && repeats {
            return Ok(());
        }
        Err(format!(
            "url: expected 200 and the value of hub.challenge from {}, got {status} and {} bytes: does it know this verify_token?",
            target.authority,
            body.len()
        ))
    }

    /// Posts a body; the status says what became of it. `kept` is a connection from before, and afterwards one for the next time.
    ///
    /// # Errors
    /// There was no answer; the text says why.
    pub(super) async fn post(
        &self,
        target: &Target,
        kept: &mut Option<Connection>,
        key: &hmac::Key,
        body: &Bytes,
    ) -> Result<StatusCode, String> {
        let signature = format!("sha256={}", hex(hmac::sign(key, body).as_ref()));
        let request = || {
            request(target, Method::POST, &target.path_and_query)
                .header(header::CONTENT_TYPE, "application/json")
                .header("X-Hub-Signature-256", &signature)
                .body(Full::new(body.clone()))
        };
        let before = kept.take();
        let posted = async {
            if let Some(mut connection) = before
                && let Ok(answer) = exchange(&mut connection, request()).await
            {
                return Ok((answer, connection));
            }
            // The other side may have closed a connection that rested; it is no failure to find that out.
            let mut connection = self.connect(target).await?;
            let answer = exchange(&mut connection, request()).await?;
            Ok((answer, connection))
        };
        let (answer, connection) = self.in_time(posted).await?;
        let status = answer.status();
        // The status has come: a 2xx is an acknowledgement, whatever becomes of the body.
        *kept = whole_body(answer).await.map(|_| connection);
        Ok(status)
    }

    /// Asks for what lies at a target: its head within the time limit, and its body as it comes, as long as the connection is kept.
    ///
    /// # Errors
    /// There was no answer; the text says why.
    pub(crate) async fn get(&self, target: &Target) -> Result<(Response<Incoming>, Connection), String> {
        let request = request(target, Method::GET, &target.path_and_query).body(Full::default());
        let asked = async {
            let mut connection = self.connect(target).await?;
            connection.0.ready().await.map_err(|error| error.to_string())?;
            let request = request.map_err(|error| error.to_string())?;
            let answer = connection.0.send_request(request).await.map_err(|error| error.to_string())?;
            Ok((answer, connection))
        };
        self.in_time(asked).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let Settings { timeout: time, .. } = self.settings;
        match timeout(time, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("expected an answer within {} seconds, got none", time.as_secs())),
        }
    }

    async fn connect(&self, target: &Target) -> Result<Connection, String> {
        let Target { host, port, .. } = target;
        let found = lookup_host((host.as_str(), *port)).await;
        let found = found.map_err(|error| format!("url: expected a host that has an address, got {host}: {error}"))?;
        let mut why = format!("url: expected a host that has an address, got {host}");
        for address in found {
            // Judged here and connected to here: a name that says something else the next time changes nothing.
            if let Err(refused) = target.may_be_at(address.ip(), self.settings.private_addresses) {
                why = refused;
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return self.begin(target, stream).await,
                Err(error) => why = format!("{address}: {error}"),
            }
        }
        Err(why)
    }

    async fn begin(&self, target: &Target, stream: TcpStream) -> Result<Connection, String> {
        let _ = stream.set_nodelay(true);
        if !target.is_tls {
            return speak(stream).await;
        }
        let tls = self
            .tls
            .get_or_init(connector)
            .as_ref()
            .ok_or("this server has no certificates of authorities to trust")?;
        let name = ServerName::try_from(target.host.clone()).map_err(|error| format!("{}: {error}", target.host))?;
        let stream =
            tls.connect(name, stream).await.map_err(|error| format!("TLS with {}: {error}", target.authority))?;
        speak(stream).await
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Connection, String> {
    let (sender, connection) =
        http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with its sender.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a webhook's connection");
        }
    });
    Ok(Connection(sender))
}

fn request(target: &Target, method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, &target.authority)
        .header(header::USER_AGENT, AGENT)
        .header(header::ACCEPT, "*/*")
}

/// Asks, and waits for the head of the answer.
async fn exchange(
    connection: &mut Connection,
    request: Result<Request<Full<Bytes>>, axum::http::Error>,
) -> Result<Response<Incoming>, String> {
    let request = request.map_err(|error| error.to_string())?;
    connection.0.ready().await.map_err(|error| error.to_string())?;
    connection.0.send_request(request).await.map_err(|error| error.to_string())
}

/// The body of an answer; `None`: it is too long, is cut off, or does not come to its end.
async fn whole_body(answer: Response<Incoming>) -> Option<Bytes> {
    let body = timeout(BODY_TIME_MAX, Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect()).await;
    body.ok()?.ok().map(|body| body.to_bytes())
}

/// TLS with the authorities that this system trusts.
fn connector() -> Option<TlsConnector> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificates of authorities");
    }
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::error!(
            "no certificates of authorities were found (SSL_CERT_FILE names some): webhooks at https:// do not work"
        );
        return None;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    match versions {
        Ok(versions) => Some(Arc::new(versions.with_root_certificates(roots).with_no_client_auth()).into()),
        Err(error) => {
            tracing::error!(%error, "TLS for webhooks");
            None
        }
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|half| char::from(DIGITS[usize::from(half)])).collect()
}

/// For the value of a query's parameter (RFC 3986 section 2.3).
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => {
                out.push('%');
                out.push_str(&hex(&[other]).to_ascii_uppercase());
            }
        }
    }
    out
}

/// How long to wait before the next attempt, after so many that failed: from a second, twice as long each time, up to ten minutes, give
/// or take a quarter, so that those who failed together do not come together again.
pub(super) fn pause(failures: u32, random: u64) -> Duration {
    const MAX_MS: u64 = 600_000;
    let whole = 1000u64.checked_shl(failures.saturating_sub(1).min(20)).unwrap_or(MAX_MS).min(MAX_MS);
    Duration::from_millis(whole * 3 / 4 + random % (whole / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_holds_any_verify_token() {
        assert_eq!(percent_encoded("aZ9-._~"), "aZ9-._~");
        assert_eq!(percent_encoded("a b&c=\u{e4}/+%"), "a%20b%26c%3D%C3%A4%2F%2B%25");
        assert_eq!(hex(&[0, 0xab, 0xff]), "00abff");
    }

    #[test]
    fn pauses_grow_to_ten_minutes_and_are_spread() {
        for (failures, low, high) in
            [(1, 750, 1250), (2, 1500, 2500), (5, 12_000, 20_000), (11, 450_000, 750_000), (u32::MAX, 450_000, 750_000)]
        {
            let all = [0, 7, u64::MAX / 3, u64::MAX].map(|random| pause(failures, random).as_millis());
            assert!(all.iter().all(|ms| (low..=high).contains(ms)), "{failures}: {all:?}");
        }
        assert_ne!(pause(5, 1), pause(5, 2));
    }
}
