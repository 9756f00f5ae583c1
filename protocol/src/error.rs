//! Why something was not done, in the words of all three worlds: Cloud API error codes, MQTT reason codes, HTTP status
//! (wire.md sections 4 and 6).

use std::io::Write as _;

use crate::ids::MessageId;

/// A refusal for good: trying again does not help. "Not now" is [`NotNow`], and is never acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Not JSON, a parameter missing or of the wrong kind.
    Malformed,
    /// The topic, the sender or the membership does not allow it.
    NotAllowed,
    /// The token is not accepted (HTTP only; MQTT says it at CONNECT).
    Token,
    /// Nobody of that name.
    UnknownRecipient,
    /// A message type that Natter does not have.
    UnknownType,
    /// A value out of its range.
    InvalidValue,
    /// More bytes than the limit.
    TooLarge,
    /// No such media, or not the sender's to pass on.
    NoMedia,
    /// The same id with other content.
    Conflict,
    /// An id that matches no message or more than one.
    Ambiguous,
    /// Accepted, but not delivered within its time to live.
    Expired,
    /// A quota that stays full until somebody acts.
    Quota,
}

impl Kind {
    /// Every kind, in the order of wire.md section 6.
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::NotAllowed,
        Self::Token,
        Self::UnknownRecipient,
        Self::UnknownType,
        Self::InvalidValue,
        Self::TooLarge,
        Self::NoMedia,
        Self::Conflict,
        Self::Ambiguous,
        Self::Expired,
        Self::Quota,
    ];

    /// The stable code: `errors[].code`, problem+json `code`, Cloud API `error.code`.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Malformed => 100,
            Self::NotAllowed => 10,
            Self::Token => 190,
            Self::UnknownRecipient => 131_026,
            Self::UnknownType => 131_051,
            Self::InvalidValue | Self::TooLarge => 131_009,
            Self::NoMedia => 131_052,
            Self::Conflict => 1409,
            Self::Ambiguous => 1410,
            Self::Expired => 1411,
            Self::Quota => 130_429,
        }
    }

    /// The short title beside the code.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Malformed => "Malformed or missing parameter",
            Self::NotAllowed => "Not allowed",
            Self::Token => "Token not accepted",
            Self::UnknownRecipient => "Recipient unknown",
            Self::UnknownType => "Type unknown",
            Self::InvalidValue => "Value invalid",
            Self::TooLarge => "Too large",
            Self::NoMedia => "Media not there",
            Self::Conflict => "Id used for another message",
            Self::Ambiguous => "Ambiguous reference",
            Self::Expired => "Expired undelivered",
            Self::Quota => "Quota exceeded",
        }
    }

    /// The MQTT 5 reason code of the PUBACK or PUBREC (3.4.2.1).
    #[must_use]
    pub fn mqtt_reason(self) -> u8 {
        match self {
            Self::Malformed => 0x99,
            Self::NotAllowed | Self::Token => 0x87,
            Self::UnknownRecipient
            | Self::UnknownType
            | Self::InvalidValue
            | Self::NoMedia
            | Self::Conflict
            | Self::Ambiguous
            | Self::Expired => 0x83,
            Self::TooLarge | Self::Quota => 0x97,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::Malformed | Self::UnknownType | Self::InvalidValue | Self::Ambiguous | Self::NoMedia => 400,
            Self::Token => 401,
            Self::NotAllowed => 403,
            Self::UnknownRecipient => 404,
            Self::Conflict => 409,
            Self::Expired => 410,
            Self::TooLarge => 413,
            Self::Quota => 429,
        }
    }

    /// The kind as one byte, for frames and stored rows.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        self as u8
    }

    /// Reads [`Kind::to_byte`] back.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_byte() == byte)
    }
}

/// A refusal with its particulars.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {details}", .kind.title())]
pub struct Refusal {
    /// Which.
    pub kind: Kind,
    /// What was expected and what came. Never a body, never a token.
    pub details: String,
    /// The message id that [`Kind::Conflict`] speaks of; such an error carries no `id`, so that the good message keeps its ticks.
    pub conflicts_with: Option<MessageId>,
}

impl Refusal {
    /// A refusal of `kind`; `details` says what was expected and what came.
    pub fn new(kind: Kind, details: impl Into<String>) -> Self {
        Self { kind, details: details.into(), conflicts_with: None }
    }

    /// Writes the member of `errors`: `{"code":..,"title":"..","message":"..","error_data":{"details":".."}}`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let title = self.kind.title();
        // The title is ours and plain; details may quote what came and are escaped.
        let _ = write!(
            out,
            "{{\"code\":{},\"title\":\"{title}\",\"message\":\"{title}\",\"error_data\":{{\"details\":",
            self.kind.code()
        );
        crate::json::write_string(out, &self.details);
        out.push(b'}');
        if let Some(id) = &self.conflicts_with {
            let _ = write!(out, ",\"conflicts_with\":\"{id}\"");
        }
        out.push(b'}');
    }
}

/// Why nothing was done *yet*: never a PUBACK, over HTTP 503 or 429 with Retry-After (code 131000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// The disk is full, a commit failed, the server is starting or ending.
    #[error("the server cannot store anything at the moment: try again")]
    Unavailable,
    /// Too many requests at the moment.
    #[error("too many requests: slow down and try again")]
    Busy,
}

impl NotNow {
    /// The code of "not now" towards HTTP clients.
    pub const CODE: u32 = 131_000;

    /// The reason code of the DISCONNECT.
    #[must_use]
    pub fn mqtt_reason(self) -> u8 {
        match self {
            Self::Unavailable => 0x89,
            Self::Busy => 0x97,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::Unavailable => 503,
            Self::Busy => 429,
        }
    }
}
