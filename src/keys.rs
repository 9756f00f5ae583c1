//! Keys: the server's own, made on its first start, and those of issuers that the configuration trusts.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use jsonwebtoken::jwk::{self, AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

use crate::config::{Auth, KeyAlgorithm};

/// The own private key, in the keys directory: PKCS#8 DER.
const OWN_KEY_FILE: &str = "token-ed25519.pk8";
/// More keys than this in one JWKS file are refused: every token without a `kid` is tried with each.
const JWKS_KEYS_MAX: usize = 32;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// Its file cannot be read or written.
    #[error("key {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// Others could read it.
    #[error(
        "key {}: others may read it: expected mode 0600, got {mode:04o}; if nobody has, run `chmod 600 {}`, else remove it (every token then ends)",
        path.display(), path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    /// It is not what its place asks for.
    #[error("key {}: expected {expected}, got {got}", path.display())]
    Format { path: PathBuf, expected: &'static str, got: String },
    /// The system gave no randomness.
    #[error("key: cannot be made: no randomness")]
    Random,
}

/// The key with which this server signs its own tokens.
#[derive(Debug)]
pub(crate) struct OwnKey {
    pub(crate) signing: EncodingKey,
    pub(crate) verifying: DecodingKey,
}

/// A public key whose tokens are accepted, with the one algorithm that it is used with.
#[derive(Debug)]
pub(crate) struct TrustedKey {
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
    /// The `kid` of a JWKS.
    pub(crate) id: Option<String>,
    /// What `iss` must be.
    pub(crate) issuer: Option<String>,
}

impl OwnKey {
    /// Loads the key from the directory `keys`, or makes it. The caller holds the data directory's lock.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with the file.
    pub(crate) fn load_or_make(keys: &Path) -> Result<Self, KeyError> {
        let path = keys.join(OWN_KEY_FILE);
        match fs::metadata(&path) {
            Ok(metadata) => {
                let mode = metadata.permissions().mode() & 0o7777;
                if mode & 0o077 != 0 {
                    return Err(KeyError::Exposed { path, mode });
                }
                let der = fs::read(&path).map_err(|source| KeyError::File { path: path.clone(), source })?;
                Self::from_pkcs8(&der, &path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
                keep(keys, &path, der.as_ref()).map_err(|source| KeyError::File { path: path.clone(), source })?;
                Self::from_pkcs8(der.as_ref(), &path)
            }
            Err(source) => Err(KeyError::File { path, source }),
        }
    }

    fn from_pkcs8(der: &[u8], path: &Path) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|error| KeyError::Format {
            path: path.to_owned(),
            expected: "an Ed25519 private key (PKCS#8 DER)",
            got: error.to_string(),
        })?;
        let verifying = DecodingKey::from_ed_der(pair.public_key().as_ref());
        Ok(Self { signing: EncodingKey::from_ed_der(der), verifying })
    }

    /// The public half, as a key that is trusted.
    pub(crate) fn trusted(&self) -> TrustedKey {
        TrustedKey { algorithm: Algorithm::EdDSA, key: self.verifying.clone(), id: None, issuer: None }
    }
}

/// Writes the file so that after a crash it is there whole, or not at all.
fn keep(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let new = path.with_extension("new");
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Loads the public keys that the configuration names.
///
/// # Errors
/// [`KeyError`] says which file is wrong, and how.
pub(crate) fn load_trusted(auth: &Auth) -> Result<Vec<TrustedKey>, KeyError> {
    let mut trusted = Vec::new();
    if let Some(path) = &auth.public_key_file {
        let (algorithm, key) = from_pem(path, auth.algorithm)?;
        trusted.push(TrustedKey { algorithm, key, id: None, issuer: auth.issuer.clone() });
    }
    if let Some(path) = &auth.jwks_file {
        for (algorithm, key, id) in from_jwks(path)? {
            trusted.push(TrustedKey { algorithm, key, id, issuer: auth.issuer.clone() });
        }
    }
    Ok(trusted)
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    fs::read(path).map_err(|source| KeyError::File { path: path.to_owned(), source })
}

fn from_pem(path: &Path, algorithm: KeyAlgorithm) -> Result<(Algorithm, DecodingKey), KeyError> {
    let pem = read(path)?;
    let private = pem.windows(b"PRIVATE KEY-----".len()).any(|window| window == b"PRIVATE KEY-----");
    let (algorithm, expected, parsed) = match algorithm {
        KeyAlgorithm::EdDSA => (Algorithm::EdDSA, "an Ed25519 public key (PEM)", DecodingKey::from_ed_pem(&pem)),
        KeyAlgorithm::ES256 => (Algorithm::ES256, "a P-256 public key (PEM)", DecodingKey::from_ec_pem(&pem)),
        KeyAlgorithm::RS256 => (Algorithm::RS256, "an RSA public key (PEM)", DecodingKey::from_rsa_pem(&pem)),
    };
    let wrong = |got: String| KeyError::Format { path: path.to_owned(), expected, got };
    if private {
        return Err(wrong("a private key, which stays with its issuer".into()));
    }
    Ok((algorithm, parsed.map_err(|error| wrong(error.to_string()))?))
}

type JwksKey = (Algorithm, DecodingKey, Option<String>);

fn from_jwks(path: &Path) -> Result<Vec<JwksKey>, KeyError> {
    let wrong = |expected, got: String| KeyError::Format { path: path.to_owned(), expected, got };
    let set: JwkSet = serde_json::from_slice(&read(path)?).map_err(|error| wrong("a JWKS", error.to_string()))?;
    if set.keys.is_empty() || set.keys.len() > JWKS_KEYS_MAX {
        return Err(wrong("1 to 32 keys", set.keys.len().to_string()));
    }
    let mut keys = Vec::new();
    for jwk in &set.keys {
        if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
            continue;
        }
        let expected = "keys for EdDSA (Ed25519), ES256 (P-256) or RS256 only";
        let name = jwk.common.key_id.as_deref().unwrap_or("without kid");
        let algorithm = algorithm_of(jwk).ok_or_else(|| wrong(expected, format!("another kind of key ({name})")))?;
        let key = DecodingKey::from_jwk(jwk).map_err(|error| wrong(expected, format!("{error} ({name})")))?;
        keys.push((algorithm, key, jwk.common.key_id.clone()));
    }
    if keys.is_empty() { Err(wrong("a key for signatures", "none".into())) } else { Ok(keys) }
}

/// The one algorithm that the key's own kind allows; its `alg`, if it has one, must say the same.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        _ => return None,
    };
    let agrees = jwk.common.key_algorithm.is_none_or(|named| named == jwk::KeyAlgorithm::from(algorithm));
    agrees.then_some(algorithm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth() -> Auth {
        Auth { public_key_file: None, algorithm: KeyAlgorithm::EdDSA, jwks_file: None, issuer: None }
    }

    #[test]
    fn the_own_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let made = OwnKey::load_or_make(&keys).unwrap();
        let loaded = OwnKey::load_or_make(&keys).unwrap();
        assert_eq!(made.signing.as_bytes(), loaded.signing.as_bytes());
        assert_eq!(made.verifying.try_get_as_bytes().unwrap(), loaded.verifying.try_get_as_bytes().unwrap());
        let file = keys.join(OWN_KEY_FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(&keys).unwrap().permissions().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        OwnKey::load_or_make(dir.path()).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            let file = dir.path().join(OWN_KEY_FILE);
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let error = OwnKey::load_or_make(dir.path()).unwrap_err().to_string();
            assert!(error.contains("0600") && error.contains(&format!("{mode:04o}")), "{error}");
        }
    }

    #[test]
    fn a_broken_own_key_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(OWN_KEY_FILE);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file).unwrap().write_all(b"no").unwrap();
        let error = OwnKey::load_or_make(dir.path()).unwrap_err().to_string();
        assert!(error.contains("Ed25519"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"no");
    }

    fn jwks(text: &str) -> Result<Vec<TrustedKey>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks.json");
        fs::write(&path, text).unwrap();
        load_trusted(&Auth { jwks_file: Some(path), ..auth() }).map_err(|error| error.to_string())
    }

    #[test]
    fn a_jwks_pins_each_key_to_its_own_algorithm() {
        let ed = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"e"}"#;
        let enc = r#"{"kty":"RSA","use":"enc","n":"AQAB","e":"AQAB"}"#;
        let keys = jwks(&format!(r#"{{"keys":[{ed},{enc}]}}"#)).unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!((keys[0].algorithm, keys[0].id.as_deref()), (Algorithm::EdDSA, Some("e")));
    }

    #[test]
    fn a_jwks_with_a_shared_secret_or_a_strange_algorithm_is_refused() {
        let secret = r#"{"kty":"oct","k":"c2VjcmV0","alg":"HS256","kid":"s"}"#;
        let other = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","alg":"HS256"}"#;
        for key in [secret, other] {
            let error = jwks(&format!(r#"{{"keys":[{key}]}}"#)).unwrap_err();
            assert!(error.contains("EdDSA"), "{error}");
        }
        assert!(jwks(r#"{"keys":[]}"#).is_err());
        assert!(jwks("no").is_err());
    }

    #[test]
    fn a_pem_of_another_kind_and_a_private_one_are_refused() {
        let ed = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("issuer.pem");
        let load = |text: &str, algorithm| {
            fs::write(&path, text).unwrap();
            load_trusted(&Auth { public_key_file: Some(path.clone()), algorithm, ..auth() })
        };
        assert_eq!(load(ed, KeyAlgorithm::EdDSA).unwrap().len(), 1);
        assert!(load(ed, KeyAlgorithm::ES256).is_err());
        assert!(load(ed, KeyAlgorithm::RS256).is_err());
        assert!(load(private, KeyAlgorithm::EdDSA).is_err());
        assert!(load("", KeyAlgorithm::EdDSA).is_err());
    }
}
