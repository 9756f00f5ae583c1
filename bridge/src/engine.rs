//! The rules, event by event, in order: what an event changes and what is answered. Pure: time is passed in, frames are handed out.
//!
//! An event changes memory at once and is noted as [`Change`]s; [`Engine::commit`] writes them as one journal row; only then does
//! [`Engine::release`] hand out what the batch has to say. Nothing can leave before its commit.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use natter_protocol::accounts::Revocation;
use natter_protocol::error::{Kind, NotNow, Refusal};
use natter_protocol::link::{Answer, Dialect, Down, Mode, Packet, Up, Window};
use natter_protocol::planted::{self, Bug};
use natter_protocol::{Chat, ConnectionId, DeviceId, MessageId, N, Seq, UserId, entry};

use crate::account::{Ask, Told};
use crate::blocks;
use crate::change::{self, Change, Message, Revoked, Webhook};
use crate::chat_key::ChatKey;
use crate::config::Limits;
use crate::contacts;
use crate::devices;
use crate::groups;
use crate::inside::{Fetch, Page};
use crate::long_ack::LongAck;
use crate::media::{self, rules::Question};
use crate::news::News;
use crate::presence::typing::Typing;
use crate::presence::{self, Presence, Sent};
use crate::reader::{Reader, Viewer};
use crate::settle;
use crate::state::State;
use crate::stats::Counters;
use crate::status;
use crate::store::{Append, Store, StoreError};
use crate::stuck::StuckEntries;

/// What time it is, as the driver says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Seconds that a server has run over this store: it never jumps, so times to live and idleness are counted in it.
    pub server_secs: u64,
    /// Unix seconds, for people to read.
    pub unix_secs: u64,
}

/// A question from inside the process, and the number under which its reply is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Adds a user. [`Reply::Changed`] says whether it was new.
    AddUser(UserId),
    /// Asks for a user. [`Reply::Changed`] says whether it is there.
    HasUser(UserId),
    /// Keeps a revocation.
    Revoke(Revocation),
    /// What a device publishes, over HTTP: a message or a command. [`Reply::Answer`].
    Publish {
        /// Who.
        user: UserId,
        /// As which device.
        device: DeviceId,
        /// A UUIDv7: the id of the message if it has none.
        stamp: u128,
        /// As of an outbox.
        payload: Bytes,
    },
    /// Asks for the first of what a device has not acknowledged; the device begins by it. [`Reply::Page`].
    Fetch(Fetch),
    /// Acknowledges everything up to a position. [`Reply::Answer`].
    Ack {
        /// Who.
        user: UserId,
        /// As which device.
        device: DeviceId,
        /// Up to where.
        upto: Seq,
    },
    /// Asks for the whole entry behind a stub. [`Reply::Entry`].
    Kept {
        /// Whose.
        user: UserId,
        /// In which chat, as he sees it.
        chat: Chat,
        /// Which message.
        n: N,
    },
    /// Of an account. [`Reply::Account`] answers it.
    Account(Ask),
    /// Asks about media.
    Media(Question),
    /// Asks about contacts. [`Reply::Contacts`].
    Contacts(contacts::Ask),
    /// Asks about blocks. [`Reply::Blocks`].
    Blocks(blocks::Ask),
    /// Asks about presence and privacy. [`Reply::Presence`].
    Presence(presence::ask::Ask),
    /// Asks about devices. [`Reply::Devices`].
    Devices(devices::Ask),
    /// Asks about groups. [`Reply::Groups`].
    Groups(groups::Ask),
    /// Asks about statuses. [`Reply::Status`].
    Status(status::ask::Ask),
}

/// The reply to a [`Request`], handed out after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Yes or no.
    Changed(bool),
    /// Of an account.
    Account(Told),
    /// To [`Request::Media`].
    Media(media::rules::Reply),
    /// To [`Request::Contacts`].
    Contacts(contacts::Told),
    /// To [`Request::Blocks`].
    Blocks(blocks::Told),
    /// To [`Request::Presence`].
    Presence(presence::ask::Told),
    /// To [`Request::Devices`].
    Devices(devices::Told),
    /// To [`Request::Groups`].
    Groups(groups::Told),
    /// To [`Request::Status`].
    Status(status::ask::Told),
    /// Nothing was done.
    NotNow(NotNow),
    /// Committed, or done.
    Answer(Answer),
    /// Refused for good.
    Refused(Refusal),
    /// Entries.
    Page(Page),
    /// An entry without `seq` and `prev`, if it is there.
    Entry(Option<Bytes>),
}

/// Changes that a planted bug leaves unwritten.
const FORGOTTEN_MAX: usize = 100;

/// Names a request; the driver chooses it.
pub type Ticket = u64;

/// What the rules take in.
#[derive(Debug)]
pub enum Event {
    /// A frame of a door.
    Up(UserId, Up),
    /// A request of the process itself.
    Request(Ticket, Request),
}

/// What a batch has to say, once it is committed.
#[derive(Debug, Default)]
pub struct Released {
    /// Frames for the door, in order.
    pub frames: Vec<(Option<UserId>, Bytes)>,
    /// Replies for the process.
    pub replies: Vec<(Ticket, Reply)>,
}

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another process owns the journal: this one must end.
    #[error("another process has written to this store: is a second server running on the same data?")]
    Fenced,
    /// The store failed; the batch is undone, and its senders were told "not now".
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A connection of a door.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) user: UserId,
    pub(crate) client_id: Arc<str>,
    /// The device that its token is bound to.
    pub(crate) bound: Option<DeviceId>,
    pub(crate) dialect: Dialect,
    pub(crate) receive_maximum: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) expiry_secs: u32,
    pub(crate) reading: Option<(DeviceId, Mode)>,
    /// Its session may have been sent entries before.
    pub(crate) is_resumed: bool,
    /// It was told "not now": nothing more of it is taken in.
    pub(crate) deaf: bool,
    /// Its app is: it makes its user available while it reads an inbox.
    pub(crate) in_front: bool,
}

/// The rules over a store.
#[derive(Debug)]
pub struct Engine<S> {
    pub(crate) state: State<S>,
    pub(crate) limits: Limits,
    pub(crate) now: Now,
    /// Server second of the start: until then at least whoever was connected to the last run was there.
    pub(crate) recovered_at: u64,
    pub(crate) connections: HashMap<ConnectionId, Connection>,
    pub(crate) by_client: HashMap<(UserId, Arc<str>), ConnectionId>,
    pub(crate) readers: HashMap<UserId, Vec<Reader>>,
    pub(crate) viewers: HashMap<UserId, Vec<Viewer>>,
    /// Server seconds at which a device's inbox changed hands between clients, of the last minute.
    pub(crate) swaps: HashMap<(UserId, DeviceId), VecDeque<u64>>,
    /// Users whose readers may have something to get.
    pub(crate) hungry: BTreeSet<UserId>,
    pub(crate) counters: Arc<Counters>,
    /// Whoever waits for an inbox to grow.
    pub(crate) news: Arc<News>,
    pub(crate) stuck: StuckEntries,
    pub(crate) sweep: crate::expiry::Sweep,
    /// Up to where readers have passed rows for other devices: what the next commit notes.
    pub(crate) passed_over: HashMap<(UserId, DeviceId), (Seq, u64)>,
    /// When devices lost their readers, in this run.
    pub(crate) left: devices::Left,
    /// Acknowledgements that go on in the next batch.
    pub(crate) long_acks: VecDeque<LongAck>,
    /// Files that went with their statuses and whose bytes are still there.
    pub(crate) ended_files: VecDeque<crate::media::row::MediaFile>,
    pub(crate) presence: Presence,
    pub(crate) typing: Typing,
    /// What rose in groups, by conversation.
    pub(crate) risen: BTreeMap<ChatKey, Vec<crate::groups::marks::Risen>>,
    /// What is worth something now or never.
    pub(crate) hints: Vec<(UserId, Down)>,
    log: u8,
    next_no: u64,
    delta: Vec<Change>,
    answers: Vec<(UserId, Down)>,
    replies: Vec<(Ticket, Reply)>,
    tickets: Vec<Ticket>,
    pub(crate) sent: Vec<Sent>,
}

impl<S: Store> Engine<S> {
    /// Recovers what the store holds.
    ///
    /// # Errors
    /// When the store cannot be read, or holds what this program did not write.
    pub fn recover(store: S, limits: Limits, counters: Arc<Counters>) -> Result<Self, StoreError> {
        let log = 0;
        let state = State::recover(store, log)?;
        let mut engine = Self {
            state,
            limits,
            now: Now { server_secs: 0, unix_secs: 0 },
            recovered_at: 0,
            connections: HashMap::new(),
            by_client: HashMap::new(),
            readers: HashMap::new(),
            viewers: HashMap::new(),
            swaps: HashMap::new(),
            hungry: BTreeSet::new(),
            counters,
            news: Arc::default(),
            stuck: StuckEntries::default(),
            sweep: crate::expiry::Sweep::default(),
            passed_over: HashMap::new(),
            left: devices::Left::default(),
            long_acks: VecDeque::new(),
            ended_files: VecDeque::new(),
            presence: Presence::default(),
            typing: Typing::default(),
            risen: BTreeMap::new(),
            hints: Vec::new(),
            log,
            next_no: 1,
            delta: Vec::new(),
            answers: Vec::new(),
            replies: Vec::new(),
            tickets: Vec::new(),
            sent: Vec::new(),
        };
        engine.next_no = engine.state.store.next_no(log)?;
        engine.now.server_secs = engine.state.store.server_secs()?;
        engine.recovered_at = engine.now.server_secs;
        Ok(engine)
    }

    /// Gives the store back; what is not committed is lost, as in a crash.
    #[must_use]
    pub fn into_store(self) -> S {
        self.state.store
    }

    /// Takes an event in.
    ///
    /// # Errors
    /// When the store cannot be read: the batch must be given up with [`Engine::abort`].
    pub fn handle(&mut self, event: Event, now: Now) -> Result<(), StoreError> {
        self.now = now;
        match event {
            Event::Up(user, up) => self.handle_up(user, up),
            Event::Request(ticket, request) => {
                self.tickets.push(ticket);
                self.handle_inside(ticket, request)
            }
        }
    }

    /// An event of a batch that is given up already: only that it was there is noted, so that [`Engine::abort`] tells its asker.
    pub fn lose(&mut self, event: Event) {
        if let Event::Request(ticket, _) = event {
            self.tickets.push(ticket);
        }
    }

    pub(crate) fn handle_up(&mut self, user: UserId, up: Up) -> Result<(), StoreError> {
        let Some(up) = self.wait_behind_long_ack(&user, up) else { return Ok(()) };
        match up {
            Up::Open(connection, opening) => self.open(user, connection, opening),
            Up::Close { connection, expiry_secs, by_server } => self.close(&user, connection, expiry_secs, by_server),
            Up::Publish(publication) => self.publish(&user, publication),
            Up::Refused { connection, packet, kind, details } => {
                self.refused_by_door(&user, connection, packet, Refusal::new(kind, details));
                Ok(())
            }
            Up::Release { connection, packet_id } => self.release_packet(&user, connection, packet_id),
            Up::Attach { connection, request, device, mode } => self.attach(&user, connection, request, device, mode),
            Up::Detach { connection } => self.detach(&user, connection),
            Up::Acked { connection, seq, taken } => self.acknowledged(&user, connection, seq, taken),
            // The link's own business: the driver has dealt with it.
            Up::Took(_) | Up::Ring => Ok(()),
        }
    }

    /// Notes the reply to a request.
    pub(crate) fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.replies.push((ticket, reply));
    }

    /// Requests that this batch may answer: if it fails, they are told so.
    pub(crate) fn open_tickets(&mut self, tickets: impl Iterator<Item = Ticket>) {
        self.tickets.extend(tickets);
    }

    pub(crate) fn handle_request(&mut self, request: Request) -> Result<bool, StoreError> {
        match request {
            Request::AddUser(user) => self.add_user(&user),
            Request::HasUser(user) => Ok(self.state.user(&user)?.known),
            Request::Revoke(revocation) => {
                self.change(Change::Revoked(Revoked::from(revocation)))?;
                Ok(true)
            }
            // What has another reply is dealt with in `inside`.
            Request::Publish { .. }
            | Request::Fetch(_)
            | Request::Ack { .. }
            | Request::Kept { .. }
            | Request::Media(_)
            | Request::Status(_)
            | Request::Contacts(_)
            | Request::Blocks(_)
            | Request::Presence(_)
            | Request::Devices(_)
            | Request::Groups(_)
            | Request::Account(_) => Ok(false),
        }
    }

    pub(crate) fn add_user(&mut self, user: &UserId) -> Result<bool, StoreError> {
        if self.state.user(user)?.known {
            return Ok(false);
        }
        self.change(Change::User { user: user.clone() })?;
        Ok(true)
    }

    /// Notes a fact: memory has it from now on, the journal with the batch.
    pub(crate) fn change(&mut self, change: Change) -> Result<(), StoreError> {
        self.state.apply(&change)?;
        self.delta.push(change);
        Ok(())
    }

    /// Says something, once the batch is committed.
    pub(crate) fn answer(&mut self, user: &UserId, down: Down) {
        self.answers.push((user.clone(), down));
    }

    /// Answers a PUBLISH. QoS 0 is not answered.
    pub(crate) fn answer_packet(&mut self, user: &UserId, connection: ConnectionId, packet: Packet, answer: Answer) {
        if packet.qos > 0 {
            self.answer(user, Down::Answer { connection, packet, answer });
        }
    }

    fn refused_by_door(&mut self, user: &UserId, connection: ConnectionId, packet: Packet, refusal: Refusal) {
        Counters::add(&self.counters.refused);
        if self.is_deaf(connection) {
            return;
        }
        let reading = self.connections.get(&connection).and_then(|connection| connection.reading.clone());
        let bare = self.connections.get(&connection).is_none_or(|connection| connection.dialect == Dialect::Bare);
        if bare && let Some((device, _)) = reading {
            self.live(user, Some(&device), &entry::failed(None, None, &refusal));
        }
        let Refusal { kind, details, .. } = refusal;
        self.answer_packet(user, connection, packet, Answer::Refused { kind, details });
    }

    pub(crate) fn is_deaf(&self, connection: ConnectionId) -> bool {
        self.connections.get(&connection).is_some_and(|connection| connection.deaf)
    }

    /// Tells a connection "not now": it is closed, and nothing more of it is taken in.
    pub(crate) fn not_now(&mut self, user: &UserId, id: ConnectionId, why: NotNow) {
        if let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.deaf) {
            connection.deaf = true;
            Counters::add(&self.counters.not_now);
            self.answer(user, Down::Close { connection: id, reason: why.mqtt_reason() });
        }
    }

    /// The changes of a batch that is given up.
    pub(crate) fn lost_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.delta)
    }

    /// Whether the batch has anything to write.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.delta.is_empty()
    }

    /// Whether nobody waits for the commit of what has changed: cursors alone have moved, and users left. What readers get for it is
    /// committed already; a cursor that a crash takes back costs a repeat.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.has_no_asker()
            && self.delta.iter().all(|change| match change {
                Change::Cursor { .. } => true,
                Change::LastSeen { .. } => self.presence.is_quiet(self.now.server_secs),
                _ => false,
            })
    }

    /// Whether nobody waits for the commit of what has changed but readers of receipts that are new in it.
    #[must_use]
    pub fn has_only_receipts(&self) -> bool {
        self.has_no_asker()
            && self.delta.iter().all(|change| match change {
                Change::Cursor { .. } | Change::Mark { .. } | Change::Merged { .. } => true,
                Change::Notice { row, .. } => matches!(row.item, change::Item::Receipt(_)),
                Change::LastSeen { .. } => self.presence.is_quiet(self.now.server_secs),
                _ => false,
            })
    }

    fn has_no_asker(&self) -> bool {
        self.answers.is_empty() && self.replies.is_empty() && self.tickets.is_empty() && self.sent.is_empty()
    }

    /// Writes what the batch changed, as one journal row.
    ///
    /// # Errors
    /// [`CommitError`]: nothing of the batch may be said; call [`Engine::abort`] next, unless this was [`CommitError::Fenced`].
    pub fn commit(&mut self) -> Result<(), CommitError> {
        self.pass_over_noted()?;
        self.tell_risen()?;
        self.look_around()?;
        self.forget_receipts_on_purpose();
        if self.delta.is_empty() || self.is_forgotten_on_purpose() {
            self.tickets.clear();
            return Ok(());
        }
        let row = change::encode(&self.delta)
            .map_err(|e| StoreError::Corrupt { expected: "changes that can be written", got: e.to_string() })?;
        match self.state.store.append(self.log, self.next_no, &row) {
            Append::Committed => {
                self.state.journal.push_back((self.next_no, std::mem::take(&mut self.delta)));
                self.next_no += 1;
                self.tickets.clear();
                Counters::add(&self.counters.commits);
                Ok(())
            }
            Append::Fenced => Err(CommitError::Fenced),
            Append::Failed(error) => Err(error.into()),
        }
    }

    /// A planted bug: the batch is not written now but with a later one, and what it has to say leaves all the same.
    fn is_forgotten_on_purpose(&mut self) -> bool {
        planted::has(Bug::AckBeforeCommit) && self.delta.len() < FORGOTTEN_MAX
    }

    /// A planted bug: what is no message is not written at all, though its receipts leave.
    fn forget_receipts_on_purpose(&mut self) {
        if planted::has(Bug::ReceiptBeforeCommit) {
            self.delta.retain(|change| {
                matches!(change, Change::Message { .. } | Change::User { .. } | Change::Device { .. })
            });
        }
    }

    /// Writes an empty journal row, between batches: whether the store takes rows again, after it did not, is known by that alone.
    ///
    /// # Errors
    /// It does not; nothing has changed.
    pub fn probe(&mut self) -> Result<(), CommitError> {
        let row = change::encode(&[])
            .map_err(|e| StoreError::Corrupt { expected: "changes that can be written", got: e.to_string() })?;
        match self.state.store.append(self.log, self.next_no, &row) {
            Append::Committed => {
                self.state.journal.push_back((self.next_no, Vec::new()));
                self.next_no += 1;
                Ok(())
            }
            Append::Fenced => Err(CommitError::Fenced),
            Append::Failed(error) => Err(error.into()),
        }
    }

    /// Gives a batch up that was not committed: every connection is closed with "not now", and memory is what the store says.
    ///
    /// # Errors
    /// When the store cannot be read either: the process must end.
    pub fn abort(&mut self, why: NotNow) -> Result<Released, StoreError> {
        self.give_up_presence();
        self.risen.clear();
        self.passed_over.clear();
        // Their rows may be there again. What is not is an orphan.
        self.ended_files.clear();
        self.answers.clear();
        self.sent.clear();
        self.hungry.clear();
        self.readers.clear();
        self.viewers.clear();
        self.state.reset(self.log)?;
        let mut released = Released::default();
        let mut close = |user: UserId, connection: ConnectionId| {
            let frame = Down::Close { connection, reason: why.mqtt_reason() }.encode();
            released.frames.push((Some(user), frame));
        };
        for (id, connection) in &mut self.connections {
            connection.reading = None;
            if !connection.deaf {
                connection.deaf = true;
                Counters::add(&self.counters.not_now);
                close(connection.user.clone(), *id);
            }
        }
        for (user, connection) in self.give_up_long_acks()? {
            close(user, connection);
        }
        let lost = self.replies.drain(..).map(|(ticket, _)| ticket).chain(self.tickets.drain(..));
        let lost: BTreeSet<Ticket> = lost.collect();
        released.replies = lost.into_iter().map(|ticket| (ticket, Reply::NotNow(why))).collect();
        Ok(released)
    }

    /// Hands out what the committed batch has to say, and what readers can take beyond it: answers first, entries as far as `window`
    /// and the readers' own windows allow. Who gets nothing for want of credit stays hungry.
    ///
    /// # Errors
    /// When the store cannot be read. What was handed out is true all the same.
    pub fn release(&mut self, window: &mut Window, out: &mut Released) -> Result<(), StoreError> {
        self.say_sent();
        for (user, down) in self.answers.drain(..) {
            let frame = down.encode();
            window.sent(frame.len());
            out.frames.push((Some(user), frame));
        }
        out.replies.append(&mut self.replies);
        for user in &self.hungry {
            self.news.grown(user, || self.state.user_in_memory(user).map(|user| user.last_seq));
        }
        self.feed(window, out)?;
        self.say_live(window, out);
        Ok(())
    }

    /// Settles a slice; `false`: nothing is left to settle.
    ///
    /// # Errors
    /// Nothing was settled; the journal still has everything.
    pub fn settle(&mut self) -> Result<bool, StoreError> {
        self.settle_oldest(usize::MAX, settle::SLICE_CHANGES_MAX)
    }

    /// As [`Engine::settle`], of the oldest `rows` journal rows only, and about `changes` of theirs: that many places too of a row that has more.
    ///
    /// # Errors
    /// As [`Engine::settle`].
    pub fn settle_oldest(&mut self, rows: usize, changes: usize) -> Result<bool, StoreError> {
        let settled = self.state.settle_slice(self.log, self.now.server_secs, rows, changes)?;
        let readers = &self.readers;
        self.state.trim(|user| readers.contains_key(user));
        Ok(settled)
    }

    /// How many journal rows wait to be settled.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.state.journal.len()
    }

    /// How much each of these rows counts for, oldest first: what a settlement has to do for it.
    pub(crate) fn unsettled_changes(&self) -> impl Iterator<Item = usize> {
        self.state.journal.iter().map(|(_, changes)| settle::weight_of(changes))
    }

    /// How much the newest of them counts for.
    pub(crate) fn newest_changes(&self) -> usize {
        self.state.journal.back().map_or(0, |(_, changes)| settle::weight_of(changes))
    }

    /// A message that stays readable for `user` beyond the inbox, because a device could not take its entry.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn kept(&mut self, user: &UserId, chat: &ChatKey, n: N) -> Result<Option<Arc<Message>>, StoreError> {
        self.state.kept(user, chat, n)
    }

    /// Tells whoever waits for an inbox to grow, after the commit.
    #[must_use]
    pub fn news(&self) -> Arc<News> {
        Arc::clone(&self.news)
    }

    /// Whether dead rows wait to be purged by [`Engine::settle`].
    #[must_use]
    pub fn has_dead_rows(&self) -> bool {
        !self.state.purge.is_empty()
    }

    /// The last server second that the store knows of.
    #[must_use]
    pub fn server_secs(&self) -> u64 {
        self.now.server_secs
    }

    /// Every revocation.
    #[must_use]
    pub fn revocations(&self) -> Vec<Revocation> {
        self.state.revoked.iter().cloned().map(Revocation::from).collect()
    }

    /// Every user who may not come in.
    #[must_use]
    pub fn disabled(&self) -> Vec<UserId> {
        self.state.disabled.iter().cloned().collect()
    }

    /// Every webhook whose user may come in.
    #[must_use]
    pub fn webhooks(&self) -> Vec<(UserId, DeviceId, Webhook)> {
        self.active_webhooks()
    }

    /// Refuses a publication for good: by reason code to those who can read it, by a committed `failed` to the others.
    pub(crate) fn refuse(
        &mut self,
        user: &UserId,
        connection: ConnectionId,
        packet: Packet,
        device: &DeviceId,
        id: Option<MessageId>,
        refusal: Refusal,
    ) -> Result<(), StoreError> {
        Counters::add(&self.counters.refused);
        let bare = self.connections.get(&connection).is_none_or(|connection| connection.dialect == Dialect::Bare);
        if bare && packet.qos > 0 {
            if id.is_some() || refusal.kind == Kind::Conflict {
                self.tell_failed(user, device, id, &refusal)?;
            } else {
                self.live(user, Some(device), &entry::failed(None, None, &refusal));
            }
        }
        let Refusal { kind, details, .. } = refusal;
        self.answer_packet(user, connection, packet, Answer::Refused { kind, details });
        Ok(())
    }
}
