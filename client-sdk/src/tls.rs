//! TLS as every client speaks it, unless the app says otherwise.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::builder::Settings;
use crate::error::Error;

/// The app's own configuration, or the authorities that the system trusts. No process-wide provider is touched or needed.
pub(crate) fn config(settings: &Settings) -> Result<Arc<ClientConfig>, Error> {
    if let Some(config) = &settings.tls {
        return Ok(config.clone());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Error::Invalid(
            "tls: expected authorities that the system trusts, found none: give .tls(config)".into(),
        ));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Error::Invalid(format!("tls: {error}")))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
