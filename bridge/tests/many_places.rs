//! A status for more contacts than a slice of a settlement takes: settled a part at a time, and whole at any instant.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its world does not hold")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use natter_bridge::config::Limits;
use natter_bridge::contacts;
use natter_bridge::engine::{Engine, Event, Now, Released, Reply, Request};
use natter_bridge::inside::Fetch;
use natter_bridge::stats::Counters;
use natter_bridge::status::ask::{Ask, Told};
use natter_bridge::store::audit::audit;
use natter_bridge::store::sqlite::Sqlite;
use natter_protocol::link::{Answer, Window};
use natter_protocol::{DeviceId, MessageId, UserId};
use serde_json::{Value, json};

/// Contacts of the poster: two parts and the rest.
const VIEWERS: usize = 1_200;
const PARTS: usize = 2;

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn viewer(number: usize) -> UserId {
    user(&format!("v{number:04}"))
}

struct World {
    dir: PathBuf,
    engine: Engine<Sqlite>,
}

impl World {
    fn open(dir: &Path) -> Self {
        let store = Sqlite::open(&dir.join("natter.db")).unwrap();
        let engine = Engine::recover(store, Limits::default(), Arc::new(Counters::default())).unwrap();
        Self { dir: dir.to_owned(), engine }
    }

    /// Alice and her contacts, settled, each with a phone.
    fn with_viewers(dir: &Path) -> Self {
        let mut world = Self::open(dir);
        let (alice, all) = (user("alice"), (0..VIEWERS).map(viewer).collect::<Vec<_>>());
        let users = all.iter().chain([&alice]).map(|user| Request::AddUser(user.clone()));
        world.batch(users.collect());
        let put =
            |user: &UserId, other: &UserId| Request::Contacts(contacts::Ask::Put(user.clone(), other.clone(), None));
        world.batch(all.iter().flat_map(|viewer| [put(&alice, viewer), put(viewer, &alice)]).collect());
        assert_eq!(world.inboxes(), vec![Vec::<Value>::new(); VIEWERS]);
        while world.engine.settle().unwrap() {}
        world
    }

    /// Opens a copy of a store that nobody has open.
    fn copy(from: &Path, to: &Path) -> Self {
        std::fs::create_dir(to).unwrap();
        for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        Self::open(to)
    }

    /// Killed, looked at, and started again.
    fn crash(self, when: &str) -> Self {
        let Self { dir, engine } = self;
        drop(engine.into_store());
        assert_eq!(audit(&dir.join("natter.db"), false, &mut |_| {}).unwrap().findings, Vec::<String>::new(), "{when}");
        Self::open(&dir)
    }

    fn batch(&mut self, requests: Vec<Request>) -> Vec<Reply> {
        for (ticket, request) in requests.into_iter().enumerate() {
            let now = Now { server_secs: 1, unix_secs: 1_764_000_000 };
            self.engine.handle(Event::Request(ticket as u64, request), now).unwrap();
        }
        self.engine.commit().unwrap();
        let mut released = Released::default();
        self.engine.release(&mut Window::default(), &mut released).unwrap();
        released.replies.sort_by_key(|(ticket, _)| *ticket);
        released.replies.into_iter().map(|(_, reply)| reply).collect()
    }

    fn post(&mut self) {
        let payload = json!({"id": "s1", "to": "status@broadcast", "type": "text", "text": {"body": "at the sea"}});
        let (user, device) = (user("alice"), DeviceId::parse("phone").unwrap());
        let replies =
            self.batch(vec![Request::Publish { user, device, stamp: 1, payload: payload.to_string().into() }]);
        assert!(matches!(replies[..], [Reply::Answer(Answer::Message { n: 1, .. })]), "{replies:?}");
    }

    /// What each viewer's phone has not acknowledged.
    fn inboxes(&mut self) -> Vec<Vec<Value>> {
        let fetch = |number| {
            let device = DeviceId::parse("phone").unwrap();
            Request::Fetch(Fetch { user: viewer(number), device, after: None, limit: 100 })
        };
        let replies = self.batch((0..VIEWERS).map(fetch).collect());
        let entries = |reply: Reply| match reply {
            Reply::Page(page) => {
                let id = |entry: &[u8]| serde_json::from_slice::<Value>(entry).unwrap()["id"].clone();
                page.entries.iter().map(|(_, entry)| id(entry)).collect()
            }
            other => panic!("{other:?}"),
        };
        replies.into_iter().map(entries).collect()
    }

    /// `number` has everything.
    fn ack(&mut self, number: usize) {
        let replies =
            self.batch(vec![Request::Ack { user: viewer(number), device: DeviceId::parse("phone").unwrap(), upto: 1 }]);
        assert!(matches!(replies[..], [Reply::Answer(Answer::Done)]), "{replies:?}");
    }

    /// How many were given the status.
    fn audience(&mut self) -> usize {
        let ask = Ask::Viewers { user: user("alice"), id: MessageId::parse("s1").unwrap(), after: None };
        match self.batch(vec![Request::Status(ask)]).pop() {
            Some(Reply::Status(Told::Viewers(Some(page)))) => page.audience,
            other => panic!("{other:?}"),
        }
    }
}

/// The store of a world that every life begins with.
fn template(dir: &Path) -> PathBuf {
    let template = dir.join("template");
    std::fs::create_dir(&template).unwrap();
    drop(World::with_viewers(&template));
    template
}

#[test]
fn a_status_for_many_is_settled_in_parts_and_whole_after_a_crash_between_them() {
    let dir = tempfile::tempdir().unwrap();
    let template = template(dir.path());
    let once = vec![vec![json!("s1")]; VIEWERS];
    for settled in 0..=PARTS + 1 {
        let mut world = World::copy(&template, &dir.path().join(settled.to_string()));
        world.post();
        for slice in 0..settled {
            assert_eq!(world.engine.unsettled(), 1, "it stays in the journal until its last slice, this is {slice}");
            assert!(world.engine.settle().unwrap());
        }
        assert_eq!(world.engine.unsettled(), usize::from(settled <= PARTS), "after {settled}");
        let when = format!("after {settled} slices");
        assert_eq!(world.inboxes(), once, "{when}, running");
        let mut world = world.crash(&when);
        assert_eq!(world.inboxes(), once, "{when}, started again");
        assert_eq!(world.audience(), VIEWERS, "{when}");
        // The first and the last: one settled before the crash, the other not.
        world.ack(0);
        world.ack(VIEWERS - 1);
        while world.engine.settle().unwrap() {}
        let mut world = world.crash(&format!("{when}, and everything"));
        let inboxes = world.inboxes();
        assert!(inboxes[0].is_empty() && inboxes[VIEWERS - 1].is_empty(), "{when}: it was acknowledged");
        assert_eq!(inboxes[1..VIEWERS - 1], once[1..VIEWERS - 1], "{when}, settled");
    }
}

#[test]
fn a_status_that_is_taken_back_while_it_is_settled_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let template = template(dir.path());
    for settled in (0..=2 * PARTS + 1).step_by(2) {
        let mut world = World::copy(&template, &dir.path().join(settled.to_string()));
        world.post();
        assert!(world.engine.settle().unwrap());
        let (user, device) = (user("alice"), DeviceId::parse("phone").unwrap());
        let delete = Ask::Delete { user, device, id: MessageId::parse("s1").unwrap() };
        let replies = world.batch(vec![Request::Status(delete)]);
        assert!(matches!(replies[..], [Reply::Status(Told::Deleted(true))]), "{replies:?}");
        for _ in 0..settled {
            world.engine.settle().unwrap();
        }
        let when = format!("{settled} slices later");
        let nothing = vec![Vec::<Value>::new(); VIEWERS];
        assert_eq!(world.inboxes(), nothing, "{when}");
        let mut world = world.crash(&when);
        assert_eq!(world.inboxes(), nothing, "{when}, started again");
        while world.engine.settle().unwrap() {}
        let mut world = world.crash(&format!("{when}, and everything"));
        assert_eq!(world.inboxes(), nothing, "{when}, settled");
    }
}

#[test]
fn a_row_in_parts_stays_before_those_behind_it_also_in_greater_slices() {
    let dir = tempfile::tempdir().unwrap();
    let template = template(dir.path());
    let once = vec![vec![json!("s1")]; VIEWERS];
    for settled in 0..=3 {
        let mut world = World::copy(&template, &dir.path().join(settled.to_string()));
        world.post();
        world.batch(vec![Request::AddUser(user("zoe"))]);
        let left: Vec<usize> = (0..settled)
            .map(|_| {
                assert!(world.engine.settle_oldest(usize::MAX, 800).unwrap());
                world.engine.unsettled()
            })
            .collect();
        assert_eq!(left[..], [2, 1, 0][..settled]);
        let when = format!("after {settled} slices");
        let mut world = world.crash(&when);
        assert_eq!(world.inboxes(), once, "{when}");
        assert!(matches!(world.batch(vec![Request::HasUser(user("zoe"))])[..], [Reply::Changed(true)]), "{when}");
    }
}
