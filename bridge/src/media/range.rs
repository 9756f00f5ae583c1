//! `Range`, `If-Range`, `If-None-Match`: which bytes a request wants. Pure.

use std::ops::Range;

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// 304: the client has it.
    Nothing,
    /// 200.
    All,
    /// 206.
    Part(Range<u64>),
    /// 416.
    Outside,
}

/// What a request for `size` bytes with the entity tag `etag` (in quotes) wants. Several ranges at once are not served: such a request gets
/// all of it, once.
#[must_use]
pub fn wanted(
    range: Option<&str>,
    if_range: Option<&str>,
    if_none_match: Option<&str>,
    etag: &str,
    size: u64,
) -> Wanted {
    if if_none_match.is_some_and(|tags| matches(tags, etag)) {
        return Wanted::Nothing;
    }
    // Files do not change: a date is not what they go by.
    let Some(range) = range.filter(|_| if_range.is_none_or(|tag| tag.trim() == etag)) else { return Wanted::All };
    let Some(spec) = range.trim().strip_prefix("bytes=").map(str::trim) else { return Wanted::All };
    if spec.contains(',') {
        return Wanted::All;
    }
    let Some((first, last)) = spec.split_once('-') else { return Wanted::All };
    let part = match (number(first), number(last)) {
        (Number::None, Number::Is(suffix)) => size.saturating_sub(suffix)..size,
        (Number::Is(first), Number::None) => first..size,
        (Number::Is(first), Number::Is(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Number::Is(_), Number::Is(_)) | (Number::None, Number::None) => return Wanted::All,
        (Number::Wrong, _) | (_, Number::Wrong) => return Wanted::All,
    };
    if part.start < part.end && part.end <= size { Wanted::Part(part) } else { Wanted::Outside }
}

enum Number {
    None,
    Is(u64),
    Wrong,
}

fn number(text: &str) -> Number {
    match text.trim() {
        "" => Number::None,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => Number::Is(digits.parse().unwrap_or(u64::MAX)),
        _ => Number::Wrong,
    }
}

/// Whether a list of entity tags has `etag`, by weak comparison (RFC 9110, 13.1.2).
fn matches(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"ab\"";

    fn range(text: &str) -> Wanted {
        wanted(Some(text), None, None, TAG, 100)
    }

    #[test]
    fn s72_one_range_is_served_and_anything_else_is_not() {
        for (text, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-99", 0..100),
            ("bytes=90-", 90..100),
            ("bytes=-10", 90..100),
            ("bytes=-1000", 0..100),
            ("bytes=50-18446744073709551615", 50..100),
            ("bytes=50-99999999999999999999999", 50..100),
            (" bytes=5-6 ", 5..7),
        ] {
            assert_eq!(range(text), Wanted::Part(part), "{text}");
        }
        for text in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=18446744073709551615-"] {
            assert_eq!(range(text), Wanted::Outside, "{text}");
        }
        let thousand = format!("bytes={}", vec!["0-"; 1000].join(","));
        for text in
            ["bytes=9-5", "bytes=-", "bytes=", "bytes=a-b", "items=0-1", "bytes=0-1,5-6", "bytes=+1-2", &thousand]
        {
            assert_eq!(range(text), Wanted::All, "{text}");
        }
        assert_eq!(wanted(Some("bytes=0-"), None, None, TAG, 0), Wanted::Outside);
    }

    #[test]
    fn what_the_client_has_is_not_sent() {
        for tags in [TAG, "*", "W/\"ab\"", "\"x\", \"ab\""] {
            assert_eq!(wanted(Some("bytes=0-1"), None, Some(tags), TAG, 100), Wanted::Nothing, "{tags}");
        }
        assert_eq!(wanted(None, None, Some("\"x\""), TAG, 100), Wanted::All);
        assert_eq!(wanted(Some("bytes=0-1"), Some(TAG), None, TAG, 100), Wanted::Part(0..2));
        for other in ["\"x\"", "W/\"ab\"", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(wanted(Some("bytes=0-1"), Some(other), None, TAG, 100), Wanted::All, "{other}");
        }
    }
}
