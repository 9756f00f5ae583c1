//! What a start finds on the disk that a cut left, and whether it is what it must be.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use natter_bridge::change::{self, Accepted, Item, Revoked, Row, Session};
use natter_bridge::chat_key::ChatKey;
use natter_bridge::config::Limits;
use natter_bridge::contacts::Contact;
use natter_bridge::edits::Redacted;
use natter_bridge::engine::{Engine, Event, Now, Released, Request};
use natter_bridge::hidden::Hidden;
use natter_bridge::state::State;
use natter_bridge::status::Status;
use natter_bridge::store::memory::Memory;
use natter_bridge::store::sqlite::Sqlite;
use natter_bridge::store::{DeviceRow, MemberRow, Store, StoreError};
use natter_protocol::link::{Answer, Down, Packet, Up, Window};
use natter_protocol::{Chat, ConnectionId, DeviceId, MessageId, N, Seq, UserId};
use rusqlite::Connection;

use super::disk::Image;
use super::workload::{History, Sent, USERS, decode, opening, publication, text, user};

/// More entries than an inbox of the workload ever holds.
const ALL: usize = 100_000;

/// Something that a state says.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    User(UserId, bool, Seq),
    Device(UserId, DeviceId, DeviceRow),
    Session(UserId, String, Session),
    Entry(UserId, Seq, Row),
    Chat(ChatKey, N, BTreeMap<UserId, MemberRow>, BTreeMap<UserId, Hidden>, BTreeMap<N, Redacted>),
    Unheard(ChatKey, UserId, N, u64),
    Status(Arc<Status>),
    Contact(UserId, UserId, Contact),
    Block(UserId, UserId, u64),
    Accepted(UserId, MessageId, Option<Accepted>),
    Revoked(Revoked),
}

/// All that a state says.
pub type Description = Vec<Fact>;

/// What there is to ask a state for.
#[derive(Debug)]
pub struct Subjects {
    users: Vec<UserId>,
    chats: Vec<ChatKey>,
    messages: Vec<(UserId, MessageId)>,
}

impl Subjects {
    pub fn of(history: &History) -> Self {
        let users: Vec<_> = USERS.into_iter().map(user).collect();
        let chat = |a: &UserId, b: &UserId| ChatKey::new(a, &Chat::Direct(b.clone()));
        let pairs = users.iter().enumerate().flat_map(|(i, a)| users[i + 1..].iter().map(move |b| chat(a, b)));
        let chats = pairs.chain(users.iter().map(|user| ChatKey::new(user, &Chat::Status))).collect();
        let sent = history.commits.iter().flat_map(|commit| &commit.sent);
        let messages = sent.map(|sent| (sent.from.clone(), sent.id.clone())).collect();
        Self { users, chats, messages }
    }

    fn describe<S: Store>(&self, state: &mut State<S>) -> Result<Description, StoreError> {
        let mut out = Vec::new();
        // First, and one for each message: see `Cut::recover`.
        for (from, id) in &self.messages {
            let accepted = state.accepted(id, from)?;
            out.push(Fact::Accepted(from.clone(), id.clone(), accepted));
        }
        for id in &self.users {
            let user = state.user(id)?;
            out.push(Fact::User(id.clone(), user.known, user.last_seq));
            out.extend(user.devices.iter().map(|(device, row)| Fact::Device(id.clone(), device.clone(), row.clone())));
            let sessions = state.sessions(id)?.into_iter();
            out.extend(sessions.map(|(client_id, session)| Fact::Session(id.clone(), client_id, session)));
            let rows = state.page(id, 0, ALL)?;
            let silent = state.silent_rows(id, &rows, 0)?;
            let user = state.user(id)?;
            let waited_for = rows.into_iter().filter(|(seq, row)| {
                !silent.contains(seq) && !user.is_dead(*seq, row.only.as_ref(), row.except.as_ref())
            });
            out.extend(waited_for.map(|(seq, row)| Fact::Entry(id.clone(), seq, row)));
            let contacts = state.contacts(id, None, ALL)?.into_iter();
            out.extend(contacts.map(|(contact, known)| Fact::Contact(id.clone(), contact, known)));
            let blocks = state.blocks(id, None, ALL)?.into_iter();
            out.extend(blocks.map(|(other, since)| Fact::Block(id.clone(), other, since)));
        }
        for key in &self.chats {
            let chat = state.chat(key)?;
            let (members, hidden) = (chat.members.clone(), chat.hidden.clone());
            out.push(Fact::Chat(key.clone(), chat.last_n, members, hidden, chat.redacted.all().clone()));
            for member in &self.users {
                let oldest = state.unheard(key, member)?;
                out.extend(oldest.map(|(n, at)| Fact::Unheard(key.clone(), member.clone(), n, at)));
            }
            for n in state.live_statuses(key, 0)? {
                out.extend(state.status(key, n)?.map(Fact::Status));
            }
        }
        out.extend(state.revoked.iter().cloned().map(Fact::Revoked));
        Ok(out)
    }

    /// What the state is after each number of commits, from none on: their journal rows, read back and taken in, without any disk. Nothing
    /// for those that a log begins behind.
    pub fn after_each_commit(&self, history: &History) -> Vec<Description> {
        let mut state = State::recover(Memory::default(), 0).unwrap();
        let mut all = Vec::new();
        for commits in 0..=history.commits.len() {
            if let Some(commit) = commits.checked_sub(1).map(|last| &history.commits[last]) {
                for change in change::decode(&commit.delta).unwrap() {
                    state.apply(&change).unwrap();
                }
            }
            let is_of_use = commits >= history.before;
            all.push(if is_of_use { self.describe(&mut state).unwrap() } else { Description::new() });
        }
        all
    }
}

/// What a start found.
#[derive(Debug)]
pub struct Recovered {
    pub state: Description,
    /// Messages that a repeat is answered for with their number.
    pub answered: usize,
    /// The number of this start.
    pub boot: u32,
}

/// A cut, and what is known of it.
pub struct Cut<'a> {
    pub subjects: &'a Subjects,
    pub history: &'a History,
    pub position: usize,
}

type Problem = String;

/// Whether a repeat of the message is answered with its number.
fn is_answer(fact: &Fact, sent: &Sent) -> bool {
    let Fact::Accepted(from, id, Some(row)) = fact else { return false };
    (from, id, row.n, &row.chat) == (&sent.from, &sent.id, sent.n, &sent.chat())
}

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            return Err(format!($($message)*));
        }
    };
}

impl Cut<'_> {
    /// Writes the image into an empty directory, starts the bridge's rules over it, and asks for everything.
    ///
    /// # Errors
    /// What a server over this image could not do.
    pub fn recover(&self, image: &Image, directory: &Path) -> Result<Recovered, Problem> {
        for (name, content) in image {
            fs::write(directory.join(&**name), content).unwrap();
        }
        let path = directory.join("natter.db");
        let problem = |what: &'static str| move |error: StoreError| format!("{what}: {error}");
        let store = Sqlite::open(&path).map_err(problem("open"))?;
        integrity(&path)?;
        let mut state = State::recover(store, 0).map_err(problem("recover"))?;
        let description = self.subjects.describe(&mut state).map_err(problem("read"))?;
        let boot = state.store.next_boot().map_err(problem("next boot"))?;
        let (done, _) = self.history.commits_at(self.position);
        let sent: Vec<&Sent> = self.history.commits[..done].iter().flat_map(|commit| &commit.sent).collect();
        let answered = sent.iter().zip(&description).filter(|(sent, fact)| is_answer(fact, sent)).count();
        let last_n =
            state.chat(&ChatKey::new(&user("alice"), &Chat::Direct(user("bob")))).map_err(problem("chat"))?.last_n;
        let repeated = sent.last().copied().filter(|_| answered == sent.len());
        let store = self.go_on(state.store, boot, last_n, repeated)?;

        // Dies again, and comes back: what was found the first time is found again, with what was committed meanwhile.
        drop(store);
        let store = Sqlite::open(&path).map_err(problem("second open"))?;
        let mut state = State::recover(store, 0).map_err(problem("second recovery"))?;
        let (id, alice) = (MessageId::parse("after").unwrap(), user("alice"));
        let after = state.accepted(&id, &alice).map_err(problem("second read"))?;
        ensure!(after.is_some_and(|row| row.n == last_n + 1), "what was committed after the cut is gone");
        let again = self.subjects.describe(&mut state).map_err(problem("second read"))?;
        let accepted = self.subjects.messages.len();
        ensure!(description[..accepted] == again[..accepted], "the second recovery does not know what the first knew");
        let entries = |of: &Description| of.iter().filter(|fact| matches!(fact, Fact::Entry(..))).cloned().collect();
        let (first, second): (Vec<_>, Vec<_>) = (entries(&description), entries(&again));
        let gone = first.iter().find(|entry| !second.contains(entry));
        ensure!(gone.is_none(), "the second recovery has lost {gone:?}");
        Ok(Recovered { state: description, answered, boot })
    }

    /// The next batch: a new message, and the last acknowledged one again, whose sender may not have heard of it.
    fn go_on(&self, store: Sqlite, boot: u32, last_n: N, repeated: Option<&Sent>) -> Result<Sqlite, Problem> {
        let mut engine =
            Engine::recover(store, Limits::default(), Arc::default()).map_err(|e| format!("recover: {e}"))?;
        let now = Now { server_secs: engine.server_secs(), unix_secs: 1_765_000_000 };
        let connection = |n| ConnectionId { boot, n };
        let mut events: Vec<_> =
            USERS.into_iter().map(|name| Event::Request(0, Request::AddUser(user(name)))).collect();
        let new = text("after", "bob", "hello again");
        let publish =
            [(user("alice"), &new)].into_iter().chain(repeated.map(|sent| (sent.from.clone(), &sent.payload)));
        for (n, (from, payload)) in (1..).zip(publish) {
            events.push(Event::Up(from.clone(), Up::Open(connection(n), opening("after"))));
            let packet = Packet { id: 1, qos: 1 };
            events.push(Event::Up(from, publication("phone", connection(n), packet, n, payload)));
        }
        for event in events {
            engine.handle(event, now).map_err(|e| format!("the next batch: {e}"))?;
        }
        engine.commit().map_err(|e| format!("the next commit: {e}"))?;
        let mut released = Released::default();
        engine.release(&mut Window::default(), &mut released).map_err(|e| format!("the next release: {e}"))?;
        for frame in decode(released) {
            let Down::Answer { connection, answer, .. } = frame else { continue };
            let expected = if connection.n == 1 { last_n + 1 } else { repeated.map_or(0, |sent| sent.n) };
            let Answer::Message { n, .. } = answer else { return Err(format!("after the cut: {answer:?}")) };
            ensure!(n == expected, "after the cut: {n}, not {expected}, for {repeated:?}");
        }
        Ok(engine.into_store())
    }

    /// Whether what was found is what was committed: everything acknowledged, in commit order, and nothing but the batch in progress more.
    ///
    /// # Errors
    /// What is missing, or too much.
    pub fn judge(&self, found: &Recovered, after_each_commit: &[Description]) -> Result<usize, Problem> {
        let (done, begun) = self.history.commits_at(self.position);
        let before =
            self.history.boots.iter().filter(|(known, _)| *known <= self.position).map(|(_, boot)| *boot).max();
        ensure!(before.is_none_or(|before| before < found.boot), "start {} after start {before:?}", found.boot);
        let acknowledged = self.acknowledged();
        ensure!(found.answered == acknowledged, "{} of {acknowledged} acknowledged messages are there", found.answered);
        let entry = |fact: &'_ Fact| match fact {
            Fact::Entry(user, _, Row { item: Item::Message(message), .. }) => Some((user.clone(), message.id.clone())),
            _ => None,
        };
        let entries: HashSet<_> = found.state.iter().filter_map(entry).collect();
        for sent in self.untaken(begun) {
            let is_there = entries.contains(&(sent.to.clone(), sent.id.clone()));
            ensure!(is_there, "{} is not in the inbox of {}", sent.id, sent.to);
        }
        let Some(commits) = (done..=begun).rev().find(|commits| after_each_commit[*commits] == found.state) else {
            let expected = &after_each_commit[done];
            let missing: Vec<_> = expected.iter().filter(|fact| !found.state.contains(fact)).take(5).collect();
            let surplus: Vec<_> = found.state.iter().filter(|fact| !expected.contains(fact)).take(5).collect();
            return Err(format!(
                "not the state after {done} to {begun} commits: missing {missing:#?}, surplus {surplus:#?}"
            ));
        };
        Ok(commits)
    }

    /// How many messages had been acknowledged before the cut.
    pub fn acknowledged(&self) -> usize {
        let (done, _) = self.history.commits_at(self.position);
        self.history.commits[..done].iter().map(|commit| commit.sent.len()).sum()
    }

    /// Acknowledged messages that no device has acknowledged, not even in the batch in progress.
    fn untaken(&self, begun: usize) -> impl Iterator<Item = &Sent> {
        let (done, _) = self.history.commits_at(self.position);
        let taken: HashSet<_> = self.history.commits[..begun].iter().flat_map(|commit| &commit.taken).collect();
        let sent = self.history.commits[..done].iter().flat_map(|commit| &commit.sent);
        sent.filter(move |sent| !taken.contains(&(sent.to.clone(), sent.id.clone())))
    }
}

fn integrity(path: &Path) -> Result<(), Problem> {
    let connection = Connection::open(path).map_err(|e| format!("integrity: {e}"))?;
    let verdict: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(|e| format!("integrity: {e}"))?;
    ensure!(verdict == "ok", "integrity: {verdict}");
    Ok(())
}
