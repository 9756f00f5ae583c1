//! What a file is: what its sender says, what its bytes say, and how large it may be for that. Pure.

use natter_protocol::error::{Kind, Refusal};

use super::row::MediaKind;

/// Bytes at the beginning of a file that say what it is.
pub const HEAD_BYTES: usize = 8192;
/// Most bytes of a type that is kept.
const MIME_BYTES_MAX: usize = 127;
/// The type of whatever is not known.
pub const UNKNOWN: &str = "application/octet-stream";
/// Types that share a container: its first bytes do not tell them apart, so what the sender says stands.
const CONTAINERS: [&[&str]; 5] = [
    &[
        "video/mp4",
        "audio/mp4",
        "audio/m4a",
        "audio/x-m4a",
        "audio/aac",
        "video/quicktime",
        "video/3gpp",
        "audio/3gpp",
        "video/x-m4v",
    ],
    &["video/webm", "audio/webm", "video/x-matroska"],
    &["audio/ogg", "video/ogg", "application/ogg", "audio/opus"],
    &["audio/mpeg", "audio/mp3", "audio/aac", "audio/mpga"],
    &["image/jpeg", "image/jpg"],
];

/// What the sender of a file says it is: a kind, a type, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// The kind, where it is said, or follows from the type.
    pub kind: Option<MediaKind>,
    /// The type, as [`mime`] has it.
    pub mime: Option<String>,
}

impl Declared {
    /// Reads `file_type` or `type`: `image`, or `image/png`.
    ///
    /// # Errors
    /// 131009 for anything else.
    pub fn parse(parameter: &str, text: &str) -> Result<Self, Refusal> {
        let text = text.trim();
        let word = text.to_ascii_lowercase();
        if let Some(kind) = MediaKind::parse(&word) {
            return Ok(Self { kind: Some(kind), mime: None });
        }
        if word == "voice" {
            return Ok(Self { kind: Some(MediaKind::Audio), mime: None });
        }
        Self::of_type(text).ok_or_else(|| {
            let details = format!(
                "{parameter}: expected image, audio, video, sticker, document or a MIME type as image/png, got another string"
            );
            Refusal::new(Kind::InvalidValue, details)
        })
    }

    /// Reads a `Content-Type`.
    #[must_use]
    pub fn of_type(text: &str) -> Option<Self> {
        let mime = mime(text)?;
        // A picture that is a program or a document is a document.
        let kind = match mime.split_once('/') {
            Some(("image", "svg+xml")) => MediaKind::Document,
            Some(("image", _)) => MediaKind::Image,
            Some(("audio", _)) => MediaKind::Audio,
            Some(("video", _)) => MediaKind::Video,
            _ => MediaKind::Document,
        };
        Some(Self { kind: Some(kind), mime: Some(mime) })
    }

    /// What this says, and where it says nothing, what `other` says.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        let kind = self.kind.or(other.kind);
        Self { kind, mime: self.mime.or_else(|| other.mime.clone()) }
    }

    /// The kind that limits the size.
    #[must_use]
    pub fn limiting(&self) -> MediaKind {
        self.kind.unwrap_or(MediaKind::Document)
    }
}

/// A type without its parameters, in lower case; `None` if it is none (a line break is in none).
#[must_use]
pub fn mime(text: &str) -> Option<String> {
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_token =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    let (kind, subtype) = essence.split_once('/')?;
    (is_token(kind) && is_token(subtype) && essence.len() <= MIME_BYTES_MAX).then_some(essence)
}

/// The kind and the type that a file is stored with. What its bytes say stands above what its sender says.
///
/// # Errors
/// 131009 when a picture, sound, film or sticker is something else.
pub fn settle(declared: &Declared, head: &[u8]) -> Result<(MediaKind, String), Refusal> {
    let sniffed = sniff(head);
    let said = declared.mime.as_deref().filter(|mime| *mime != UNKNOWN);
    let mime = match (sniffed, said) {
        (Some(sniffed), Some(said)) if is_compatible(sniffed, said) => said,
        (Some(sniffed), _) => sniffed,
        (None, Some(said)) => said,
        (None, None) => UNKNOWN,
    };
    let kind = declared.kind.or_else(|| Declared::of_type(mime)?.kind).unwrap_or(MediaKind::Document);
    let families: &[&str] = match kind {
        MediaKind::Image | MediaKind::Sticker => &["image/"],
        MediaKind::Audio => &["audio/", "video/", "application/ogg"],
        MediaKind::Video => &["video/", "application/ogg"],
        MediaKind::Document => &[""],
    };
    let is_family =
        families.iter().any(|family| mime.starts_with(family)) && (kind == MediaKind::Document || mime != SVG);
    if sniffed.is_some() && !is_family {
        let details = format!("file: expected the bytes of {}, got {mime}: send it as a document", article(kind));
        return Err(Refusal::new(Kind::InvalidValue, details));
    }
    Ok((kind, mime.to_owned()))
}

const SVG: &str = "image/svg+xml";

fn article(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "an image",
        MediaKind::Audio => "an audio file",
        MediaKind::Video => "a video",
        MediaKind::Sticker => "a sticker",
        MediaKind::Document => "a document",
    }
}

/// What the first bytes say.
fn sniff(head: &[u8]) -> Option<&'static str> {
    infer::get(head).map(|kind| kind.mime_type())
}

/// Whether bytes that look like `sniffed` may well be what their sender says.
fn is_compatible(sniffed: &str, said: &str) -> bool {
    sniffed == said
        || CONTAINERS.iter().any(|names| names.contains(&sniffed) && names.contains(&said))
        // Many formats are archives, or XML, inside.
        || (sniffed == "application/zip" && said.starts_with("application/"))
        || (sniffed == "text/xml" && (said.ends_with("+xml") || said.ends_with("/xml")))
}

/// The refusal of a file that is larger than its kind may be.
#[must_use]
pub fn too_large(kind: MediaKind) -> Refusal {
    let details = format!("file: expected {} of at most {} bytes, got more", article(kind), kind.bytes_max());
    Refusal::new(Kind::TooLarge, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const HTML: &[u8] = b"<!DOCTYPE html><html><script>alert(1)</script>";

    fn settled(declared: &str, head: &[u8]) -> Option<(MediaKind, String)> {
        settle(&Declared::parse("type", declared).unwrap(), head).ok()
    }

    fn is(kind: MediaKind, mime: &str) -> Option<(MediaKind, String)> {
        Some((kind, mime.to_owned()))
    }

    #[test]
    fn a_kind_or_a_type_may_be_said() {
        let parsed = |text| Declared::parse("type", text).ok().map(|declared| (declared.limiting(), declared.mime));
        assert_eq!(parsed("image"), Some((MediaKind::Image, None)));
        assert_eq!(parsed(" Sticker "), Some((MediaKind::Sticker, None)));
        assert_eq!(parsed("voice"), Some((MediaKind::Audio, None)));
        assert_eq!(parsed("IMAGE/PNG"), Some((MediaKind::Image, Some("image/png".into()))));
        assert_eq!(parsed("audio/ogg; codecs=opus"), Some((MediaKind::Audio, Some("audio/ogg".into()))));
        assert_eq!(parsed("application/pdf"), Some((MediaKind::Document, Some("application/pdf".into()))));
        assert_eq!(parsed("image/svg+xml"), Some((MediaKind::Document, Some("image/svg+xml".into()))));
        let long = format!("image/{}", "x".repeat(127));
        for wrong in ["", "picture", "image/", "/png", "image/png\r\nX: y", "image/p ng", "a/b/c", &long] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn bytes_stand_above_words() {
        assert_eq!(settled("image", PNG), is(MediaKind::Image, "image/png"));
        assert_eq!(settled("image/jpeg", PNG), is(MediaKind::Image, "image/png"));
        assert_eq!(settled("application/octet-stream", PNG), is(MediaKind::Document, "image/png"));
        assert_eq!(settle(&Declared::default(), PNG).ok(), is(MediaKind::Image, "image/png"));
        assert_eq!(settled("document", HTML), is(MediaKind::Document, "text/html"));
        assert_eq!(settled("application/pdf", HTML), is(MediaKind::Document, "text/html"));
        assert_eq!(settled("application/pdf", b"?"), is(MediaKind::Document, "application/pdf"));
        assert_eq!(settle(&Declared::default(), b"?").ok(), is(MediaKind::Document, UNKNOWN));
    }

    #[test]
    fn s68_what_pretends_to_be_a_picture_is_refused() {
        for (declared, head) in [
            ("image/png", HTML),
            ("image", b"%PDF-1.7".as_slice()),
            ("sticker", b"PK\x03\x04"),
            ("video", PNG),
            ("audio/ogg", HTML),
        ] {
            let refusal = settle(&Declared::parse("type", declared).unwrap(), head).unwrap_err();
            assert_eq!(refusal.kind, Kind::InvalidValue, "{declared}");
        }
    }

    #[test]
    fn what_shares_a_container_is_what_its_sender_says() {
        let mp4 = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41";
        assert_eq!(settled("audio/mp4", mp4), is(MediaKind::Audio, "audio/mp4"));
        assert_eq!(settled("video", mp4), is(MediaKind::Video, "video/mp4"));
        let zip = b"PK\x03\x04\x14\0\0\0\x08\0";
        assert_eq!(settled("application/java-archive", zip), is(MediaKind::Document, "application/java-archive"));
        assert_eq!(settled("text/plain", zip), is(MediaKind::Document, "application/zip"));
    }

    #[test]
    fn what_is_said_twice_counts_once() {
        let kind = Declared::parse("type", "document").unwrap();
        let both = kind.or(&Declared::of_type("image/png").unwrap());
        assert_eq!(both, Declared { kind: Some(MediaKind::Document), mime: Some("image/png".into()) });
    }
}
