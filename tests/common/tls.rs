//! Certificates from `natter cert`, and a TLS client.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::server::natter;
use super::{Stream, dial, patience};

/// What `natter cert` made for `localhost` and `127.0.0.1`.
pub struct Certificate {
    dir: TempDir,
}

impl Certificate {
    pub fn make() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let output = natter()
            .args(["cert", "--host", "localhost", "--host", "127.0.0.1", "--out"])
            .arg(dir.path())
            .output()
            .expect("natter cert");
        assert!(output.status.success(), "{output:?}");
        Self { dir }
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A configuration with both TLS listeners.
    pub fn config(&self) -> String {
        let (certificate, key) = (self.file("server.pem"), self.file("server.key"));
        format!(
            "[listen]\nmqtts = \"127.0.0.1:0\"\nhttps = \"127.0.0.1:0\"\n[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n"
        )
    }

    /// Puts this certificate and key in the place of the other's.
    pub fn replace(&self, other: &Self) {
        for name in ["server.pem", "server.key"] {
            std::fs::copy(self.file(name), other.file(name)).expect("a copy");
        }
    }
}

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl Stream for TlsStream {
    fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.sock.set_read_timeout(time)
    }
}

/// A client's configuration that trusts `ca` and asks for these protocols.
pub fn client_config(ca: &Path, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("a root");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// A handshake over a connection that is there, with a server of the name or address `host`.
pub fn handshake(mut socket: TcpStream, config: ClientConfig, host: &str) -> io::Result<TlsStream> {
    socket.set_read_timeout(Some(patience()))?;
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let mut session = ClientConnection::new(Arc::new(config), name).expect("a session");
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(session, socket))
}

/// A TLS session with the server at `address`, which must show a certificate of `ca`.
#[track_caller]
pub fn connect(address: SocketAddr, ca: &Path, alpn: &[&str]) -> TlsStream {
    handshake(dial(address), client_config(ca, alpn), "localhost").expect("a TLS session")
}
