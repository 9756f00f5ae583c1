//! JSON as the wire takes it: one pass into a borrowed tree that refuses what `serde_json` alone would forgive: duplicate keys anywhere,
//! nesting deeper than [`DEPTH_MAX`], bytes after the value. Errors say what was expected and what came, never the value itself.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Deepest nesting of objects and arrays.
pub const DEPTH_MAX: usize = 16;

/// A JSON value that borrows its text from the input where no escape stands in it.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number from 0.
    Unsigned(u64),
    /// A whole number below 0.
    Negative(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object, in the order of the input, without duplicate keys.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// Why a text is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected UTF-8 JSON, got {0}")]
pub struct JsonError(String);

/// Parses the whole of `input`.
///
/// # Errors
/// [`JsonError`] with line and column.
pub fn parse(input: &[u8]) -> Result<Json<'_>, JsonError> {
    let text = std::str::from_utf8(input).map_err(|e| JsonError(format!("bad UTF-8 at byte {}", e.valid_up_to())))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Node { depth: 0 }.deserialize(&mut deserializer).map_err(|e| JsonError(e.to_string()))?;
    deserializer.end().map_err(|e| JsonError(e.to_string()))?;
    Ok(value)
}

impl<'a> Json<'a> {
    /// The member `key` of an object; `None` for other values and absent or null members.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json<'a>> {
        match self {
            Self::Object(members) => members
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value)
                .filter(|value| **value != Self::Null),
            _ => None,
        }
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a number.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "ranges are checked with less precision than an f64 has")]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Unsigned(n) => Some(*n as f64),
            Self::Negative(n) => Some(*n as f64),
            Self::Float(n) => Some(*n),
            _ => None,
        }
    }

    /// What it is, for errors: `a number`, `an object`.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Unsigned(_) | Self::Negative(_) | Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// Appends `text` as a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing a str to a Vec cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Appends a number as it came.
pub fn write_number(out: &mut Vec<u8>, number: &Json<'_>) {
    let _ = match number {
        Json::Unsigned(n) => serde_json::to_writer(out, n),
        Json::Negative(n) => serde_json::to_writer(out, n),
        Json::Float(n) => serde_json::to_writer(out, n),
        _ => Ok(()),
    };
}

#[derive(Clone, Copy)]
struct Node {
    depth: usize,
}

impl Node {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format_args!("nesting deeper than {DEPTH_MAX}")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Node {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(u64::try_from(value).map_or(Json::Negative(value), Json::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json<'de>, A::Error> {
        let child = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(child)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let child = self.deeper()?;
        let mut members: Vec<(Cow<'de, str>, Json<'de>)> = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            members.push((key, map.next_value_seed(child)?));
        }
        if has_duplicate(&members) {
            return Err(A::Error::custom("a duplicate key"));
        }
        Ok(Json::Object(members))
    }
}

fn has_duplicate(members: &[(Cow<'_, str>, Json<'_>)]) -> bool {
    const FEW: usize = 12;
    if members.len() <= FEW {
        // Comparing a dozen short keys with each other beats building a set.
        members.iter().enumerate().any(|(i, (key, _))| members[..i].iter().any(|(earlier, _)| earlier == key))
    } else {
        let mut seen = BTreeSet::new();
        !members.iter().all(|(key, _)| seen.insert(key.as_ref()))
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_borrowed_and_escapes_are_not() {
        let json = parse(br#"{"a":"x","b":"\u00e9","n":[1,-1,1.5,null,true]}"#).expect("JSON");
        assert!(matches!(json.get("a"), Some(Json::String(Cow::Borrowed("x")))));
        assert_eq!(json.get("b").and_then(Json::as_str), Some("é"));
        assert_eq!(json.get("missing"), None);
    }

    #[test]
    fn what_serde_json_forgives_is_refused() {
        for (input, why) in [
            (&br#"{"a":1,"a":2}"#[..], "duplicate key"),
            (br#"{"x":{"b":1,"b":1}}"#, "duplicate key"),
            (br#"{"a":1} x"#, "trailing"),
            (b"{\"a\":\"\xff\"}", "bad UTF-8 at byte 6"),
            (br#"{"a":"\ud800"}"#, ""),
            (b"", "EOF"),
            (br#"{"a":1e999}"#, "out of range"),
        ] {
            let error = parse(input).expect_err("must be refused").to_string();
            assert!(error.contains(why), "{error}");
        }
        let many: String = (0..20).map(|i| format!("\"k{}\":0,", i % 19)).collect();
        assert!(parse(format!("{{{}}}", many.trim_end_matches(',')).as_bytes()).is_err());
    }

    #[test]
    fn nesting_has_a_bottom() {
        let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nest(DEPTH_MAX).as_bytes()).is_ok());
        assert!(parse(nest(DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(parse("[".repeat(60_000).as_bytes()).is_err());
    }
}
