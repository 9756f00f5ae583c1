//! Stanzas out of bytes, without an XML parser: a generator needs to know where one ends, and one or two attributes. What it counts on is
//! what servers write: no comments, no CDATA, no processing instruction but the first line.

/// Where the first top-level element ends, white space before it included. The opening and the closing tag of the stream are elements of
/// their own. `None`: not all of it is there.
pub(crate) fn measure(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_u32);
    loop {
        let open = at + bytes.get(at..)?.iter().position(|b| *b == b'<')?;
        let close = tag_end(bytes, open)?;
        let tag = bytes.get(open..=close)?;
        at = close + 1;
        if tag.starts_with(b"<?") {
            continue;
        }
        if depth == 0 && (tag.starts_with(b"<stream:stream") || tag.starts_with(b"</stream:stream")) {
            return Some(at);
        }
        if tag.starts_with(b"</") {
            depth = depth.saturating_sub(1);
        } else if !tag.ends_with(b"/>") {
            depth += 1;
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The `>` of the tag that begins at `open`; one inside quotes is none.
fn tag_end(bytes: &[u8], open: usize) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match (quote, byte) {
            (Some(mark), byte) if mark == *byte => quote = None,
            (None, b'\'' | b'"') => quote = Some(*byte),
            (None, b'>') => return Some(at),
            _ => {}
        }
    }
    None
}

/// The first tag of `stanza` whose name begins with `name`, without its `<`.
pub(crate) fn tag<'a>(stanza: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut at = 0;
    loop {
        let open = at + stanza.get(at..)?.iter().position(|b| *b == b'<')?;
        if stanza.get(open + 1..)?.starts_with(name) {
            return stanza.get(open + 1..=tag_end(stanza, open)?);
        }
        at = open + 1;
    }
}

/// An attribute of a tag, as it is written.
pub(crate) fn attribute<'a>(tag: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let name = name.as_bytes();
    let mut at = 0;
    loop {
        at += tag.get(at..)?.iter().position(|b| *b == b' ')? + 1;
        let rest = tag.get(at..)?;
        if let Some([b'=', mark @ (b'\'' | b'"'), value @ ..]) = rest.strip_prefix(name) {
            return value.get(..value.iter().position(|b| b == mark)?);
        }
    }
}

/// The number of a message: hexadecimal digits.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIPT: &[u8] = b"<message to='a@b/phone' from='c@b/phone' xml:lang='en'><received xmlns='urn:xmpp:receipts' id='00000000000000ff'/></message>";

    #[test]
    fn a_stanza_ends_where_its_element_does() {
        let rest = b"<presence from='a>b'/>";
        let all = [b" \n", RECEIPT, rest].concat();
        assert_eq!(measure(&all), Some(2 + RECEIPT.len()));
        assert_eq!(measure(rest), Some(rest.len()));
        for cut in 0..RECEIPT.len() {
            assert_eq!(measure(&RECEIPT[..cut]), None, "{cut}");
        }
        let stream = b"<?xml version='1.0'?><stream:stream id=\"1\"><stream:features><a><b/></a></stream:features>";
        let header = stream.iter().rposition(|b| *b == b'1').unwrap_or(0) + 3;
        assert_eq!(measure(stream), Some(header));
        assert_eq!(measure(&stream[header..]), Some(stream.len() - header));
        assert_eq!(measure(b"</stream:stream>"), Some(16));
    }

    #[test]
    fn what_is_needed_of_it_is_read() {
        let received = tag(RECEIPT, b"received ").unwrap_or_default();
        assert_eq!(attribute(received, "id").and_then(number), Some(255));
        assert_eq!(attribute(RECEIPT, "from"), Some(&b"c@b/phone"[..]));
        assert_eq!(attribute(RECEIPT, "om"), None);
        assert_eq!(tag(RECEIPT, b"request"), None);
    }
}
