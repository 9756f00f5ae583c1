//! What a start finds on the disk that a cut left, and whether it is what it must be.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use natter_bridge::change;
use natter_bridge::chat_key::ChatKey;
use natter_bridge::config::Limits;
use natter_bridge::engine::{Engine, Event, Now, Released, Request};
use natter_bridge::state::State;
use natter_bridge::store::memory::Memory;
use natter_bridge::store::sqlite::Sqlite;
use natter_bridge::store::{Store, StoreError};
use natter_protocol::link::{Answer, Down, Packet, Up, Window};
use natter_protocol::{Chat, ConnectionId, MessageId, N, UserId};
use rusqlite::Connection;

use super::disk::Image;
use super::workload::{History, Sent, USERS, decode, opening, publication, text, user};

/// More entries than an inbox of the workload ever holds.
const ALL: usize = 100_000;

/// All that a state says, line by line.
pub type Description = Vec<String>;

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
        let chats = users.iter().enumerate().flat_map(|(i, a)| users[i + 1..].iter().map(move |b| chat(a, b))).collect();
        let sent = history.commits.iter().flat_map(|commit| &commit.sent);
        let messages = sent.map(|sent| (sent.from.clone(), sent.id.clone())).collect();
        Self { users, chats, messages }
    }

    fn describe<S: Store>(&self, state: &mut State<S>) -> Result<Description, StoreError> {
        let mut out = Vec::new();
        for id in &self.users {
            let user = state.user(id)?;
            out.push(format!("{id} {} {}", user.known, user.last_seq));
            out.extend(user.devices.iter().map(|(device, row)| format!("{id} {device} {row:?}")));
            for (client_id, session) in state.sessions(id)? {
                out.push(format!("{id} {client_id} {session:?}"));
            }
            for (seq, row) in state.page(id, 0, ALL)? {
                if !state.user(id)?.is_dead(seq, row.only.as_ref(), row.except.as_ref()) {
                    out.push(format!("{id} {seq} {row:?}"));
                }
            }
        }
        for key in &self.chats {
            let chat = state.chat(key)?;
            out.push(format!("{key:?} {} {:?}", chat.last_n, chat.members));
        }
        for (from, id) in &self.messages {
            if let Some(accepted) = state.accepted(id, from)? {
                out.push(format!("{from} {id} {accepted:?}"));
            }
        }
        let mut revoked: Vec<_> = state.revoked.iter().map(|revoked| format!("{revoked:?}")).collect();
        revoked.sort();
        out.append(&mut revoked);
        Ok(out)
    }

    /// What the state is after each number of commits, from none on: their journal rows, read back and taken in, without any disk.
    pub fn after_each_commit(&self, history: &History) -> Vec<Description> {
        let mut state = State::recover(Memory::default(), 0).unwrap();
        let mut all = vec![self.describe(&mut state).unwrap()];
        for commit in &history.commits {
            for change in change::decode(&commit.delta).unwrap() {
                state.apply(&change).unwrap();
            }
            all.push(self.describe(&mut state).unwrap());
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
}

/// A cut, and what is known of it.
pub struct Cut<'a> {
    pub subjects: &'a Subjects,
    pub history: &'a History,
    pub position: usize,
}

type Problem = String;

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
        let before = self.history.boots.iter().filter(|(known, _)| *known <= self.position).map(|(_, boot)| *boot).max();
        ensure!(before.is_none_or(|before| before < boot), "boot {boot} after {before:?}");

        let (done, _) = self.history.commits_at(self.position);
        let sent: Vec<&Sent> = self.history.commits[..done].iter().flat_map(|commit| &commit.sent).collect();
        let mut answered = 0;
        for sent in &sent {
            let accepted = state.accepted(&sent.id, &sent.from).map_err(problem("accepted"))?;
            answered += usize::from(accepted.is_some_and(|row| row.n == sent.n && row.chat == sent.chat()));
        }
        let last_n = state.chat(&ChatKey::new(&user("alice"), &Chat::Direct(user("bob")))).map_err(problem("chat"))?.last_n;
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
        let gone = description.iter().filter(|line| line.contains("Accepted")).find(|line| !again.contains(line));
        ensure!(gone.is_none(), "the second recovery has lost {gone:?}");
        Ok(Recovered { state: description, answered })
    }

    /// The next batch: a new message, and the last acknowledged one again, whose sender may not have heard of it.
    fn go_on(&self, store: Sqlite, boot: u32, last_n: N, repeated: Option<&Sent>) -> Result<Sqlite, Problem> {
        let mut engine = Engine::recover(store, Limits::default(), Arc::default()).map_err(|e| format!("recover: {e}"))?;
        let now = Now { server_secs: engine.server_secs(), unix_secs: 1_765_000_000 };
        let connection = |n| ConnectionId { boot, n };
        let mut events: Vec<_> = USERS.into_iter().map(|name| Event::Request(0, Request::AddUser(user(name)))).collect();
        let new = text("after", "bob", "hello again");
        let publish = [(user("alice"), &new)].into_iter().chain(repeated.map(|sent| (sent.from.clone(), &sent.payload)));
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
        let acknowledged: usize = self.history.commits[..done].iter().map(|commit| commit.sent.len()).sum();
        ensure!(found.answered == acknowledged, "{} of {acknowledged} acknowledged messages are there", found.answered);
        for missing in self.untaken(begun) {
            let (to, id) = (&missing.to, &missing.id);
            let line = |line: &&String| line.starts_with(&format!("{to} ")) && line.contains(&format!("/{id},"));
            ensure!(found.state.iter().find(line).is_some(), "{id} is not in the inbox of {to}");
        }
        let Some(commits) = (done..=begun).rev().find(|commits| after_each_commit[*commits] == found.state) else {
            let expected = &after_each_commit[done];
            let missing: Vec<_> = expected.iter().filter(|line| !found.state.contains(line)).take(5).collect();
            let surplus: Vec<_> = found.state.iter().filter(|line| !expected.contains(line)).take(5).collect();
            return Err(format!("not the state after {done} to {begun} commits: missing {missing:#?}, surplus {surplus:#?}"));
        };
        Ok(commits)
    }

    /// Acknowledged messages that no device has acknowledged, not even in the batch in progress.
    fn untaken(&self, begun: usize) -> impl Iterator<Item = &Sent> {
        let (done, _) = self.history.commits_at(self.position);
        let taken: std::collections::HashSet<_> =
            self.history.commits[..begun].iter().flat_map(|commit| &commit.taken).collect();
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
