//! TLS: from the certificate's files to what the listeners take handshakes with, at the start and again at a SIGHUP.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use natter_broker::TlsAcceptor;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use crate::config::Tls as Config;

/// What a client may ask for by ALPN on the MQTT listener; a client that asks for nothing is served too.
const ALPN_MQTT: &[u8] = b"mqtt";
/// Likewise on the HTTP listener.
const ALPN_HTTP: &[u8] = b"http/1.1";
/// TLS 1.3 session tickets a connection: one, as a client has one connection.
const TICKETS: usize = 1;

/// Why the certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read.
    #[error("{key} {}: {source}", path.display())]
    File { key: &'static str, path: PathBuf, source: io::Error },
    /// Everybody could read the private key.
    #[error(
        "tls.key {}: everybody may read it: expected mode 0600 or 0640, got {mode:04o}; run `chmod 600 {}`",
        path.display(), path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    /// A file is not what its place asks for.
    #[error("{key} {}: expected {expected}, got {got}", path.display())]
    Format { key: &'static str, path: PathBuf, expected: &'static str, got: String },
    /// The two do not belong together, or one is of a kind that is not supported.
    #[error("tls.certificate {} with tls.key {}: {source}", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    /// The library cannot be set up.
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
}

/// Where the certificate is, and those that show it to clients.
#[derive(Debug)]
pub(crate) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    /// For the MQTT listener.
    pub(crate) mqtt: Arc<TlsAcceptor>,
    /// For the HTTP listener.
    pub(crate) http: Arc<TlsAcceptor>,
}

impl Tls {
    /// Loads the certificate and the key that the configuration names; `None` when it names none.
    ///
    /// # Errors
    /// [`TlsError`] says which file is wrong, and how.
    pub(crate) fn load(config: &Config) -> Result<Option<Self>, TlsError> {
        let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else { return Ok(None) };
        let acceptor = |config_of_listener| {
            Arc::new(TlsAcceptor::new(config_of_listener, config.handshake_timeout(), config.handshakes_max))
        };
        let (mqtt, http) = configs(certificate, key)?;
        Ok(Some(Self {
            certificate: certificate.clone(),
            key: key.clone(),
            mqtt: acceptor(mqtt),
            http: acceptor(http),
        }))
    }

    /// Reads the files again. Connections that there are go on as they are; new ones see what the files say now.
    ///
    /// # Errors
    /// [`TlsError`]; what was in force stays in force then.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let (mqtt, http) = configs(&self.certificate, &self.key)?;
        self.mqtt.reload(mqtt);
        self.http.reload(http);
        Ok(())
    }
}

/// What the two listeners show: the same certificate, under different protocols.
fn configs(certificate: &Path, key: &Path) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = read_chain(certificate)?;
    let pair = CertifiedKey::from_der(chain, read_key(key)?, &provider).map_err(|source| TlsError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })?;
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(pair));
    let config = |protocol: &[u8]| {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&resolver) as _);
        config.alpn_protocols = vec![protocol.to_vec()];
        config.send_tls13_tickets = TICKETS;
        // Sealed tickets rather than kept sessions: a phone that comes back is not forgotten, and costs no memory meanwhile.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok::<_, rustls::Error>(Arc::new(config))
    };
    Ok((config(ALPN_MQTT)?, config(ALPN_HTTP)?))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const KEY: &str = "tls.certificate";
    let pem = fs::read(path).map_err(|source| TlsError::File { key: KEY, path: path.to_owned(), source })?;
    let wrong = |got| TlsError::Format { key: KEY, path: path.to_owned(), expected: "a certificate chain (PEM)", got };
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| wrong(error.to_string()))?;
    if chain.is_empty() { Err(wrong("a file without a certificate".to_owned())) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const KEY: &str = "tls.key";
    let failed = |source| TlsError::File { key: KEY, path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
    // Its group may: that is how a certificate is shared between services on one machine.
    if mode & 0o007 != 0 {
        return Err(TlsError::Exposed { path: path.to_owned(), mode });
    }
    let pem = fs::read(path).map_err(failed)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| TlsError::Format {
        key: KEY,
        path: path.to_owned(),
        expected: "a private key (PEM)",
        got: match error {
            rustls::pki_types::pem::Error::NoItemsFound => "a file without one".to_owned(),
            error => error.to_string(),
        },
    })
}
