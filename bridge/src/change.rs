//! What a batch changed: the only thing the store is ever told, one journal row a batch.
//!
//! Changes are facts that were decided, never questions: applying them needs no rule. They are idempotent, since at a start those are
//! replayed whose result the tables hold already: watermarks only rise, and what is gone stays gone.

mod codec;

use std::sync::Arc;

use natter_protocol::accounts::Revocation;
use natter_protocol::entry::{GapReason, ReceiptKind};
use natter_protocol::error::{Kind, Refusal};
use natter_protocol::{DeviceId, MediaId, MessageId, N, Seq, Slot, UserId};
use serde::{Deserialize, Serialize};

pub use codec::{DeltaError, decode, encode};

use crate::chat_key::ChatKey;
use crate::contacts::Contact;
use crate::edits::{Redacted, Starred};
use crate::groups::row::{GroupRow, Standing};
use crate::media::row::MediaFile;
use crate::privacy::{Aspect, Rule};

/// A message, stored once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its conversation.
    pub chat: ChatKey,
    /// Its number there.
    pub n: N,
    /// Who sent it.
    pub from: UserId,
    /// Its sender's name for it.
    pub id: MessageId,
    /// Unix seconds of the commit.
    pub timestamp: u64,
    /// `"type":"text","text":{..}`.
    pub body: Arc<str>,
}

/// Bodies are not for logs.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { chat, n, from, id, timestamp: _, body } = self;
        write!(f, "Message({chat:?}/{n} {from}/{id}, {} bytes)", body.len())
    }
}

/// Where a repeat finds the first answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The conversation.
    pub chat: ChatKey,
    /// The number.
    pub n: N,
    /// Unix seconds of the commit.
    pub timestamp: u64,
    /// Of the parsed fields.
    pub hash: [u8; 16],
    /// Server second until which a repeat is known.
    pub until: u64,
}

/// One position of an inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Server second it was made in.
    pub at: u64,
    /// Bytes given in this inbox so far, with this row's.
    pub offset: u64,
    /// Meant for that device only.
    pub only: Option<DeviceId>,
    /// Meant for every device but that.
    pub except: Option<DeviceId>,
    /// What it says.
    pub item: Item,
}

impl Row {
    /// Whether `device` gets it.
    #[must_use]
    pub fn is_for(&self, device: &DeviceId) -> bool {
        self.only.as_ref().is_none_or(|only| only == device) && self.except.as_ref() != Some(device)
    }
}

/// What an inbox entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// A message, which is stored elsewhere once.
    Message(Arc<Message>),
    /// A watermark of the other side.
    Receipt(Receipt),
    /// A message that was refused, or that expired.
    Failed(Failed),
    /// Entries that will not come.
    Gap(Gap),
    /// A status that was taken back.
    Deleted(Deleted),
    /// How many members of a group have had messages of the user's.
    GroupReceipt(Box<GroupReceipt>),
    /// A star of the user's own on a message.
    Starred(Starred),
}

impl Item {
    /// What an entry counts for in a quota beside its body.
    pub const OVERHEAD_BYTES: u64 = 128;

    /// What it counts for in a quota.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Message(message) => message.bytes(),
            Self::Receipt(_)
            | Self::Failed(_)
            | Self::Gap(_)
            | Self::Deleted(_)
            | Self::GroupReceipt(_)
            | Self::Starred(_) => Self::OVERHEAD_BYTES,
        }
    }
}

impl Message {
    /// Whether it is a change of the group it is in.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.body.starts_with("\"type\":\"system\"")
    }

    /// What an entry with it counts for in a quota.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.body.len() as u64 + Item::OVERHEAD_BYTES
    }
}

/// `member` has had delivered, or has read, everything of `chat` with `after < n <= n`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Delivered or read.
    pub kind: Tick,
    /// The conversation.
    pub chat: ChatKey,
    /// From behind this number.
    pub after: N,
    /// Up to this one.
    pub n: N,
    /// The id of that one.
    pub id: MessageId,
    /// Whose receipt it is.
    pub member: UserId,
    /// Unix seconds.
    pub timestamp: u64,
}

/// Of all messages of `chat` with `after < n <= n` that the inbox's user has sent, so many members of `of` have had, and have read, each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReceipt {
    /// Which of the two counts rose; read if both did.
    pub kind: Tick,
    /// The group.
    pub chat: ChatKey,
    /// From behind this number.
    pub after: N,
    /// Up to this one.
    pub n: N,
    /// The id of that one.
    pub id: MessageId,
    /// Members of whom a device has it.
    pub delivered_to: u32,
    /// Members who have read it.
    pub read_by: u32,
    /// Members who may.
    pub of: u32,
    /// Unix seconds.
    pub timestamp: u64,
}

/// The two receipts, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tick {
    /// Two ticks.
    Delivered,
    /// Blue ticks.
    Read,
}

impl From<Tick> for ReceiptKind {
    fn from(tick: Tick) -> Self {
        match tick {
            Tick::Delivered => Self::Delivered,
            Tick::Read => Self::Read,
        }
    }
}

/// Why a message did not go, or did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The message's id, unless the id is another message's.
    pub id: Option<MessageId>,
    /// Set for a message that had been accepted: conversation, number, who did not get it, when.
    pub at: Option<(ChatKey, N, UserId, u64)>,
    /// [`Kind::to_byte`].
    pub kind: u8,
    /// What was expected and what came.
    pub details: String,
    /// The message that has the id already.
    pub conflicts_with: Option<MessageId>,
}

impl Failed {
    /// A refusal of something that never was a message.
    #[must_use]
    pub fn refused(id: Option<MessageId>, refusal: &Refusal) -> Self {
        Self {
            id: if refusal.conflicts_with.is_some() { None } else { id },
            at: None,
            kind: refusal.kind.to_byte(),
            details: refusal.details.clone(),
            conflicts_with: refusal.conflicts_with.clone(),
        }
    }

    /// The refusal it tells.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let kind = Kind::from_byte(self.kind).unwrap_or(Kind::Malformed);
        Refusal { kind, details: self.details.clone(), conflicts_with: self.conflicts_with.clone() }
    }
}

/// The entries `from..=to` will not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first.
    pub from: Seq,
    /// The last.
    pub to: Seq,
    /// They lay too far behind, instead of too long.
    pub lagged: bool,
}

/// A status that its poster has taken back, for those who may have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Who posted it.
    pub poster: UserId,
    /// Its number among what he posts.
    pub n: N,
    /// His name for it.
    pub id: MessageId,
    /// Unix seconds of the deletion.
    pub timestamp: u64,
}

impl Gap {
    /// The reason as the wire says it.
    #[must_use]
    pub fn reason(self) -> GapReason {
        if self.lagged { GapReason::Lagged } else { GapReason::Expired }
    }
}

/// A stored session: what outlives a connection with CleanSession 0 or a session expiry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The inbox it reads.
    pub device: Option<DeviceId>,
    /// How long it lives without a connection, in seconds.
    pub expiry_secs: u32,
    /// Server second its connection ended; `None` while it has one.
    pub gone_at: Option<u64>,
    /// QoS 2 packet ids between PUBREC and PUBREL.
    pub held: Vec<u16>,
}

/// A place in an inbox that a message or notice takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Whose inbox.
    pub user: UserId,
    /// Which position.
    pub seq: Seq,
    /// The same in bytes: [`Row::offset`].
    pub offset: u64,
    /// Meant for that device only.
    pub only: Option<DeviceId>,
    /// Meant for every device but that.
    pub except: Option<DeviceId>,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// There is such a user.
    User {
        /// Who.
        user: UserId,
    },
    /// A device began, or began again.
    Device {
        /// Whose.
        user: UserId,
        /// Which.
        device: DeviceId,
        /// Where it starts.
        cursor: Seq,
        /// The same in bytes.
        offset: u64,
        /// Server second.
        at: u64,
    },
    /// A device is no more.
    DeviceGone {
        /// Whose.
        user: UserId,
        /// Which.
        device: DeviceId,
        /// Where it stood: what only it still waited for lies behind.
        cursor: Seq,
    },
    /// A device has a reader again: it is not idle.
    DeviceSeen {
        /// Whose.
        user: UserId,
        /// Which.
        device: DeviceId,
        /// Server second.
        at: u64,
    },
    /// A message was accepted: it takes its number, its dedupe row, and its places in inboxes. In a conversation of statuses it is one:
    /// it is kept by itself until its time is over, and who has a place may fetch its media as long.
    Message {
        /// The message.
        message: Arc<Message>,
        /// Of the parsed fields.
        hash: [u8; 16],
        /// Server second.
        at: u64,
        /// Who may fetch the media it carries.
        grant: Option<String>,
        /// Where it goes.
        places: Vec<Place>,
    },
    /// A notice took a place in an inbox.
    Notice {
        /// The place's user.
        user: UserId,
        /// The position.
        seq: Seq,
        /// The entry.
        row: Row,
    },
    /// A receipt that nobody was sent yet covers more.
    Merged {
        /// Whose inbox.
        user: UserId,
        /// Which receipt.
        seq: Seq,
        /// Up to this number now.
        n: N,
        /// The id of that one.
        id: MessageId,
        /// Unix seconds.
        timestamp: u64,
    },
    /// A device has acknowledged everything up to `upto`.
    Cursor {
        /// Whose.
        user: UserId,
        /// Which device.
        device: DeviceId,
        /// Where it stood.
        from: Seq,
        /// Where it stands.
        upto: Seq,
        /// The same in bytes.
        offset: u64,
    },
    /// A device lags too far behind: it will not get what lies behind `from` up to `upto`.
    Skipped {
        /// Whose.
        user: UserId,
        /// Which device.
        device: DeviceId,
        /// From behind this position.
        from: Seq,
        /// Up to this one.
        upto: Seq,
        /// The same in bytes.
        offset: u64,
    },
    /// A watermark rose.
    Mark {
        /// The conversation.
        chat: ChatKey,
        /// Whose.
        member: UserId,
        /// Which.
        tick: Tick,
        /// Up to where.
        n: N,
    },
    /// Every entry of the user up to `upto` is gone for good.
    Dropped {
        /// Whose.
        user: UserId,
        /// Up to where.
        upto: Seq,
        /// The same in bytes.
        offset: u64,
    },
    /// A device could not take a message: it stays readable for its user beyond the inbox.
    Kept {
        /// Whose.
        user: UserId,
        /// The message.
        message: Arc<Message>,
        /// Until this server second.
        until: u64,
    },
    /// A session is stored as this.
    Session {
        /// Whose.
        user: UserId,
        /// Which.
        client_id: String,
        /// What.
        session: Session,
    },
    /// A session is no more.
    SessionGone {
        /// Whose.
        user: UserId,
        /// Which.
        client_id: String,
    },
    /// A token, a device's or a user's tokens are not accepted any more.
    Revoked(Revoked),
    /// A user's password is this from now on.
    Password {
        /// Whose.
        user: UserId,
        /// Its hash, as a PHC string; `None`: there is none any more.
        hash: Option<Secret>,
    },
    /// A user may not come in any more, or may again.
    Disabled {
        /// Who.
        user: UserId,
        /// Whether he may not.
        disabled: bool,
    },
    /// What a device of the user gets is posted to a URL from now on.
    Webhook {
        /// Whose.
        user: UserId,
        /// Which device.
        device: DeviceId,
        /// Where to; `None`: it is not any more.
        webhook: Option<Webhook>,
    },
    /// There is such a file.
    Media(Box<MediaFile>),
    /// A file is kept longer.
    MediaKept {
        /// Which.
        id: MediaId,
        /// Whose.
        owner: UserId,
        /// Until this server second.
        until: u64,
    },
    /// A file is no more, and nobody may read it.
    MediaGone {
        /// Which.
        id: MediaId,
        /// Whose.
        owner: UserId,
    },
    /// A user has another as a contact from now on, or no more.
    Contact {
        /// Whose contact.
        user: UserId,
        /// Who it is.
        contact: UserId,
        /// What the user has of him; `None`: nothing any more.
        known: Option<Contact>,
    },
    /// A status is no more, nor is any of its places in inboxes.
    StatusGone {
        /// The poster's statuses.
        chat: ChatKey,
        /// Which.
        n: N,
        /// Where it went.
        places: Vec<(UserId, Seq)>,
    },
    /// A user has blocked another from now on, or no more.
    Block {
        /// Who blocks.
        user: UserId,
        /// Whom.
        other: UserId,
        /// Unix second of the block; `None`: it is lifted.
        since: Option<u64>,
    },
    /// A member never had, and never will have, the messages of a chat with `after < n <= upto`.
    Hidden {
        /// The conversation.
        chat: ChatKey,
        /// Who.
        member: UserId,
        /// From behind this number.
        after: N,
        /// Up to this one.
        upto: N,
    },
    /// A user was there until then.
    LastSeen {
        /// Who.
        user: UserId,
        /// Unix second.
        at: u64,
    },
    /// Who sees something of a user from now on.
    Privacy {
        /// Whose.
        user: UserId,
        /// What of him.
        aspect: Aspect,
        /// Who.
        rule: Rule,
    },
    /// Of what is hidden from a member, this is the oldest that has not failed yet.
    Unheard {
        /// The conversation.
        chat: ChatKey,
        /// From whom it is hidden.
        member: UserId,
        /// Its number, and the server second since which it counts; `None`: there is none any more.
        oldest: Option<(N, u64)>,
    },
    /// What is known of a device beside its inbox.
    DeviceInfo {
        /// Whose.
        user: UserId,
        /// Which.
        device: DeviceId,
        /// Unix second in which it began; 0: before that was kept.
        linked_at: u64,
        /// Unix second in which it was there.
        seen_at: u64,
        /// What its user calls it.
        label: Option<Arc<str>>,
    },
    /// A group is this from now on, or is no more.
    Group {
        /// Its conversation.
        chat: ChatKey,
        /// What it is.
        group: Option<Box<GroupRow>>,
    },
    /// Somebody's place in a group is this from now on.
    Member {
        /// The group's conversation.
        chat: ChatKey,
        /// Who.
        user: UserId,
        /// His place.
        standing: Standing,
    },
    /// A code invites to a group, or does no more.
    Invite {
        /// The group's conversation.
        chat: ChatKey,
        /// The code.
        code: Arc<str>,
        /// Whether it does.
        is_good: bool,
    },
    /// A group's receipt that nobody was sent yet says this now.
    Counted {
        /// Whose inbox.
        user: UserId,
        /// Which receipt.
        seq: Seq,
        /// What it says.
        receipt: Box<GroupReceipt>,
    },
    /// Something was said anew of a message: an edit, or a deletion.
    Redacted {
        /// The conversation.
        chat: ChatKey,
        /// The message's number.
        n: N,
        /// What is true of it now. Of two, that with the greater number stays.
        redacted: Redacted,
    },
}

/// A text that no log shows: the hash of a password, the key of a signature.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where a webhook's entries go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// The callback, checked when it was registered and at every connection.
    pub url: String,
    /// What the callback is asked for when it is registered.
    pub verify_token: Secret,
    /// The key of the bodies' signatures.
    pub secret: Secret,
}

/// What an account is beside its inbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// The hash of the password, as a PHC string.
    pub password: Option<Secret>,
    /// Its user may not come in.
    pub disabled: bool,
}

/// A revocation, as stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Revoked {
    /// One token.
    Token(UserId, String),
    /// A device's tokens issued before the Unix second.
    Device(UserId, DeviceId, u64),
    /// A user's tokens issued before the Unix second.
    User(UserId, u64),
}

impl Revoked {
    /// Whose tokens.
    #[must_use]
    pub fn user(&self) -> &UserId {
        match self {
            Self::Token(user, _) | Self::Device(user, _, _) | Self::User(user, _) => user,
        }
    }
}

impl From<Revocation> for Revoked {
    fn from(revocation: Revocation) -> Self {
        match revocation {
            Revocation::Token { user, jti } => Self::Token(user, jti),
            Revocation::Device { user, device, before } => Self::Device(user, device, before),
            Revocation::User { user, before } => Self::User(user, before),
        }
    }
}

impl From<Revoked> for Revocation {
    fn from(revoked: Revoked) -> Self {
        match revoked {
            Revoked::Token(user, jti) => Self::Token { user, jti },
            Revoked::Device(user, device, before) => Self::Device { user, device, before },
            Revoked::User(user, before) => Self::User { user, before },
        }
    }
}

impl Change {
    /// The slot of the part that decided it: the conversation's for messages and marks, the user's for the rest.
    #[must_use]
    pub fn slot(&self) -> Slot {
        match self {
            Self::Message { message, .. } => message.chat.slot(),
            Self::Mark { chat, .. }
            | Self::StatusGone { chat, .. }
            | Self::Hidden { chat, .. }
            | Self::Group { chat, .. }
            | Self::Member { chat, .. }
            | Self::Invite { chat, .. }
            | Self::Redacted { chat, .. }
            | Self::Unheard { chat, .. } => chat.slot(),
            Self::User { user }
            | Self::Device { user, .. }
            | Self::DeviceGone { user, .. }
            | Self::DeviceSeen { user, .. }
            | Self::DeviceInfo { user, .. }
            | Self::Notice { user, .. }
            | Self::Merged { user, .. }
            | Self::Counted { user, .. }
            | Self::Cursor { user, .. }
            | Self::Skipped { user, .. }
            | Self::Kept { user, .. }
            | Self::Dropped { user, .. }
            | Self::Session { user, .. }
            | Self::SessionGone { user, .. }
            | Self::Password { user, .. }
            | Self::Disabled { user, .. }
            | Self::Contact { user, .. }
            | Self::Block { user, .. }
            | Self::LastSeen { user, .. }
            | Self::Privacy { user, .. }
            | Self::Webhook { user, .. } => user.slot(),
            Self::Revoked(revoked) => revoked.user().slot(),
            Self::Media(file) => file.owner.slot(),
            Self::MediaKept { owner, .. } | Self::MediaGone { owner, .. } => owner.slot(),
        }
    }
}
