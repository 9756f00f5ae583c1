//! Passwords: argon2id, as PHC strings. A hash takes 19 MiB and tens of milliseconds of a core, so few are made at a time.

use std::sync::Arc;
use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use natter_bridge::change::Secret;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Shortest password, in characters.
const CHARS_MIN: usize = 8;
/// Longest password, in bytes; a longer one is not hashed.
const BYTES_MAX: usize = 1024;
/// Hashes that may wait for their turn; with one more the answer is "not now".
const WAITING_MAX: usize = 64;

/// A password as somebody typed it. No log shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Password(String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Password {
    /// Whether it may become a password.
    ///
    /// # Errors
    /// Expected and got, as text.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (chars, bytes) = (self.0.chars().count(), self.0.len());
        if chars < CHARS_MIN || bytes > BYTES_MAX {
            return Err(format!(
                "password: expected {CHARS_MIN} characters or more and at most {BYTES_MAX} bytes, got {chars} characters, {bytes} bytes"
            ));
        }
        Ok(())
    }

    /// Its hash.
    ///
    /// # Errors
    /// When there is no randomness.
    pub(crate) fn hash(&self) -> Result<Secret, String> {
        let hash: PasswordHash = Argon2::default()
            .hash_password(self.0.as_bytes())
            .map_err(|error| format!("the password cannot be hashed: {error}"))?;
        Ok(Secret(hash.to_string()))
    }

    /// Whether `hash` is its hash. Without one it takes as long and is not.
    fn fits(&self, hash: Option<&Secret>) -> bool {
        // What a user is compared with who has no password, so that the time does not tell that.
        static NOBODYS: LazyLock<Option<Secret>> =
            LazyLock::new(|| Password(uuid::Uuid::now_v7().to_string()).hash().ok());
        let Some(text) = hash.or(NOBODYS.as_ref()) else { return false };
        let fits = match PasswordHash::new(&text.0) {
            Ok(parsed) => Argon2::default().verify_password(self.0.as_bytes(), &parsed).is_ok(),
            Err(error) => {
                tracing::error!(%error, "the hash of a password does not read");
                false
            }
        };
        fits && hash.is_some()
    }
}

/// Too many wait for a hash.
#[derive(Debug, thiserror::Error)]
#[error("too many passwords are being checked; try again in a moment")]
pub(crate) struct Busy;

/// Hashes passwords on threads of their own, a few at a time.
pub(crate) struct Hasher {
    turns: Arc<Semaphore>,
    places: Semaphore,
}

impl Hasher {
    /// At most `at_a_time` hashes at a time.
    pub(crate) fn new(at_a_time: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_a_time)), places: Semaphore::new(at_a_time + WAITING_MAX) }
    }

    /// The hash of a password.
    ///
    /// # Errors
    /// [`Busy`]; or there is no randomness, which is no better now.
    pub(crate) async fn hash(&self, password: Password) -> Result<Secret, Busy> {
        let hashed = self.run(move || password.hash()).await?;
        hashed.map_err(|error| {
            tracing::error!(error, "password");
            Busy
        })
    }

    /// Whether `hash` is the password's.
    ///
    /// # Errors
    /// [`Busy`].
    pub(crate) async fn fits(&self, password: Password, hash: Option<Secret>) -> Result<bool, Busy> {
        if password.0.len() > BYTES_MAX {
            return Ok(false);
        }
        self.run(move || password.fits(hash.as_ref())).await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let _place = self.places.try_acquire().map_err(|_| Busy)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Busy)?;
        // Who hangs up does not free his turn before the work is done.
        let work = spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        work.await.map_err(|error| {
            tracing::error!(%error, "password");
            Busy
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password(text.to_owned())
    }

    #[test]
    fn a_hash_fits_its_password_alone_and_is_another_one_each_time() {
        let hash = password("correct horse").hash().unwrap();
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.0);
        assert!(password("correct horse").fits(Some(&hash)));
        for other in ["correct hors", "correct horse ", "Correct horse", ""] {
            assert!(!password(other).fits(Some(&hash)), "{other:?}");
        }
        assert_ne!(password("correct horse").hash().unwrap(), hash);
        assert!(!password("correct horse").fits(None));
        assert!(!password("correct horse").fits(Some(&Secret("hunter2".into()))));
    }

    #[test]
    fn a_password_is_neither_short_nor_endless_and_no_log_has_it() {
        assert!(password("8 chars!").check().is_ok());
        assert!(password("äöüäöüäö").check().is_ok());
        assert!(password("7 chars").check().unwrap_err().contains("got 7 characters"));
        assert!(password(&"x".repeat(1024)).check().is_ok() && password(&"x".repeat(1025)).check().is_err());
        assert!(!format!("{:?}", password("hunter22")).contains("hunter22"));
    }

    #[tokio::test]
    async fn more_than_can_wait_are_told_so() {
        let hasher = Hasher::new(1);
        let held = Arc::clone(&hasher.turns).acquire_owned().await.unwrap();
        let places = hasher.places.try_acquire_many(u32::try_from(WAITING_MAX + 1).unwrap()).unwrap();
        assert!(hasher.fits(password("x"), None).await.is_err());
        drop((held, places));
        assert!(!hasher.fits(password("x"), None).await.unwrap());
        assert!(!hasher.fits(password(&"x".repeat(100_000)), None).await.unwrap());
    }
}
