//! What is known of an uploaded file: a row of the store. Its bytes lie in the object store, under a key made of its id.

use natter_protocol::{MediaId, UserId};
use serde::{Deserialize, Serialize};

const MIB: u64 = 1024 * 1024;

/// What a file is to WhatsApp's APIs; it limits its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// Sound.
    Audio,
    /// A film.
    Video,
    /// A sticker.
    Sticker,
    /// Any other file.
    Document,
}

impl MediaKind {
    /// Every kind, in the order of their numbers in the store.
    pub const ALL: [Self; 5] = [Self::Image, Self::Audio, Self::Video, Self::Sticker, Self::Document];
    /// The most bytes of any kind: 100 MiB.
    pub const BYTES_MAX: u64 = 100 * MIB;
    /// The most bytes of a picture, sound, film or sticker: 16 MiB.
    pub const MEDIA_BYTES_MAX: u64 = 16 * MIB;

    /// The word for it: the value of `file_type`, and the `type` of a message that carries it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Sticker => "sticker",
            Self::Document => "document",
        }
    }

    /// Reads [`MediaKind::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Most bytes of a file of this kind: 16 MiB, documents 100 MiB.
    #[must_use]
    pub fn bytes_max(self) -> u64 {
        match self {
            Self::Image | Self::Audio | Self::Video | Self::Sticker => Self::MEDIA_BYTES_MAX,
            Self::Document => Self::BYTES_MAX,
        }
    }
}

/// An uploaded file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaFile {
    /// Its name for everybody; unguessable.
    pub id: MediaId,
    /// Who uploaded it.
    pub owner: UserId,
    /// What it was uploaded as.
    pub kind: MediaKind,
    /// Its type, as its bytes say, or as its owner says where they say nothing: `type/subtype` in lower case, at most 127 bytes.
    pub mime: String,
    /// Of its bytes.
    pub sha256: [u8; 32],
    /// How many they are.
    pub size: u64,
    /// What its owner calls it: data, never a path; at most 255 bytes.
    pub name: Option<String>,
    /// Unix seconds of the upload.
    pub made_at: u64,
    /// Server second until which it is kept.
    pub until: u64,
}

/// Names are not for logs.
impl std::fmt::Debug for MediaFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, owner, kind, mime, sha256: _, size, name: _, made_at: _, until } = self;
        write!(f, "MediaFile({id} of {owner}, {} {mime}, {size} bytes, until {until})", kind.as_str())
    }
}

impl MediaFile {
    /// [`MediaFile::sha256`] in 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn sha256_hex(&self) -> String {
        hex(&self.sha256)
    }
}

/// A user who may read a file, in the tables: with what a search by name goes by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MediaGrant {
    /// Which file.
    pub media: MediaId,
    /// Who.
    pub user: UserId,
    /// [`MediaFile::name`].
    pub name: Option<String>,
    /// [`MediaFile::made_at`].
    pub made_at: u64,
}

/// What a user has uploaded and not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MediaUse {
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).map_or('0', |digit| char::from(*digit));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
