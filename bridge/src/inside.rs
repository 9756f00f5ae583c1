//! What comes over HTTP rather than over the link: the same rules, without a connection. An answer leaves after the commit, as a PUBACK does.

use bytes::Bytes;
use natter_protocol::error::{Kind, NotNow, Refusal};
use natter_protocol::ids::WEBHOOK_DEVICE;
use natter_protocol::link::Answer;
use natter_protocol::outbox::{self, Item};
use natter_protocol::{Chat, DeviceId, N, Seq, UserId, entry};

use crate::change::{Item as RowItem, Row};
use crate::chat_key::ChatKey;
use crate::engine::{Engine, Reply, Request, Ticket};
use crate::long_ack::Asker;
use crate::reader::{WINDOW_BYTES, WINDOW_ENTRIES};
use crate::recipient::{OTHERS_NOTED, tail};
use crate::stats::Counters;
use crate::status::ask::Ask;
use crate::store::{Store, StoreError};

/// Rows that one fetch looks at: some may be meant for other devices.
const ROWS_LOOKED_MAX: usize = 1000;

/// What a device has not acknowledged yet: the first of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Entries as they are on the wire, in order.
    pub entries: Vec<(Seq, Bytes)>,
    /// What to acknowledge once they are kept, and where the next page begins.
    pub next: Seq,
    /// The newest position of the inbox: nothing above it is there yet.
    pub newest: Seq,
    /// The page ended before the inbox did.
    pub is_cut: bool,
}

/// A request for a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Whose inbox.
    pub user: UserId,
    /// As which device; it begins by this.
    pub device: DeviceId,
    /// Acknowledges everything up to there first.
    pub after: Option<Seq>,
    /// Most entries, at most [`WINDOW_ENTRIES`].
    pub limit: usize,
}

impl<S: Store> Engine<S> {
    /// Takes a request in; its reply is noted, or comes with a later batch.
    pub(crate) fn handle_inside(&mut self, ticket: Ticket, request: Request) -> Result<(), StoreError> {
        let Some(request) = self.wait_behind_long_ack_inside(ticket, request) else { return Ok(()) };
        let reply = match request {
            Request::Publish { user, device, stamp, payload } => {
                match self.publish_inside(ticket, &user, &device, stamp, &payload)? {
                    Some(reply) => reply,
                    None => return Ok(()),
                }
            }
            Request::Ack { user, device, upto } => match self.ack_inside(ticket, &user, &device, upto, None)? {
                Some(reply) => reply,
                None => return Ok(()),
            },
            Request::Fetch(fetch) => match self.fetch(ticket, fetch)? {
                Some(reply) => reply,
                None => return Ok(()),
            },
            Request::Kept { user, chat, n } => Reply::Entry(self.kept_entry(&user, &chat, n)?),
            Request::Account(ask) => Reply::Account(self.account(ask)?),
            Request::Contacts(ask) => Reply::Contacts(self.contacts_question(ask)?),
            Request::Blocks(ask) => Reply::Blocks(self.blocks_question(ask)?),
            Request::Presence(ask) => Reply::Presence(self.presence_question(ask)?),
            Request::Devices(ask) => Reply::Devices(self.devices_question(ask)?),
            Request::Groups(ask) => Reply::Groups(self.groups_question(ask)?),
            Request::Status(ask) => Reply::Status(self.status_question(ask)?),
            Request::Media(question) => Reply::Media(self.media_question(question)?),
            other => Reply::Changed(self.handle_request(other)?),
        };
        self.reply(ticket, reply);
        Ok(())
    }

    fn publish_inside(
        &mut self,
        ticket: Ticket,
        user: &UserId,
        device: &DeviceId,
        stamp: u128,
        payload: &[u8],
    ) -> Result<Option<Reply>, StoreError> {
        // A user that an app's own backend names in a token exists from his first call.
        self.add_user(user)?;
        let ruling = match outbox::parse(payload) {
            Ok(Item::Message(written)) => {
                let id = written.id.clone();
                self.accepted_answer(user, device, id, stamp, written)?.map(|(answer, _)| answer)
            }
            Ok(Item::Group(command)) => {
                let id = command.id.clone();
                self.group_command(user, id, stamp, command)?.map(|(answer, _, _)| answer)
            }
            Ok(Item::Ack(upto)) => return self.ack_inside(ticket, user, device, upto, None),
            Ok(item) => self.command(user, device, None, item)?.map(|()| Answer::Done),
            Err(rejected) => Err(rejected.refusal),
        };
        Ok(Some(self.ruled(ruling)))
    }

    /// `None`: it goes on in later batches, and `then` comes after it.
    fn ack_inside(
        &mut self,
        ticket: Ticket,
        user: &UserId,
        device: &DeviceId,
        upto: Seq,
        then: Option<usize>,
    ) -> Result<Option<Reply>, StoreError> {
        let ruling = match self.ack_upto(user, device, upto)? {
            Ok(true) => Ok(Answer::Done),
            Ok(false) => {
                let is_kept = self.ack_later(user, device.clone(), Asker::Inside { ticket, then }, upto);
                return Ok((!is_kept).then_some(Reply::NotNow(NotNow::Busy)));
            }
            Err(refusal) => Err(refusal),
        };
        Ok(Some(self.ruled(ruling)))
    }

    fn fetch(&mut self, ticket: Ticket, fetch: Fetch) -> Result<Option<Reply>, StoreError> {
        let Fetch { user, device, after, limit } = fetch;
        self.add_user(&user)?;
        // That device begins by a registration and ends with it.
        let is_webhook = device.as_str() == WEBHOOK_DEVICE;
        if is_webhook && !self.state.webhooks.contains_key(&(user.clone(), device.clone())) {
            let details = format!("device: expected another name than {WEBHOOK_DEVICE}: {user} has no webhook");
            return Ok(Some(self.ruled(Err(Refusal::new(Kind::NotAllowed, details)))));
        }
        if !self.begin_device(&user, &device)? {
            let details = format!("device: expected at most {} of a user, got one more", self.limits.devices_max);
            return Ok(Some(self.ruled(Err(Refusal::new(Kind::Quota, details)))));
        }
        if let Some(upto) = after {
            match self.ack_inside(ticket, &user, &device, upto, Some(limit))? {
                Some(Reply::Answer(_)) => {}
                other => return Ok(other),
            }
        }
        self.page_for(&user, &device, limit).map(|page| Some(Reply::Page(page)))
    }

    /// The first of what `device` has not acknowledged.
    pub(crate) fn page_for(&mut self, user: &UserId, device: &DeviceId, limit: usize) -> Result<Page, StoreError> {
        let known = self.state.user(user)?;
        let row = known.devices.get(device).cloned().unwrap_or_default();
        let newest = known.last_seq;
        let (mut at, mut prev) = (row.position(), row.cursor);
        let mut page = Page { next: row.cursor, newest, ..Page::default() };
        let limit = limit.clamp(1, WINDOW_ENTRIES);
        let (mut looked, mut bytes) = (0, 0);
        while at < newest {
            let rows = self.state.page(user, at, limit)?;
            let Some((last, _)) = rows.last() else { break };
            at = *last;
            looked += rows.len();
            for (seq, row) in rows {
                if !row.is_for(device) || self.state.is_silent(user, &row, self.now.server_secs)? {
                    self.pass_foreign(user, device, &mut page, seq, &row)?;
                    continue;
                }
                let payload = entry::head(seq, prev, &tail(user, &row).1);
                bytes += payload.len();
                if page.entries.len() >= limit || (bytes > WINDOW_BYTES && !page.entries.is_empty()) {
                    page.is_cut = true;
                    return self.handed_out(user, device, page);
                }
                page.entries.push((seq, Bytes::from(payload)));
                (page.next, prev) = (seq, seq);
            }
            if looked >= ROWS_LOOKED_MAX && at < newest {
                page.is_cut = true;
                break;
            }
        }
        self.handed_out(user, device, page)
    }

    /// A row for others: the device is past it, though that moves no cursor as long as nothing is acknowledged.
    fn pass_foreign(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        page: &mut Page,
        seq: Seq,
        row: &Row,
    ) -> Result<(), StoreError> {
        page.next = seq;
        let position = self.state.user(user)?.devices.get(device).map_or(seq, |row| row.position());
        if page.entries.is_empty() && seq >= position + OTHERS_NOTED {
            self.passed_over.insert((user.clone(), device.clone()), (seq, row.offset));
        }
        Ok(())
    }

    /// What was handed out is not raised in place any more.
    fn handed_out(&mut self, user: &UserId, device: &DeviceId, page: Page) -> Result<Page, StoreError> {
        let known = self.state.user(user)?;
        if let Some((last, _)) = page.entries.last() {
            known.pushed = known.pushed.max(*last);
            let sent = known.sent.entry(device.clone()).or_insert(0);
            *sent = (*sent).max(*last);
            for (seq, _) in &page.entries {
                // Whole this time.
                known.stubs.remove(&(device.clone(), *seq));
            }
        }
        Counters::add_many(&self.counters.entries, page.entries.len() as u64);
        Ok(page)
    }

    /// The whole entry behind a stub, acknowledged or not.
    fn kept_entry(&mut self, user: &UserId, chat: &Chat, n: N) -> Result<Option<Bytes>, StoreError> {
        // The key of a status is its poster's: only own ones could be found by it.
        let key = ChatKey::new(user, chat);
        let mut found = self.state.kept(user, &key, n)?;
        if found.is_none() {
            let stubs: Vec<Seq> = self.state.user(user)?.stubs.iter().map(|(_, seq)| *seq).collect();
            for seq in stubs {
                let row = self.state.page(user, seq - 1, 1)?.pop().filter(|(at, _)| *at == seq);
                if let Some((_, row)) = row
                    && !self.state.is_silent(user, &row, self.now.server_secs)?
                    && let Row { item: RowItem::Message(message), .. } = row
                    && (&message.chat, message.n) == (&key, n)
                {
                    found = Some(message);
                    break;
                }
            }
        }
        Ok(found.and_then(|message| crate::recipient::whole(user, &message)).map(|tail| entry::live(&tail).into()))
    }

    /// A refusal needs no `failed` entry here: the caller reads it.
    fn ruled(&mut self, ruling: Result<Answer, Refusal>) -> Reply {
        match ruling {
            Ok(answer) => Reply::Answer(answer),
            Err(refusal) => {
                Counters::add(&self.counters.refused);
                Reply::Refused(refusal)
            }
        }
    }

    /// A long acknowledgement has come to its end.
    pub(crate) fn conclude_inside(
        &mut self,
        ticket: Ticket,
        user: &UserId,
        device: &DeviceId,
        then: Option<usize>,
        ruling: Result<Answer, Refusal>,
    ) -> Result<(), StoreError> {
        let reply = match (self.ruled(ruling), then) {
            (Reply::Answer(_), Some(limit)) => Reply::Page(self.page_for(user, device, limit)?),
            (reply, _) => reply,
        };
        self.reply(ticket, reply);
        Ok(())
    }
}

impl Request {
    /// Whose requests and frames it must not overtake, and how many bytes it holds.
    pub(crate) fn in_order_of(&self) -> Option<(&UserId, usize)> {
        match self {
            Self::Publish { user, payload, .. } => Some((user, payload.len())),
            Self::Ack { user, .. } => Some((user, 0)),
            Self::Fetch(fetch) => Some((&fetch.user, 0)),
            Self::Status(Ask::Delete { user, .. }) => Some((user, 0)),
            Self::AddUser(_)
            | Self::HasUser(_)
            | Self::Revoke(_)
            | Self::Kept { .. }
            | Self::Media(_)
            | Self::Status(_)
            | Self::Contacts(_)
            | Self::Blocks(_)
            | Self::Presence(_)
            | Self::Devices(_)
            | Self::Groups(_)
            | Self::Account(_) => None,
        }
    }
}
