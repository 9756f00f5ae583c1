//! One-time codes: a signed-in device asks for one, and a new device gives it back for a token of its own. Pure: time is passed in.
//!
//! A code is 8 characters of Crockford's base32, 40 bits, good for its user, for [`CODE_TTL`] and once. Kept is only an HMAC of both under a
//! key that is made at the start, so the table shows no code, and a look-up by HMAC takes no time that tells of the code. In memory: a
//! restart ends all codes.
//!
//! Guessing: whoever tries a code says whose it is, so a try hits one of that user's [`CODES_OF_USER_MAX`] or none. Of wrong ones the server
//! takes [`WRONG_OF_USER_PER_MIN`] a minute for each user, which is the line that whoever guesses meets first, and which stops the linking of
//! that user alone; [`WRONG_PER_MIN`] of all together is the second line. Before both, the door's count of failures limits each address. At
//! the second line, with three codes open all the time of everybody who is tried, one code of 2^40 is hit in eleven years.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use natter_broker::Rate;
use natter_protocol::UserId;
use natter_protocol::accounts::Grant;

use crate::brake::Brake;

/// How long a code is good.
pub(crate) const CODE_TTL: Duration = Duration::from_secs(120);
/// Open codes of a user; one more ends the oldest.
pub(crate) const CODES_OF_USER_MAX: usize = 3;
/// Open codes of the server; one more is "not now".
const CODES_MAX: usize = 1_000;
/// Codes that a user may ask for a minute.
const ASKED_PER_MIN: u32 = 10;
/// Wrong codes that the server takes a minute for a user; at that many none of his is redeemed for a moment.
const WRONG_OF_USER_PER_MIN: u32 = 60;
/// Wrong codes that it takes a minute for all users together; at that many nobody redeems one for a moment.
const WRONG_PER_MIN: u32 = 60_000;
/// Crockford's base32: no I, L, O and U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of a code, without the hyphen.
const CODE_CHARS: usize = 8;

/// Why there is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoCode {
    /// The user asks too often.
    TooOften,
    /// Too many are open, or the system has no random bytes.
    NotNow,
}

/// A code that is open.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    /// What the token says that it was asked for with: it must still hold when the code is redeemed.
    pub(crate) grant: Grant,
    /// The scope of that token, which the new one gets too.
    pub(crate) scope: Option<String>,
    made_at: Instant,
}

/// See the module.
pub(crate) struct Codes {
    key: hmac::Key,
    open: Mutex<HashMap<[u8; 32], Open>>,
    asked: Brake<UserId>,
    wrong_of_user: Brake<UserId>,
    wrong: Brake<()>,
    refused: Arc<AtomicU64>,
}

impl Codes {
    /// `key`: random bytes. `refused` counts the tries that were wrong, or too many.
    pub(crate) fn new(key: &[u8; 32], refused: Arc<AtomicU64>) -> Self {
        Self {
            key: hmac::Key::new(HMAC_SHA256, key),
            open: Mutex::default(),
            asked: Brake::new(Rate::per_minute(ASKED_PER_MIN)),
            wrong_of_user: Brake::new(Rate::per_minute(WRONG_OF_USER_PER_MIN)),
            wrong: Brake::new(Rate::per_minute(WRONG_PER_MIN)),
            refused,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A code for the user of `grant`, made of `random`.
    pub(crate) fn make(
        &self,
        grant: Grant,
        scope: Option<String>,
        random: [u8; 5],
        now: Instant,
    ) -> Result<String, NoCode> {
        if !self.asked.may(&grant.user, now) {
            return Err(NoCode::TooOften);
        }
        self.asked.count(&grant.user, now);
        let mut open = self.lock();
        open.retain(|_, code| code.is_good(now));
        let mut mine: Vec<_> = open
            .iter()
            .filter(|(_, code)| code.grant.user == grant.user)
            .map(|(key, code)| (code.made_at, *key))
            .collect();
        mine.sort_unstable();
        let over = (mine.len() + 1).saturating_sub(CODES_OF_USER_MAX);
        for (_, key) in mine.iter().take(over) {
            open.remove(key);
        }
        if open.len() >= CODES_MAX {
            return Err(NoCode::NotNow);
        }
        let code = written(random);
        open.insert(self.name(&grant.user, &code), Open { grant, scope, made_at: now });
        Ok(format!("{}-{}", &code[..CODE_CHARS / 2], &code[CODE_CHARS / 2..]))
    }

    /// Whether somebody may try a code of `user` now.
    pub(crate) fn may_try(&self, user: &UserId, now: Instant) -> bool {
        let may = self.wrong_of_user.may(user, now) && self.wrong.may(&(), now);
        if !may {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    /// Somebody has tried a wrong one.
    pub(crate) fn was_wrong(&self, user: &UserId, now: Instant) {
        self.wrong_of_user.count(user, now);
        self.wrong.count(&(), now);
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a code of `user`: nobody else can, unless it is put back.
    pub(crate) fn take(&self, user: &UserId, code: &str, now: Instant) -> Option<Open> {
        let name = self.name(user, &read(code)?);
        self.lock().remove(&name).filter(|code| code.is_good(now))
    }

    /// Puts a code back that was good and of no use for another reason. Its time goes on.
    pub(crate) fn put_back(&self, code: &str, open: Open) {
        if let Some(code) = read(code) {
            self.lock().insert(self.name(&open.grant.user, &code), open);
        }
    }

    /// What a code of a user is kept as. A code has one length, so no two pairs are written alike.
    fn name(&self, user: &UserId, code: &str) -> [u8; 32] {
        let mut name = [0; 32];
        name.copy_from_slice(hmac::sign(&self.key, format!("{code}{user}").as_bytes()).as_ref());
        name
    }
}

impl Open {
    fn is_good(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.made_at) < CODE_TTL
    }
}

/// 40 bits as 8 characters.
fn written(random: [u8; 5]) -> String {
    let bits = random.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    (0..CODE_CHARS)
        .rev()
        .filter_map(|at| ALPHABET.get((bits >> (5 * at) & 31) as usize))
        .map(|c| char::from(*c))
        .collect()
}

/// A code as people write it: in small letters, with or without hyphens and spaces, an O for a 0.
fn read(code: &str) -> Option<String> {
    let mut out = String::with_capacity(CODE_CHARS);
    for c in code.chars().filter(|c| !matches!(c, '-' | ' ')) {
        let c = match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            c => c,
        };
        if out.len() == CODE_CHARS || !c.is_ascii() || !ALPHABET.contains(&(c as u8)) {
            return None;
        }
        out.push(c);
    }
    (out.len() == CODE_CHARS).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn codes(key: u8) -> Codes {
        Codes::new(&[key; 32], Arc::default())
    }

    fn grant(name: &str) -> Grant {
        let user = user(name);
        Grant { user, device: None, expires_at: 9, jti: "j".into(), issued_at: 1 }
    }

    fn make(codes: &Codes, user: &str, n: u8, now: Instant) -> Result<String, NoCode> {
        codes.make(grant(user), None, [0xff, 0, 0, 7, n], now)
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_code_is_good_once_for_two_minutes_and_as_people_write_it() {
        let (codes, now, alice) = (codes(7), Instant::now(), user("alice"));
        let code = codes.make(grant("alice"), Some("http".into()), [0, 0, 0, 0, 1], now).unwrap();
        assert_eq!(code, "0000-0001");
        for wrong in ["", "0000-0002", "0000-000", "0000-00010", "0000-000U", "0000-000\u{e4}"] {
            assert!(codes.take(&alice, wrong, now).is_none(), "{wrong}");
        }
        assert!(codes.take(&user("bob"), &code, now).is_none(), "it is hers");
        let open = codes.take(&alice, "oooo oooi", now).unwrap();
        assert_eq!((open.grant.user.as_str(), open.scope.as_deref()), ("alice", Some("http")));
        assert!(codes.take(&alice, &code, now).is_none(), "once");
        codes.put_back(&code, open);
        assert!(codes.take(&alice, &code, now + CODE_TTL).is_none());
        let code = make(&codes, "alice", 1, now).unwrap();
        assert!(codes.take(&alice, &code.to_lowercase(), now + CODE_TTL - secs(1)).is_some());
    }

    #[test]
    fn codes_are_bounded_of_a_user_and_of_the_server() {
        let (codes, now, alice) = (codes(7), Instant::now(), user("alice"));
        let all: Vec<String> = (0..4).map(|n| make(&codes, "alice", n, now + secs(n.into())).unwrap()).collect();
        assert!(codes.take(&alice, &all[0], now + secs(4)).is_none(), "the oldest has ended");
        assert!(all[1..].iter().all(|code| codes.take(&alice, code, now + secs(4)).is_some()));
        let mut at = now;
        for n in 0..CODES_MAX {
            let random = [1, 0, 0, (n >> 8) as u8, n as u8];
            codes.make(grant(&format!("u{n}")), None, random, at).unwrap();
        }
        assert_eq!(make(&codes, "bob", 0, at), Err(NoCode::NotNow));
        at += CODE_TTL;
        assert!(make(&codes, "bob", 0, at).is_ok(), "those whose time is over make room");
        let asked = (0..2 * ASKED_PER_MIN).filter(|n| make(&codes, "carol", *n as u8, at).is_ok()).count();
        assert_eq!(asked as u32, ASKED_PER_MIN);
        assert_eq!(make(&codes, "carol", 0, at), Err(NoCode::TooOften));
    }

    #[test]
    fn guessing_stops_for_one_user_long_before_it_stops_for_everybody() {
        let (codes, now) = (codes(7), Instant::now());
        let guess = |user: &UserId| {
            let tried = (0..).take_while(|_| codes.may_try(user, now)).map(|_| codes.was_wrong(user, now));
            u32::try_from(tried.count()).unwrap()
        };
        let (alice, bob) = (user("alice"), user("bob"));
        assert_eq!(guess(&alice), WRONG_OF_USER_PER_MIN);
        assert_eq!(codes.refused.load(Ordering::Relaxed), u64::from(WRONG_OF_USER_PER_MIN) + 1, "and one too many");
        assert!(codes.may_try(&bob, now), "his are redeemed as ever");
        assert!(codes.may_try(&alice, now + secs(1)));
        let others = (0..).map(|n| guess(&user(&format!("u{n}")))).take_while(|tried| *tried > 0);
        assert_eq!(WRONG_OF_USER_PER_MIN + others.sum::<u32>(), WRONG_PER_MIN, "the second line");
        assert!(!codes.may_try(&bob, now) && codes.may_try(&bob, now + secs(1)));
        // What the head of this file says.
        let hits_a_minute = f64::from(WRONG_PER_MIN) * CODES_OF_USER_MAX as f64 / 2f64.powi(40);
        assert!(1.0 / hits_a_minute / (60.0 * 24.0 * 365.0) > 11.0);
    }

    #[test]
    fn nothing_of_a_code_is_kept() {
        let (codes, other, now) = (codes(7), codes(8), Instant::now());
        let code = make(&codes, "alice", 5, now).unwrap().replace('-', "");
        let names: Vec<_> = codes.lock().keys().copied().collect();
        assert!(names.iter().all(|name| !name.windows(8).any(|part| part == code.as_bytes())));
        assert_eq!(names[0], codes.name(&user("alice"), &code));
        assert_ne!(names[0], other.name(&user("alice"), &code), "another key, another name");
        assert_ne!(names[0], codes.name(&user("bob"), &code), "another user, too");
        assert!(!format!("{:?}", codes.lock()).contains(&code));
    }
}
