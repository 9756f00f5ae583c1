//! The SDK over TLS and over WebSocket.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends that way")]

mod common;

use std::sync::Arc;

use common::tls::Certificate;
use common::{TestServer, patience};
use natter_client::{Client, Error, Event};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

fn trusting(certificate: &Certificate) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate.file("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// A message to oneself comes back.
async fn talk(client: &Client) {
    let message = client.chat("alice").send_text("hi").await.unwrap();
    timeout(patience(), message.sent()).await.expect("sent").unwrap();
    let Ok(Some(Event::Message(message))) = timeout(patience(), client.events().next()).await else {
        panic!("a message")
    };
    assert_eq!(message.text(), Some("hi"));
}

#[tokio::test]
async fn over_tls_with_an_authority_of_one_s_own_and_not_with_another() {
    let certificate = Certificate::make();
    let server = TestServer::start_with(&certificate.config());
    server.add_user("alice");
    let url = format!("mqtts://{}", server.mqtts());
    let builder = || Client::builder(&url).user("alice").token(server.token("alice"));
    talk(&builder().tls(trusting(&certificate)).connect().await.unwrap()).await;
    match builder().tls(trusting(&Certificate::make())).connect().await {
        Err(Error::Unreachable(_)) => {}
        other => panic!("expected no connection, got {other:?}"),
    }
}

#[tokio::test]
async fn over_websocket() {
    let server = TestServer::with_users(&["alice"]);
    let url = format!("ws://{}/mqtt", server.http());
    talk(&Client::builder(&url).user("alice").token(server.token("alice")).connect().await.unwrap()).await;
}
