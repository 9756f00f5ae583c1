//! `natter cert`: a certificate authority and a certificate for development, where no real authority would sign one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::ServerName;
use time::{Duration, OffsetDateTime};

/// How long the authority is good for.
const CA_DAYS: i64 = 3650;
/// How long the certificate is good for; clients of some makes take no longer one.
const SERVER_DAYS: i64 = 397;
/// Certificates begin this much before now: a client's clock may be behind.
const CLOCK_SKEW: Duration = Duration::hours(1);
/// The files that are made: name, mode.
const FILES: [(&str, u32); 4] = [("ca.pem", 0o644), ("ca.key", 0o600), ("server.pem", 0o644), ("server.key", 0o600)];

/// What the command line says.
#[derive(Debug, Args)]
pub(crate) struct CertOptions {
    /// Where the files go; made if it is not there. Nothing in it is overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A name or an IP address by which clients reach the server; may come more than once
    #[arg(long = "host", value_name = "NAME", required = true, value_parser = parse_host)]
    hosts: Vec<Host>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertError {
    /// A file is there already.
    #[error("{}: it is there already, and is not overwritten: choose another directory with --out, or move it away", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The library refuses.
    #[error("certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// What a certificate can be for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Name(String),
    Address(IpAddr),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Parses a DNS name or an IP address.
///
/// # Errors
/// Expected and got, as text.
fn parse_host(text: &str) -> Result<Host, String> {
    match ServerName::try_from(text) {
        Ok(ServerName::DnsName(name)) => Ok(Host::Name(name.as_ref().to_owned())),
        Ok(ServerName::IpAddress(address)) => Ok(Host::Address(address.into())),
        _ => Err(format!("expected a host name as chat.example.com or an IP address as 192.0.2.1, got {text:?}")),
    }
}

/// Makes the files; what to do with them, as text.
///
/// # Errors
/// [`CertError`]. No file is left behind then that was not there before.
pub(crate) fn make(options: &CertOptions) -> Result<String, CertError> {
    let dir = &options.out;
    fs::create_dir_all(dir).map_err(|source| CertError::File { path: dir.clone(), source })?;
    let dir = dir.canonicalize().map_err(|source| CertError::File { path: dir.clone(), source })?;
    if let Some((name, _)) = FILES.iter().find(|(name, _)| dir.join(name).symlink_metadata().is_ok()) {
        return Err(CertError::Exists(dir.join(name)));
    }
    write_all(&dir, &contents(&options.hosts, OffsetDateTime::now_utc())?)?;
    Ok(instructions(&dir, &options.hosts))
}

/// What goes into the four files, in their order.
fn contents(hosts: &[Host], now: OffsetDateTime) -> Result<[String; 4], rcgen::Error> {
    let params = |name: &str, days| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = now - CLOCK_SKEW;
        params.not_after = params.not_before + Duration::days(days);
        params
    };

    let mut ca = params("Natter development CA", CA_DAYS);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    let mut server = params("Natter", SERVER_DAYS);
    for host in hosts {
        server.subject_alt_names.push(match host {
            Host::Name(name) => SanType::DnsName(name.as_str().try_into()?),
            Host::Address(address) => SanType::IpAddress(*address),
        });
    }
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = KeyPair::generate()?;
    let ca_key_pem = ca_key.serialize_pem();
    let server_pem = server.signed_by(&server_key, &Issuer::new(ca, ca_key))?.pem();
    Ok([ca_pem, ca_key_pem, server_pem, server_key.serialize_pem()])
}

/// Writes new files, all or none.
fn write_all(dir: &Path, contents: &[String; 4]) -> Result<(), CertError> {
    for (at, ((name, mode), text)) in FILES.iter().zip(contents).enumerate() {
        let path = dir.join(name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(*mode).open(&path);
        // From here on it is ours, and goes if it cannot be finished.
        let ours = at + usize::from(opened.is_ok());
        if let Err(source) = opened.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        {
            for (name, _) in &FILES[..ours] {
                let _ = fs::remove_file(dir.join(name));
            }
            return Err(CertError::File { path, source });
        }
    }
    Ok(())
}

fn instructions(dir: &Path, hosts: &[Host]) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    let toml = |name: &str| toml::Value::String(path(name));
    let host = hosts.first().map(Host::to_string).unwrap_or_default();
    format!(
        "\
# Made in {dir}: a certificate for {names}, good for {SERVER_DAYS} days, and the authority that signed it. For development only.
# In Natter's configuration:

[listen]
mqtts = \"0.0.0.0:8883\"
https = \"0.0.0.0:8443\"

[tls]
certificate = {certificate}
key = {key}

# Clients must trust ca.pem. Nobody needs ca.key any more: who has it can pose as any host towards those clients. With mosquitto:
#
# mosquitto_pub --cafile '{ca}' -h {host} -p 8883 -q 1 -u alice -P \"$(natter token alice)\" -t users/alice/phone/outbox \\
#   -m '{{\"id\":\"m1\",\"to\":\"bob\",\"type\":\"text\",\"text\":{{\"body\":\"hi\"}}}}'
",
        dir = dir.display(),
        names = hosts.iter().map(Host::to_string).collect::<Vec<_>>().join(", "),
        certificate = toml("server.pem"),
        key = toml("server.key"),
        ca = path("ca.pem"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn options(out: &Path, hosts: &[&str]) -> CertOptions {
        CertOptions { out: out.to_owned(), hosts: hosts.iter().map(|host| parse_host(host).unwrap()).collect() }
    }

    #[test]
    fn the_files_are_there_and_the_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/b");
        let text = make(&options(&out, &["chat.example.com", "127.0.0.1", "::1"])).unwrap();
        for (name, mode) in FILES {
            // The umask may take more away.
            let got = fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(got & !mode, 0, "{name}: {got:o}");
        }
        assert!(text.contains("chat.example.com, 127.0.0.1, ::1") && text.contains("-h chat.example.com "), "{text}");
        let config: toml::Table = text.parse().unwrap();
        assert_eq!(Path::new(config["tls"]["key"].as_str().unwrap()), out.canonicalize().unwrap().join("server.key"));
    }

    #[test]
    fn nothing_is_overwritten() {
        for (name, _) in FILES {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), "mine").unwrap();
            let error = make(&options(dir.path(), &["localhost"])).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("--out"), "{error}");
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"mine");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else was made");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        assert_eq!(parse_host("localhost"), Ok(Host::Name("localhost".into())));
        assert_eq!(parse_host("192.0.2.1").unwrap().to_string(), "192.0.2.1");
        assert_eq!(parse_host("2001:db8::1").unwrap().to_string(), "2001:db8::1");
        for wrong in ["", "*.example.com", "https://example.com", "example.com:8883", "a b", "[::1]"] {
            assert!(parse_host(wrong).unwrap_err().contains("192.0.2.1"), "{wrong}");
        }
    }
}
