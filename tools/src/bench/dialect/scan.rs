//! Reads the two or three fields that a generator needs out of an entry, without a JSON parser: the order of an entry's fields is fixed,
//! and what a user wrote stands last. A sample of entries is parsed as well (`pairs`), so that a change of the wire does not go unseen.

/// The number behind the first `key`, which is written with its quotes and its colon.
pub(crate) fn number_after(payload: &[u8], key: &[u8]) -> Option<u64> {
    let digits = payload.get(find(payload, key)? + key.len()..)?;
    let length = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let digits = std::str::from_utf8(digits.get(..length)?).ok()?;
    digits.parse().ok()
}

/// Where `what` begins.
pub(crate) fn find(payload: &[u8], what: &[u8]) -> Option<usize> {
    payload.windows(what.len()).position(|window| window == what)
}

/// A range of messages that a receipt covers: `after` < n <= `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) after: u64,
    pub(crate) n: u64,
}

/// Reads a `delivered`; `None`: it is none.
pub(crate) fn delivered(payload: &[u8]) -> Option<Receipt> {
    let at = find(payload, br#""type":"status","status":"delivered","#)?;
    let rest = payload.get(at..)?;
    Some(Receipt { after: number_after(rest, br#""after":"#)?, n: number_after(rest, br#""n":"#)? })
}

/// The number of a message; `None`: it is none.
pub(crate) fn message(payload: &[u8]) -> Option<u64> {
    let at = find(payload, br#""from":""#)?;
    number_after(payload.get(at..)?, br#""n":"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in `protocol/golden/entries`.
    const MESSAGE: &[u8] = br#"{"seq":5,"prev":4,"from":"alice","chat":"alice","n":17,"id":"0191e4a0","timestamp":"1764000000","type":"text","text":{"body":"\"n\":3"}}"#;
    const DELIVERED: &[u8] = br#"{"seq":6,"prev":5,"type":"status","status":"delivered","chat":"bob","after":12,"n":17,"id":"m1","recipient_id":"bob","timestamp":"1764000000"}"#;
    const READ: &[u8] = br#"{"seq":7,"prev":6,"type":"status","status":"read","chat":"bob","after":12,"n":17,"id":"m1","recipient_id":"bob","timestamp":"1764000000"}"#;

    #[test]
    fn entries_are_told_apart_and_their_numbers_read() {
        assert_eq!(message(MESSAGE), Some(17));
        assert_eq!(delivered(DELIVERED), Some(Receipt { after: 12, n: 17 }));
        for other in [DELIVERED, READ] {
            assert_eq!(message(other), None);
        }
        for other in [MESSAGE, READ, br#"{"seq":9,"prev":7,"type":"gap","from":8,"to":8,"reason":"expired"}"#] {
            assert_eq!(delivered(other), None);
        }
        assert_eq!(number_after(br#"{"n":x}"#, br#""n":"#), None);
    }
}
