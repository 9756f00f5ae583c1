//! Who may connect: the tokens of [`crate::token`], less what has been revoked, and less the users who are kept out. Answers from memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock};

use natter_protocol::accounts::{Accounts, Denied, Grant, Revocation, RevocationListener, Scope};
use natter_protocol::{DeviceId, UserId};

use crate::token::{Verified, Verifier};

/// The accounts of a running server.
pub(crate) struct TokenAccounts {
    verifier: Verifier,
    revoked: RwLock<BTreeMap<UserId, Revoked>>,
    disabled: RwLock<BTreeSet<UserId>>,
    listeners: RwLock<Vec<RevocationListener>>,
}

/// What of one user's tokens is revoked.
#[derive(Debug, Default)]
struct Revoked {
    /// All issued before this second.
    before: u64,
    /// Those of a device, issued before this second.
    devices: BTreeMap<DeviceId, u64>,
    /// Single ones, by `jti`.
    tokens: BTreeSet<String>,
}

impl Revoked {
    fn add(&mut self, revocation: &Revocation) {
        match revocation {
            Revocation::Token { user: _, jti } => {
                self.tokens.insert(jti.clone());
            }
            Revocation::Device { user: _, device, before } => {
                let known = self.devices.entry(device.clone()).or_default();
                *known = (*known).max(*before);
            }
            Revocation::User { user: _, before } => self.before = self.before.max(*before),
        }
    }

    fn covers(&self, grant: &Grant) -> bool {
        let by_device = |device| self.devices.get(device).is_some_and(|before| grant.issued_at < *before);
        grant.issued_at < self.before
            || self.tokens.contains(&grant.jti)
            || grant.device.as_ref().is_some_and(by_device)
    }
}

impl TokenAccounts {
    /// Accepts what `verifier` accepts, less `revocations`, and nothing of `disabled`.
    pub(crate) fn new(verifier: Verifier, revocations: &[Revocation], disabled: Vec<UserId>) -> Self {
        let disabled = RwLock::new(disabled.into_iter().collect());
        let accounts = Self { verifier, revoked: RwLock::default(), disabled, listeners: RwLock::default() };
        for revocation in revocations {
            accounts.keep(revocation);
        }
        accounts
    }

    /// Ends what `revocation` covers, from now on, and tells every listener. The bridge must have committed it before.
    pub(crate) fn revoke(&self, revocation: &Revocation) {
        self.keep(revocation);
        self.tell(revocation);
    }

    /// Keeps a user out from now on, and ends his connections; or lets him in again. The bridge must have committed it before.
    pub(crate) fn set_disabled(&self, user: &UserId, disabled: bool) {
        let mut all = self.disabled.write().unwrap_or_else(PoisonError::into_inner);
        if disabled {
            all.insert(user.clone());
            drop(all);
            // Every token there can be, also one of an issuer whose clock is ahead: told, not kept.
            self.tell(&Revocation::User { user: user.clone(), before: u64::MAX });
        } else {
            all.remove(user);
        }
    }

    /// The `iat` of a token that is made at `now` (Unix seconds): revocations count in seconds, and what was revoked in this one must not
    /// take a token along that comes after.
    pub(crate) fn issue_at(&self, user: &UserId, device: Option<&DeviceId>, now: u64) -> u64 {
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        let Some(revoked) = revoked.get(user) else { return now };
        let of_device = device.and_then(|device| revoked.devices.get(device)).copied().unwrap_or_default();
        now.max(revoked.before).max(of_device)
    }

    /// Before which second a revocation at `now` (Unix seconds) must lie to cover every token that there is: [`TokenAccounts::issue_at`] may
    /// have made some ahead of time.
    pub(crate) fn end_before(&self, user: &UserId, now: u64) -> u64 {
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        let newest = revoked.get(user).map(|revoked| {
            let of_devices = revoked.devices.values().copied().max().unwrap_or_default();
            revoked.before.max(of_devices)
        });
        now.max(newest.unwrap_or_default()) + 1
    }

    /// What a token says that is good now, for its renewal or its revocation; nobody has asked what it is used for.
    ///
    /// # Errors
    /// [`Denied`] says why it is not good.
    pub(crate) fn look_at(&self, token: &[u8], now: u64) -> Result<Verified, Denied> {
        let verified = self.verifier.verify(token, now)?;
        if self.is_revoked(&verified.grant) { Err(Denied::Revoked) } else { Ok(verified) }
    }

    fn tell(&self, revocation: &Revocation) {
        for listener in self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            listener(revocation);
        }
    }

    fn keep(&self, revocation: &Revocation) {
        let (Revocation::Token { user, .. } | Revocation::Device { user, .. } | Revocation::User { user, .. }) =
            revocation;
        let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        revoked.entry(user.clone()).or_default().add(revocation);
    }

    fn is_revoked(&self, grant: &Grant) -> bool {
        if self.disabled.read().unwrap_or_else(PoisonError::into_inner).contains(&grant.user) {
            return true;
        }
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        revoked.get(&grant.user).is_some_and(|revoked| revoked.covers(grant))
    }
}

impl Accounts for TokenAccounts {
    fn verify(&self, user: &UserId, token: &[u8], scope: Scope, now: u64) -> Result<Grant, Denied> {
        let verified = self.look_at(token, now)?;
        if verified.grant.user != *user {
            return Err(Denied::OtherUser);
        }
        if !verified.covers(scope) {
            return Err(Denied::OtherScope);
        }
        Ok(verified.grant)
    }

    fn identify(&self, token: &[u8], scope: Scope, now: u64) -> Result<Grant, Denied> {
        let verified = self.look_at(token, now)?;
        if !verified.covers(scope) {
            return Err(Denied::OtherScope);
        }
        Ok(verified.grant)
    }

    fn still_holds(&self, grant: &Grant, now: u64) -> Result<(), Denied> {
        if self.is_revoked(grant) {
            return Err(Denied::Revoked);
        }
        if now < grant.expires_at { Ok(()) } else { Err(Denied::Expired) }
    }

    fn on_revocation(&self, listener: RevocationListener) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{OwnKey, TrustedKey};
    use crate::token::issue;
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    const NOW: u64 = 1_764_000_000;

    struct Bench {
        _dir: tempfile::TempDir,
        own: OwnKey,
        accounts: TokenAccounts,
    }

    fn bench_with(more: Vec<TrustedKey>) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let own = OwnKey::load_or_make(dir.path()).unwrap();
        let mut keys = vec![own.trusted()];
        keys.extend(more);
        Bench { _dir: dir, accounts: TokenAccounts::new(Verifier::new(keys), &[], Vec::new()), own }
    }

    fn bench() -> Bench {
        bench_with(Vec::new())
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn device(name: &str) -> DeviceId {
        DeviceId::parse(name).unwrap()
    }

    fn good() -> Value {
        json!({"sub": "alice", "aud": "natter", "iat": NOW, "exp": NOW + 60, "jti": "j1"})
    }

    /// The good claims with some replaced; `null` takes one out.
    fn claims(changes: &Value) -> Value {
        let mut claims = good();
        for (key, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(key);
            } else {
                claims[key] = value.clone();
            }
        }
        claims
    }

    impl Bench {
        fn sign(&self, claims: &Value) -> String {
            encode(&Header::new(Algorithm::EdDSA), claims, &self.own.signing).unwrap()
        }

        fn issue(&self, of_device: Option<&str>) -> String {
            let of_device = of_device.map(device);
            issue(&self.own.signing, &user("alice"), of_device.as_ref(), Duration::from_secs(60), NOW).unwrap()
        }

        fn verify(&self, token: &str) -> Result<Grant, Denied> {
            self.accounts.verify(&user("alice"), token.as_bytes(), Scope::Mqtt, NOW)
        }

        fn denies(&self, changes: &Value, denied: Denied) {
            assert_eq!(self.verify(&self.sign(&claims(changes))), Err(denied), "{changes}");
        }
    }

    fn base64url(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0u32, |word, b| word << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
            for digit in 0..=chunk.len() {
                text.push(char::from(DIGITS[(word >> (18 - 6 * digit) & 63) as usize]));
            }
        }
        text
    }

    #[test]
    fn an_issued_token_is_good_for_its_user_until_it_expires() {
        let bench = bench();
        let token = bench.issue(Some("phone"));
        let grant = bench.verify(&token).unwrap();
        assert_eq!((grant.user, grant.device), (user("alice"), Some(device("phone"))));
        assert_eq!((grant.issued_at, grant.expires_at), (NOW, NOW + 60));
        assert_eq!(grant.jti.len(), 36);
        let at = |now| bench.accounts.verify(&user("alice"), token.as_bytes(), Scope::Http, now);
        assert!(at(NOW + 59).is_ok());
        assert_eq!(at(NOW + 60), Err(Denied::Expired));
        assert_ne!(bench.verify(&bench.issue(None)).unwrap().jti, bench.verify(&bench.issue(None)).unwrap().jti);
    }

    #[test]
    fn a_token_without_signature_is_bad() {
        let bench = bench();
        let claims = base64url(good().to_string().as_bytes());
        for header in [r#"{"alg":"none","typ":"JWT"}"#, r#"{"alg":"None"}"#, r#"{"alg":"EdDSA"}"#, "{}"] {
            let header = base64url(header.as_bytes());
            for token in
                [format!("{header}.{claims}."), format!("{header}.{claims}"), format!("{header}.{claims}.AAAA")]
            {
                assert_eq!(bench.verify(&token), Err(Denied::Bad), "{token}");
            }
        }
        for token in ["", ".", "..", "...", "a.b.c", "alice", &"a".repeat(100_000)] {
            assert_eq!(bench.verify(token), Err(Denied::Bad));
        }
    }

    #[test]
    fn a_token_signed_with_the_public_key_as_a_secret_is_bad() {
        let bench = bench();
        let public = bench.own.verifying.try_get_as_bytes().unwrap();
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let token = encode(&Header::new(algorithm), &good(), &EncodingKey::from_secret(public)).unwrap();
            assert_eq!(bench.verify(&token), Err(Denied::Bad));
            // The same bytes, under a header that says our algorithm.
            let (message, signature) = token.rsplit_once('.').unwrap();
            let (_, claims) = message.split_once('.').unwrap();
            let header = base64url(br#"{"alg":"EdDSA"}"#);
            assert_eq!(bench.verify(&format!("{header}.{claims}.{signature}")), Err(Denied::Bad));
        }
    }

    #[test]
    fn a_changed_token_is_bad() {
        let bench = bench();
        let token = bench.sign(&good());
        let (message, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = message.split_once('.').unwrap();
        let other = base64url(claims(&json!({"sub": "bob"})).to_string().as_bytes());
        assert_eq!(bench.verify(&format!("{header}.{other}.{signature}")), Err(Denied::Bad));
        assert!(bench.verify(&token).is_ok());
    }

    #[test]
    fn s23_a_token_of_another_key_is_bad() {
        let (bench, other) = (bench(), self::bench());
        assert_eq!(bench.verify(&other.sign(&good())), Err(Denied::Bad));
    }

    #[test]
    fn s19_an_expired_token_does_not_work_at_all() {
        let bench = bench();
        for exp in [json!(NOW), json!(NOW - 1), json!(0), json!(1.5)] {
            bench.denies(&json!({ "exp": exp }), Denied::Expired);
        }
        bench.denies(&json!({ "nbf": NOW + 1 }), Denied::Bad);
        assert!(bench.verify(&bench.sign(&claims(&json!({ "nbf": NOW, "exp": NOW as f64 + 1.5 })))).is_ok());
    }

    #[test]
    fn s19_claims_that_are_missing_or_of_another_type_are_bad() {
        let bench = bench();
        for claim in ["sub", "aud", "iat", "exp", "jti"] {
            bench.denies(&json!({ claim: null }), Denied::Bad);
        }
        for changes in [
            json!({"exp": (NOW + 60).to_string()}),
            json!({"exp": -1}),
            json!({"exp": [NOW + 60]}),
            json!({"exp": 1e300}),
            json!({"iat": NOW.to_string()}),
            json!({"iat": NOW + 61}),
            json!({"nbf": NOW.to_string()}),
            json!({"aud": "other"}),
            json!({"aud": ["other"]}),
            json!({"aud": []}),
            json!({"aud": 1}),
            json!({"jti": ""}),
            json!({"jti": "j".repeat(129)}),
            json!({"jti": 1}),
            json!({"sub": "Alice"}),
            json!({"sub": 1}),
            json!({"device": ""}),
            json!({"device": "a/b"}),
            json!({"device": 1}),
            json!({"scope": ["mqtt"]}),
        ] {
            bench.denies(&changes, Denied::Bad);
        }
        for claim in ["device", "scope", "nbf"] {
            let mut claims = good();
            claims[claim] = Value::Null;
            assert_eq!(bench.verify(&bench.sign(&claims)), Err(Denied::Bad), "{claim}: null");
        }
        assert!(bench.verify(&bench.sign(&claims(&json!({"aud": ["other", "natter"]})))).is_ok());
    }

    #[test]
    fn a_header_with_an_extension_that_must_be_understood_is_bad() {
        let bench = bench();
        let header = Header { crit: Some(vec!["exp".into()]), ..Header::new(Algorithm::EdDSA) };
        let token = encode(&header, &good(), &bench.own.signing).unwrap();
        assert_eq!(bench.verify(&token), Err(Denied::Bad));
    }

    #[test]
    fn a_token_of_another_user_says_so() {
        let bench = bench();
        bench.denies(&json!({"sub": "bob"}), Denied::OtherUser);
        // What would not work for its own user either says only that.
        bench.denies(&json!({"sub": "bob", "exp": NOW}), Denied::Expired);
    }

    #[test]
    fn a_scope_says_what_a_token_is_for() {
        let bench = bench();
        let with = |scope: &str, asked| {
            let token = bench.sign(&claims(&json!({ "scope": scope })));
            bench.accounts.verify(&user("alice"), token.as_bytes(), asked, NOW).map(|_| ())
        };
        assert_eq!(with("mqtt", Scope::Mqtt), Ok(()));
        assert_eq!(with("http mqtt", Scope::Mqtt), Ok(()));
        assert_eq!(with("http", Scope::Http), Ok(()));
        assert_eq!(with("http", Scope::Mqtt), Err(Denied::OtherScope));
        assert_eq!(with("mqtt", Scope::Http), Err(Denied::OtherScope));
        assert_eq!(with("", Scope::Http), Err(Denied::OtherScope));
        assert_eq!(with("mqttx xmqtt", Scope::Mqtt), Err(Denied::OtherScope));
    }

    #[test]
    fn what_is_revoked_ends_and_the_rest_stays() {
        let old = claims(&json!({"jti": "old", "device": "phone"}));
        let cases = [
            (Revocation::Token { user: user("alice"), jti: "old".into() }, json!({"jti": "new"})),
            (
                Revocation::Device { user: user("alice"), device: device("phone"), before: NOW + 1 },
                json!({"device": "laptop"}),
            ),
            (Revocation::User { user: user("alice"), before: NOW + 1 }, json!({"iat": NOW + 1})),
        ];
        for (revocation, other) in cases {
            let bench = bench();
            let told = Arc::new(Mutex::new(Vec::new()));
            let listener = Arc::clone(&told);
            bench.accounts.on_revocation(Box::new(move |revocation| listener.lock().unwrap().push(revocation.clone())));
            assert!(bench.verify(&bench.sign(&old)).is_ok());
            bench.accounts.revoke(&revocation);
            assert_eq!(bench.verify(&bench.sign(&old)), Err(Denied::Revoked), "{revocation:?}");
            assert!(bench.verify(&bench.sign(&claims(&other))).is_ok(), "{revocation:?}");
            assert_eq!(*told.lock().unwrap(), vec![revocation.clone()]);
            let restarted = TokenAccounts::new(Verifier::new(vec![bench.own.trusted()]), &[revocation], Vec::new());
            let again = restarted.verify(&user("alice"), bench.sign(&old).as_bytes(), Scope::Mqtt, NOW);
            assert_eq!(again, Err(Denied::Revoked));
        }
    }

    #[test]
    fn who_is_kept_out_has_no_token_that_works_until_he_is_let_in() {
        let bench = bench();
        let told = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::clone(&told);
        bench.accounts.on_revocation(Box::new(move |revocation| listener.lock().unwrap().push(revocation.clone())));
        bench.accounts.set_disabled(&user("alice"), true);
        let later = bench.sign(&claims(&json!({"iat": NOW + 60})));
        assert_eq!(bench.verify(&later), Err(Denied::Revoked));
        assert_eq!(bench.accounts.identify(later.as_bytes(), Scope::Http, NOW), Err(Denied::Revoked));
        let grant =
            Grant { user: user("alice"), device: None, expires_at: NOW + 60, jti: "j".into(), issued_at: NOW + 60 };
        assert!(told.lock().unwrap().iter().all(|revocation| revocation.covers(&grant)), "live connections end");
        assert_eq!(told.lock().unwrap().len(), 1);
        bench.accounts.set_disabled(&user("alice"), false);
        assert!(bench.verify(&later).is_ok());
        let restarted = TokenAccounts::new(Verifier::new(vec![bench.own.trusted()]), &[], vec![user("alice")]);
        assert_eq!(restarted.identify(later.as_bytes(), Scope::Http, NOW), Err(Denied::Revoked));
    }

    #[test]
    fn a_token_that_is_made_in_the_second_of_a_revocation_is_good() {
        let bench = bench();
        let phone = device("phone");
        let at = |of: Option<&DeviceId>| bench.accounts.issue_at(&user("alice"), of, NOW);
        assert_eq!(at(None), NOW);
        bench.accounts.revoke(&Revocation::Device { user: user("alice"), device: phone.clone(), before: NOW + 1 });
        assert_eq!((at(None), at(Some(&device("laptop"))), at(Some(&phone))), (NOW, NOW, NOW + 1));
        bench.accounts.revoke(&Revocation::User { user: user("alice"), before: NOW + 1 });
        let token = issue(&bench.own.signing, &user("alice"), None, Duration::from_secs(60), at(None)).unwrap();
        assert!(bench.verify(&token).is_ok());
        assert_eq!(bench.verify(&bench.issue(None)), Err(Denied::Revoked));
        // Once more in the same second: it covers that one too.
        let before = bench.accounts.end_before(&user("alice"), NOW);
        bench.accounts.revoke(&Revocation::User { user: user("alice"), before });
        assert_eq!((before, bench.verify(&token)), (NOW + 2, Err(Denied::Revoked)));
    }

    #[test]
    fn a_revocation_of_another_user_changes_nothing() {
        let bench = bench();
        bench.accounts.revoke(&Revocation::Token { user: user("bob"), jti: "j1".into() });
        bench.accounts.revoke(&Revocation::User { user: user("bob"), before: NOW + 1 });
        assert!(bench.verify(&bench.sign(&good())).is_ok());
    }

    #[test]
    fn an_issuer_that_is_trusted_is_held_to_its_name_and_its_key() {
        let issuer = self::bench();
        let key =
            TrustedKey { issuer: Some("https://app.example".into()), id: Some("k1".into()), ..issuer.own.trusted() };
        let bench = bench_with(vec![key]);
        let verify = |changes: &Value, kid: Option<&str>| {
            let header = Header { kid: kid.map(Into::into), ..Header::new(Algorithm::EdDSA) };
            bench.verify(&encode(&header, &claims(changes), &issuer.own.signing).unwrap()).map(|_| ())
        };
        let right = json!({"iss": "https://app.example"});
        assert_eq!(verify(&right, Some("k1")), Ok(()));
        assert_eq!(verify(&right, None), Ok(()));
        assert_eq!(verify(&right, Some("k2")), Err(Denied::Bad));
        assert_eq!(verify(&json!({"iss": "https://evil.example"}), Some("k1")), Err(Denied::Bad));
        assert_eq!(verify(&json!({}), Some("k1")), Err(Denied::Bad));
    }

    #[test]
    fn a_trusted_public_key_is_no_secret_for_another_algorithm() {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
        let rng = aws_lc_rs::rand::SystemRandom::new();
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let signing = EncodingKey::from_ec_der(pair.as_ref());
        let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&signing, Algorithm::ES256).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks.json");
        std::fs::write(&path, json!({ "keys": [jwk] }).to_string()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let trusted = crate::keys::load_trusted(&crate::config::Auth {
            public_key_file: None,
            algorithm: crate::config::KeyAlgorithm::EdDSA,
            jwks_file: Some(path),
            issuer: None,
        });
        let bench = bench_with(trusted.unwrap());
        let public = bench.accounts.verifier.public_keys().pop().unwrap();
        let verify =
            |algorithm, key: &EncodingKey| bench.verify(&encode(&Header::new(algorithm), &good(), key).unwrap());
        assert!(verify(Algorithm::ES256, &signing).is_ok());
        for secret in [&public[..], &bytes[..]] {
            assert_eq!(verify(Algorithm::HS256, &EncodingKey::from_secret(secret)), Err(Denied::Bad));
        }
        let mut changed = encode(&Header::new(Algorithm::ES256), &good(), &signing).unwrap();
        changed.replace_range(..changed.find('.').unwrap(), &base64url(br#"{"alg":"EdDSA"}"#));
        assert_eq!(bench.verify(&changed), Err(Denied::Bad));
    }
}
