//! vCards, as phones export them: versions 2.1, 3.0 (RFC 2426) and 4.0 (RFC 6350), many in one file. Pure.
//!
//! Of a card only what names its person is read: `FN` (else `N`, `NICKNAME`, `ORG`) for people, and for the server `X-NATTER:bob`,
//! `IMPP:natter:bob`, the `waid` parameter that WhatsApp writes, and the digits of every `TEL`. Lines may be folded, quoted-printable, and
//! in any character set that a browser knows; pictures are passed over.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use natter_protocol::error::{Kind, Refusal};

/// Cards of one file; more are refused as a whole.
pub const CARDS_MAX: usize = 1000;
/// Names and numbers of one card that may name a user.
pub const NAMES_MAX: usize = 64;

/// A person of whom a file or a message speaks.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Card {
    /// What he is called, in one line; `None`: nothing but spaces.
    pub name: Option<String>,
    /// What may name a user of this server, surest first: a name, or the digits of a number. At most [`NAMES_MAX`].
    pub names: Vec<String>,
}

/// Whom somebody knows is not for logs.
impl std::fmt::Debug for Card {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, names } = self;
        write!(f, "Card(named: {}, {} names)", name.is_some(), names.len())
    }
}

/// Reads a file, in `charset` (a label as of an HTTP header) where its lines name none; without it, UTF-8 or else Windows-1252. Each card
/// with why it cannot be understood, if it cannot: the others can all the same.
///
/// # Errors
/// No card at all, more than [`CARDS_MAX`], or a character set that nobody knows.
pub fn read(file: &[u8], charset: Option<&str>) -> Result<Vec<Result<Card, Refusal>>, Refusal> {
    let charset = charset.map(known).transpose()?;
    let text = match Encoding::for_bom(file) {
        // Two bytes a letter: lines are only found behind it.
        Some((utf_16, _)) if utf_16 != UTF_8 => Cow::Owned(utf_16.decode(file).0.into_owned().into_bytes()),
        Some((_, bom)) => Cow::Borrowed(file.get(bom..).unwrap_or_default()),
        None => Cow::Borrowed(file),
    };
    let mut cards = Vec::new();
    let mut open: Option<Open> = None;
    let mut lines = Lines { rest: &text };
    while let Some(line) = lines.next() {
        let Some(property) = Property::parse(&line) else { continue };
        let is_card = property.value.trim_ascii().eq_ignore_ascii_case(b"VCARD");
        match (property.name.as_str(), &mut open) {
            ("BEGIN", Some(card)) if is_card && card.expects_agent => {
                card.agents += 1;
                card.expects_agent = false;
            }
            ("BEGIN", _) if is_card => {
                if cards.len() + usize::from(open.is_some()) >= CARDS_MAX {
                    let details = format!("body: expected at most {CARDS_MAX} cards, got more: split the file");
                    return Err(Refusal::new(Kind::InvalidValue, details));
                }
                cards.extend(open.take().map(|_| Err(cut("BEGIN:VCARD of another"))));
                open = Some(Open::default());
            }
            ("END", Some(card)) if is_card && card.agents > 0 => card.agents -= 1,
            ("END", Some(_)) if is_card => cards.extend(open.take().map(Open::close)),
            // Of an assistant's card within a card nothing counts.
            (_, Some(card)) if card.agents == 0 => card.take(&property, charset),
            _ => {}
        }
    }
    cards.extend(open.map(|_| Err(cut("the end of the file"))));
    if cards.is_empty() {
        let details = "body: expected a vCard file (BEGIN:VCARD ..), got no card";
        return Err(Refusal::new(Kind::Malformed, details));
    }
    Ok(cards)
}

fn cut(got: &str) -> Refusal {
    Refusal::new(Kind::Malformed, format!("card: expected END:VCARD, got {got}"))
}

fn known(label: &str) -> Result<&'static Encoding, Refusal> {
    Encoding::for_label(label.as_bytes()).ok_or_else(|| {
        let got: String = label.chars().take(40).collect();
        Refusal::new(Kind::InvalidValue, format!("charset: expected a character set, as UTF-8, got {got:?}"))
    })
}

/// A card that is being read.
#[derive(Default)]
struct Open {
    version: Option<String>,
    formatted: Option<String>,
    parts: Option<String>,
    nickname: Option<String>,
    organisation: Option<String>,
    names: Vec<String>,
    numbers: Vec<String>,
    agents: usize,
    /// `AGENT:`, behind which version 2.1 has a card within this one.
    expects_agent: bool,
    problem: Option<Refusal>,
}

impl Open {
    fn take(&mut self, property: &Property<'_>, charset: Option<&'static Encoding>) {
        let name = property.name.as_str();
        if !property.value.is_empty() || !property.params.is_empty() {
            self.expects_agent = false;
        }
        let wanted = ["VERSION", "FN", "N", "NICKNAME", "ORG", "TEL", "IMPP", "X-NATTER"];
        if name == "AGENT" {
            self.expects_agent = property.value.trim_ascii().is_empty();
        }
        if !wanted.contains(&name) || self.problem.is_some() {
            return;
        }
        let value = match property.text(charset) {
            Ok(value) => value,
            Err(refusal) => {
                self.problem = Some(Refusal { details: format!("{name}: {}", refusal.details), ..refusal });
                return;
            }
        };
        match name {
            "VERSION" => self.version = Some(value.trim().to_owned()),
            "FN" => first(&mut self.formatted, one_line(&unescaped(&value))),
            "N" => {
                let parts: Vec<String> = components(&value);
                let at = |index: usize| parts.get(index).map_or("", String::as_str);
                // Family, given, additional, prefix, suffix: in the order in which they are said.
                first(&mut self.parts, one_line(&[at(3), at(1), at(2), at(0), at(4)].join(" ")));
            }
            "NICKNAME" => first(&mut self.nickname, one_line(&unescaped(&value))),
            "ORG" => first(&mut self.organisation, one_line(&components(&value).join(" "))),
            "X-NATTER" => self.names.push(value.trim().to_owned()),
            "IMPP" => self.names.extend(after(value.trim(), "natter:").map(ToOwned::to_owned)),
            _ => {
                self.names.extend(property.param("WAID").and_then(digits));
                let value = unescaped(&value);
                let value = after(value.trim(), "tel:").unwrap_or(&value);
                self.numbers.extend(digits(value.split(';').next().unwrap_or_default()));
            }
        }
    }

    fn close(self) -> Result<Card, Refusal> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        if !self.version.as_deref().is_some_and(|version| ["2.1", "3.0", "4.0"].contains(&version)) {
            let got: String = self.version.map_or("none".to_owned(), |version| version.chars().take(20).collect());
            return Err(Refusal::new(Kind::InvalidValue, format!("VERSION: expected 2.1, 3.0 or 4.0, got {got}")));
        }
        let name = self.formatted.or(self.parts).or(self.nickname).or(self.organisation);
        let (mut names, numbers) = (self.names, self.numbers);
        names.extend(numbers);
        card(name, names, "X-NATTER, IMPP:natter:NAME or TEL")
    }
}

/// A card of these names, each once; `expected`: where they may stand.
///
/// # Errors
/// No name, or more than [`NAMES_MAX`].
pub(super) fn card(name: Option<String>, names: Vec<String>, expected: &str) -> Result<Card, Refusal> {
    let mut unique: Vec<String> = Vec::new();
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
        if unique.len() > NAMES_MAX {
            let details = format!("card: expected at most {NAMES_MAX} names and numbers, got more");
            return Err(Refusal::new(Kind::InvalidValue, details));
        }
    }
    if unique.is_empty() {
        return Err(Refusal::new(Kind::InvalidValue, format!("card: expected {expected}, got none that names a user")));
    }
    Ok(Card { name, names: unique })
}

fn first(known: &mut Option<String>, value: Option<String>) {
    if known.is_none() {
        *known = value;
    }
}

/// What stands behind a prefix in any case.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(prefix)).and_then(|_| text.get(prefix.len()..))
}

/// The digits of a number as people write it; `None` for what is none, as letters.
pub(super) fn digits(number: &str) -> Option<String> {
    let is_number = number.chars().all(|c| !c.is_alphabetic() && c != '@');
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    (is_number && !digits.is_empty()).then_some(digits)
}

/// A name in one line, without what no eye sees at its ends.
pub(super) fn one_line(text: &str) -> Option<String> {
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|w| !w.is_empty()).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// RFC 6350 section 3.4.
fn unescaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n' | 'N') => out.push('\n'),
            Some(escaped @ ('\\' | ',' | ';' | ':')) => out.push(escaped),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

/// The parts between semicolons that nothing escapes.
fn components(value: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut is_escaped = false;
    for c in value.chars() {
        if c == ';' && !is_escaped {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    parts.iter().map(|part| unescaped(part)).collect()
}

/// A line: `[group.]NAME[;PARAM=value]:value`.
struct Property<'a> {
    name: String,
    /// Names in capitals; one without `=` (version 2.1) has no value.
    params: Vec<(String, String)>,
    value: &'a [u8],
}

impl<'a> Property<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let (head, value) = split(line)?;
        let head = String::from_utf8_lossy(head);
        let mut parts = head.split(';');
        let name = parts.next().unwrap_or_default().trim();
        let name = name.rsplit('.').next().unwrap_or_default().to_ascii_uppercase();
        let params = parts.map(|param| {
            let (name, value) = param.split_once('=').unwrap_or((param, ""));
            (name.trim().to_ascii_uppercase(), value.trim().trim_matches('"').to_owned())
        });
        Some(Self { name, params: params.collect(), value })
    }

    fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn text(&self, charset: Option<&'static Encoding>) -> Result<String, Refusal> {
        let bare = |wanted: &str| self.params.iter().any(|(name, value)| name == wanted && value.is_empty());
        let encoding = self.param("ENCODING").unwrap_or_default();
        let bytes = if bare("QUOTED-PRINTABLE") || encoding.eq_ignore_ascii_case("QUOTED-PRINTABLE") {
            Cow::Owned(quoted_printable(self.value))
        } else if bare("BASE64") || ["B", "BASE64"].iter().any(|known| encoding.eq_ignore_ascii_case(known)) {
            return Err(Refusal::new(Kind::InvalidValue, "expected text or quoted-printable, got base64"));
        } else {
            Cow::Borrowed(self.value)
        };
        let named = self.param("CHARSET").map(known).transpose()?.or(charset);
        let decoded = named.unwrap_or(UTF_8).decode_without_bom_handling_and_without_replacement(&bytes);
        match (decoded, named) {
            (Some(text), _) => Ok(text.into_owned()),
            // Every byte is a letter of it: what old phones wrote, and named nowhere.
            (None, None) => Ok(WINDOWS_1252.decode_without_bom_handling(&bytes).0.into_owned()),
            (None, Some(named)) => {
                Err(Refusal::new(Kind::InvalidValue, format!("expected text in {}, got other bytes", named.name())))
            }
        }
    }
}

/// At the first colon that stands in no quotes; a quote that nobody closes is none.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut is_quoted = false;
    let outside = line.iter().position(|byte| {
        is_quoted ^= *byte == b'"';
        *byte == b':' && !is_quoted
    });
    let at = outside.or_else(|| line.iter().position(|byte| *byte == b':'))?;
    Some((line.get(..at)?, line.get(at + 1..)?))
}

fn is_quoted_printable(line: &[u8]) -> bool {
    let head = split(line).map_or(&[][..], |(head, _)| head);
    head.windows(16).any(|window| window.eq_ignore_ascii_case(b"QUOTED-PRINTABLE"))
}

/// RFC 2045 section 6.7, without its line breaks; what is no escape stands for itself.
fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'=', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

/// Lines as they are meant: unfolded, and joined where quoted-printable breaks them.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<Cow<'a, [u8]>> {
        let mut line = Cow::Borrowed(self.physical()?);
        let is_quoted = is_quoted_printable(&line);
        loop {
            if is_quoted && line.last() == Some(&b'=') {
                let Some(next) = self.physical() else { break };
                let line = line.to_mut();
                line.pop();
                line.extend_from_slice(next);
            } else if matches!(self.rest.first(), Some(b' ' | b'\t')) {
                let next = self.physical()?;
                line.to_mut().extend_from_slice(next.get(1..).unwrap_or_default());
            } else {
                break;
            }
        }
        Some(line)
    }

    /// Up to LF, without CR LF.
    fn physical(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let (line, rest) = match end {
            Some(end) => (self.rest.get(..end)?, self.rest.get(end + 1..)?),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

#[cfg(test)]
#[path = "vcard_tests.rs"]
mod tests;
