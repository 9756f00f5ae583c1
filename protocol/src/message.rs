//! Message objects: WhatsApp's Cloud API shapes, as tables.
//!
//! A message is read once, against the table of its type. What the table knows is checked and written back in the table's order; what it
//! does not know is left out. The result, the *body*, is what the store keeps and every recipient gets, byte for byte.

use crate::error::{Kind, Refusal};
use crate::json::{Json, write_number, write_string};

/// Most bytes of a thumbnail, as base64 text (3 KiB of JPEG).
pub const THUMB_BYTES_MAX: usize = 4096;
/// Most contacts in one message.
pub const CONTACTS_MAX: usize = 256;

/// The types of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageType {
    /// Words.
    Text,
    /// A picture, by media id.
    Image,
    /// Sound, by media id; `voice` marks a voice message.
    Audio,
    /// A film, by media id.
    Video,
    /// A sticker, by media id.
    Sticker,
    /// Any other file, by media id, with its name.
    Document,
    /// A point on the earth.
    Location,
    /// Contact cards.
    Contacts,
    /// An emoji on another message; an empty one takes it back.
    Reaction,
    /// Other words, or another caption, for an own message.
    Edit,
    /// Takes a message back, for everybody.
    Delete,
}

impl MessageType {
    /// Every type.
    pub const ALL: [Self; 11] = [
        Self::Text,
        Self::Image,
        Self::Audio,
        Self::Video,
        Self::Sticker,
        Self::Document,
        Self::Location,
        Self::Contacts,
        Self::Reaction,
        Self::Edit,
        Self::Delete,
    ];

    /// The value of `type`, and the name of the member that holds the rest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Sticker => "sticker",
            Self::Document => "document",
            Self::Location => "location",
            Self::Contacts => "contacts",
            Self::Reaction => "reaction",
            Self::Edit => "edit",
            Self::Delete => "delete",
        }
    }

    /// Reads [`MessageType::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether a status (`status@broadcast`) may be of this type.
    #[must_use]
    pub fn is_status(self) -> bool {
        matches!(self, Self::Text | Self::Image | Self::Video)
    }

    /// Whether its object is about another message, and names it there.
    #[must_use]
    pub fn is_about_another(self) -> bool {
        matches!(self, Self::Reaction | Self::Edit | Self::Delete)
    }

    fn shape(self) -> &'static Shape {
        match self {
            Self::Text => &TEXT,
            Self::Image => &IMAGE,
            Self::Audio => &AUDIO,
            Self::Video => &VIDEO,
            Self::Sticker => &STICKER,
            Self::Document => &DOCUMENT,
            Self::Location => &LOCATION,
            Self::Contacts => &CONTACTS,
            Self::Reaction => &REACTION,
            Self::Edit => &EDIT,
            Self::Delete => &DELETE,
        }
    }
}

/// Checks the member of `type`'s name in `message` and appends `"text":{..}` with what the type knows.
///
/// # Errors
/// A [`Refusal`] that names the member, what it must be and what came.
pub fn write_body(out: &mut Vec<u8>, kind: MessageType, message: &Json<'_>) -> Result<(), Refusal> {
    let name = kind.as_str();
    let Some(value) = message.get(name) else {
        return Err(Refusal::new(Kind::Malformed, format!("{name}: expected {}, got nothing", kind.shape().what())));
    };
    write_string(out, name);
    out.push(b':');
    kind.shape().write(out, name, value)
}

/// What a value must be.
enum Shape {
    /// A string of so many bytes, from and to.
    Text(usize, usize),
    /// A string for which the function holds; the words say what it must be.
    Checked(fn(&str) -> bool, &'static str),
    /// `true` or `false`.
    Flag,
    /// A number, from and to.
    Number(f64, f64),
    /// A whole number, from 0 to.
    Whole(u64),
    /// An object of these members; the first group is required.
    Object(&'static [(&'static str, Shape)], &'static [(&'static str, Shape)]),
    /// An array of so many objects at the least and at the most.
    Array(usize, usize, &'static Shape),
}

const LINE: Shape = Shape::Text(0, 1024);
const LINES: Shape = Shape::Text(0, 60 * 1024);
const PIXELS: Shape = Shape::Whole(1 << 20);
const MEDIA: Shape =
    Shape::Checked(|id| crate::ids::MediaId::parse(id).is_ok(), "a media id of 16 to 19 decimal digits");
const THUMB: Shape = Shape::Checked(
    |text| {
        text.len() <= THUMB_BYTES_MAX
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
    },
    "a JPEG of at most 3 kB in base64",
);
const SECONDS: Shape = Shape::Number(0.0, 1e7);

const WORDS: Shape = Shape::Object(&[("body", Shape::Text(1, 60 * 1024))], &[("preview_url", Shape::Flag)]);
static TEXT: Shape = WORDS;
static IMAGE: Shape =
    Shape::Object(&[("id", MEDIA)], &[("caption", LINES), ("width", PIXELS), ("height", PIXELS), ("thumb", THUMB)]);
static AUDIO: Shape = Shape::Object(&[("id", MEDIA)], &[("duration", SECONDS), ("voice", Shape::Flag)]);
static VIDEO: Shape = Shape::Object(
    &[("id", MEDIA)],
    &[("caption", LINES), ("width", PIXELS), ("height", PIXELS), ("duration", SECONDS), ("thumb", THUMB)],
);
static STICKER: Shape = Shape::Object(&[("id", MEDIA)], &[("width", PIXELS), ("height", PIXELS)]);
static DOCUMENT: Shape = Shape::Object(&[("id", MEDIA)], &[("caption", LINES), ("filename", LINE), ("thumb", THUMB)]);
static LOCATION: Shape = Shape::Object(
    &[("latitude", Shape::Number(-90.0, 90.0)), ("longitude", Shape::Number(-180.0, 180.0))],
    &[("name", LINE), ("address", LINE), ("url", LINE)],
);
static REACTION: Shape = Shape::Object(&[("emoji", Shape::Text(0, 64))], &[]);
// Which of the two it is, `outbox` looks; and which message they are about.
static EDIT: Shape = Shape::Object(&[], &[("text", WORDS), ("caption", LINES)]);
static DELETE: Shape = Shape::Object(&[], &[]);
static CONTACTS: Shape = Shape::Array(1, CONTACTS_MAX, &CONTACT);
static CONTACT: Shape = Shape::Object(
    &[("name", PERSON)],
    &[
        ("phones", Shape::Array(0, 64, &PHONE)),
        ("emails", Shape::Array(0, 64, &EMAIL)),
        ("addresses", Shape::Array(0, 64, &ADDRESS)),
        ("urls", Shape::Array(0, 64, &URL)),
        ("org", ORG),
        ("birthday", LINE),
    ],
);
const PERSON: Shape = Shape::Object(
    &[("formatted_name", Shape::Text(1, 1024))],
    &[("first_name", LINE), ("last_name", LINE), ("middle_name", LINE), ("prefix", LINE), ("suffix", LINE)],
);
static PHONE: Shape = Shape::Object(&[], &[("phone", LINE), ("type", LINE), ("wa_id", LINE)]);
static EMAIL: Shape = Shape::Object(&[], &[("email", LINE), ("type", LINE)]);
static ADDRESS: Shape = Shape::Object(
    &[],
    &[
        ("street", LINE),
        ("city", LINE),
        ("state", LINE),
        ("zip", LINE),
        ("country", LINE),
        ("country_code", LINE),
        ("type", LINE),
    ],
);
static URL: Shape = Shape::Object(&[], &[("url", LINE), ("type", LINE)]);
const ORG: Shape = Shape::Object(&[], &[("company", LINE), ("department", LINE), ("title", LINE)]);

impl Shape {
    fn what(&self) -> String {
        match self {
            Self::Text(0, max) => format!("a string of at most {max} bytes"),
            Self::Text(min, max) => format!("a string of {min} to {max} bytes"),
            Self::Checked(_, words) => (*words).to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Number(min, max) => format!("a number from {min} to {max}"),
            Self::Whole(max) => format!("a whole number from 0 to {max}"),
            Self::Object([], _) => "an object".to_owned(),
            Self::Object(required, _) => {
                let names: Vec<_> = required.iter().map(|(name, _)| *name).collect();
                format!("an object with {}", names.join(", "))
            }
            Self::Array(min, max, _) => format!("an array of {min} to {max} objects"),
        }
    }

    /// A value of the right kind that is out of its range is [`Kind::InvalidValue`]; of another kind, [`Kind::Malformed`].
    fn refuse(&self, path: &str, value: &Json<'_>) -> Refusal {
        let (kind, got) = match (self, value) {
            (Self::Text(..), Json::String(text)) => (Kind::InvalidValue, format!("{} bytes", text.len())),
            (Self::Checked(..), Json::String(_)) => (Kind::InvalidValue, "another string".to_owned()),
            (Self::Array(..), Json::Array(items)) => (Kind::InvalidValue, format!("{} items", items.len())),
            (Self::Number(..) | Self::Whole(_), number) if number.as_f64().is_some() => {
                (Kind::InvalidValue, "another number".to_owned())
            }
            _ => (Kind::Malformed, value.what().to_owned()),
        };
        Refusal::new(kind, format!("{path}: expected {}, got {got}", self.what()))
    }

    fn write(&self, out: &mut Vec<u8>, path: &str, value: &Json<'_>) -> Result<(), Refusal> {
        match (self, value) {
            (Self::Text(min, max), Json::String(text)) if (*min..=*max).contains(&text.len()) => {
                write_string(out, text)
            }
            (Self::Checked(holds, _), Json::String(text)) if holds(text) => write_string(out, text),
            (Self::Flag, Json::Bool(flag)) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
            (Self::Number(min, max), number) if number.as_f64().is_some_and(|n| (*min..=*max).contains(&n)) => {
                write_number(out, number);
            }
            (Self::Whole(max), Json::Unsigned(n)) if n <= max => write_number(out, value),
            (Self::Array(min, max, item), Json::Array(items)) if (*min..=*max).contains(&items.len()) => {
                out.push(b'[');
                for (i, element) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    item.write(out, &format!("{path}[{i}]"), element)?;
                }
                out.push(b']');
            }
            (Self::Object(required, optional), Json::Object(_)) => {
                out.push(b'{');
                let start = out.len();
                for (name, shape) in *required {
                    let Some(member) = value.get(name) else {
                        return Err(Refusal::new(
                            Kind::Malformed,
                            format!("{path}.{name}: expected {}, got nothing", shape.what()),
                        ));
                    };
                    write_member(out, start, path, name, shape, member)?;
                }
                for (name, shape) in *optional {
                    if let Some(member) = value.get(name) {
                        write_member(out, start, path, name, shape, member)?;
                    }
                }
                out.push(b'}');
            }
            _ => return Err(self.refuse(path, value)),
        }
        Ok(())
    }
}

fn write_member(
    out: &mut Vec<u8>,
    start: usize,
    path: &str,
    name: &str,
    shape: &Shape,
    value: &Json<'_>,
) -> Result<(), Refusal> {
    if out.len() > start {
        out.push(b',');
    }
    write_string(out, name);
    out.push(b':');
    match shape {
        // The path of a leaf is only spelled out when it has something to say.
        Shape::Object(..) | Shape::Array(..) => shape.write(out, &format!("{path}.{name}"), value),
        _ => shape.write(out, name, value).map_err(|_| shape.refuse(&format!("{path}.{name}"), value)),
    }
}
