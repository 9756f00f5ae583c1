//! Whether an up- or download is tried again, and after how long. Pure.

use std::time::Duration;

use super::MediaError;

/// Tries in a row without progress, the first one with them. With the waits between them that is about a minute and a half.
pub(super) const TRIES_MAX: u32 = 10;
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(20);
/// A server's `Retry-After` counts up to here; beyond it the app decides.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// What was tried.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    refused: bool,
}

impl Retry {
    /// Bytes came: whatever fails next fails for the first time.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
        self.refused = false;
    }

    /// Whether this is the first time that the token is refused: another one may be tried.
    pub(super) fn first_refusal(&mut self) -> bool {
        !std::mem::replace(&mut self.refused, true)
    }

    /// The wait before the next try, with full jitter; `None`: there is none. `random` is any number.
    pub(super) fn next(&mut self, error: &MediaError, random: u32) -> Option<Duration> {
        let again =
            matches!(error, MediaError::Unreachable(_) | MediaError::NotNow { .. } | MediaError::Corrupt { .. });
        self.failures += 1;
        if !again || self.failures >= TRIES_MAX {
            return None;
        }
        let whole = FIRST.saturating_mul(1 << (self.failures - 1).min(16)).min(LONGEST);
        let jittered = whole.mul_f64(f64::from(random) / f64::from(u32::MAX));
        match error.retry_after() {
            Some(after) if after > RETRY_AFTER_MAX => None,
            Some(after) => Some(after + jittered),
            None => Some(jittered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> MediaError {
        MediaError::Unreachable("x".into())
    }

    #[test]
    fn broken_connections_are_tried_again_a_bounded_number_of_times() {
        let mut retry = Retry::default();
        let waits: Vec<_> = std::iter::from_fn(|| retry.next(&broken(), u32::MAX)).take(100).collect();
        assert_eq!(waits.len() + 1, TRIES_MAX as usize);
        assert_eq!((waits[0], waits[1]), (FIRST, FIRST * 2));
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        retry.progressed();
        assert_eq!(retry.next(&broken(), 0), Some(Duration::ZERO));
    }

    #[test]
    fn a_servers_time_is_kept_and_a_refusal_is_final() {
        let mut retry = Retry::default();
        let busy = |secs| MediaError::NotNow { details: String::new(), retry_after: Some(Duration::from_secs(secs)) };
        assert_eq!(retry.next(&busy(3), 0), Some(Duration::from_secs(3)));
        assert_eq!(retry.next(&busy(3600), 0), None);
        assert_eq!(retry.next(&MediaError::NotFound(String::new()), 0), None);
        assert!(retry.first_refusal() && !retry.first_refusal());
    }
}
