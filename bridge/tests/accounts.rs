//! Passwords, users who may not come in, and webhooks: what a commit, a settlement and a crash make of them.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use natter_bridge::account::{Ask, Told};
use natter_bridge::change::{Secret, Webhook};
use natter_bridge::engine::{Engine, Event, Now, Released, Reply, Request};
use natter_bridge::store::memory::Memory;
use natter_bridge::{Limits, account};
use natter_protocol::accounts::Revocation;
use natter_protocol::link::Window;
use natter_protocol::{DeviceId, UserId};

struct Desk {
    engine: Engine<Memory>,
}

impl Desk {
    fn new() -> Self {
        Self { engine: Engine::recover(Memory::default(), Limits::default(), std::sync::Arc::default()).unwrap() }
    }

    fn ask(&mut self, ask: Ask) -> Told {
        match self.request(Request::Account(ask)) {
            Reply::Account(told) => told,
            other => panic!("{other:?}"),
        }
    }

    fn request(&mut self, request: Request) -> Reply {
        let now = Now { server_secs: 1, unix_secs: 1_764_000_000 };
        self.engine.handle(Event::Request(1, request), now).unwrap();
        self.engine.commit().unwrap();
        let mut released = Released::default();
        self.engine.release(&mut Window::default(), &mut released).unwrap();
        released.replies.pop().expect("a reply").1
    }

    /// A crash, and a start over what was committed.
    fn crash(self) -> Self {
        Self {
            engine: Engine::recover(self.engine.into_store(), Limits::default(), std::sync::Arc::default()).unwrap(),
        }
    }

    fn password(&mut self, name: &str) -> Option<String> {
        match self.ask(Ask::Look(user(name))) {
            Told::Account(Some(account)) => account.password.map(|hash| hash.0),
            other => panic!("{other:?}"),
        }
    }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn hash(text: &str) -> Secret {
    Secret(format!("$argon2id$v=19$m=8,t=1,p=1$c2FsdA${text}"))
}

fn webhook(url: &str) -> Webhook {
    Webhook { url: url.into(), verify_token: Secret("vt".into()), secret: Secret("s".into()) }
}

/// Does `check` with what is committed, after a crash, settled, and after a crash of that.
fn in_every_state(mut desk: Desk, mut check: impl FnMut(&mut Desk)) {
    check(&mut desk);
    let mut desk = desk.crash();
    check(&mut desk);
    while desk.engine.settle().unwrap() {}
    check(&mut desk);
    check(&mut desk.crash());
}

#[test]
fn a_password_is_the_last_one_and_takes_the_tokens_before_it_along() {
    let mut desk = Desk::new();
    assert_eq!(desk.ask(Ask::Look(user("alice"))), Told::Account(None));
    assert_eq!(desk.ask(Ask::Register(user("alice"), hash("one"))), Told::Done(true));
    assert_eq!(desk.ask(Ask::Register(user("alice"), hash("thief"))), Told::Done(false));
    let set = |name: &str, text: &str| Ask::SetPassword { user: user(name), hash: Some(hash(text)), before: 7 };
    assert_eq!(desk.ask(set("nobody", "x")), Told::Done(false));
    assert_eq!(desk.ask(set("alice", "two")), Told::Done(true));
    in_every_state(desk, |desk| {
        assert_eq!(desk.password("alice"), Some(hash("two").0));
        assert_eq!(desk.engine.revocations(), [Revocation::User { user: user("alice"), before: 7 }]);
        assert_eq!(desk.ask(Ask::Look(user("nobody"))), Told::Account(None), "asking makes nobody");
    });
}

#[test]
fn a_user_is_kept_out_until_he_is_let_in_and_keeps_his_password() {
    let mut desk = Desk::new();
    desk.ask(Ask::Register(user("alice"), hash("one")));
    let set = |name: &str, disabled| Ask::SetDisabled { user: user(name), disabled, before: 9 };
    assert_eq!(desk.ask(set("nobody", true)), Told::Done(false));
    assert_eq!(desk.ask(set("alice", true)), Told::Done(true));
    assert_eq!(desk.ask(set("alice", true)), Told::Done(true), "once more changes nothing");
    assert!(!desk.engine.has_changes());
    let mut desk = desk.crash();
    while desk.engine.settle().unwrap() {}
    assert_eq!(desk.engine.disabled(), [user("alice")]);
    assert_eq!(desk.engine.revocations(), [Revocation::User { user: user("alice"), before: 9 }]);
    desk.ask(set("alice", false));
    in_every_state(desk, |desk| {
        assert!(desk.engine.disabled().is_empty());
        assert_eq!(desk.password("alice"), Some(hash("one").0));
        assert_eq!(desk.engine.revocations().len(), 1, "his old tokens stay revoked");
    });
}

#[test]
fn a_webhook_is_there_until_it_is_taken_away_and_rests_while_its_user_is_kept_out() {
    let mut desk = Desk::new();
    let device = DeviceId::parse("webhook").unwrap();
    let set =
        |url: Option<&str>| Ask::SetWebhook { user: user("alice"), device: device.clone(), webhook: url.map(webhook) };
    desk.ask(set(Some("https://a.example/1")));
    desk.ask(set(Some("https://a.example/2")));
    in_every_state(desk, |desk| {
        let expected = [(user("alice"), device.clone(), webhook("https://a.example/2"))];
        assert_eq!(desk.ask(Ask::Webhooks), Told::Webhooks(expected.to_vec()));
    });
    let mut desk = Desk::new();
    desk.ask(set(Some("https://a.example/1")));
    desk.ask(Ask::SetDisabled { user: user("alice"), disabled: true, before: 1 });
    assert!(desk.engine.webhooks().is_empty());
    desk.ask(Ask::SetDisabled { user: user("alice"), disabled: false, before: 1 });
    assert_eq!(desk.engine.webhooks().len(), 1);
    while desk.engine.settle().unwrap() {}
    desk.ask(set(None));
    in_every_state(desk, |desk| assert!(desk.engine.webhooks().is_empty()));
}

#[test]
fn a_server_has_so_many_webhooks_and_no_more() {
    let mut desk = Desk::new();
    let set = |n: usize| Ask::SetWebhook {
        user: user(&format!("u{n}")),
        device: DeviceId::parse("webhook").unwrap(),
        webhook: Some(webhook("https://a.example/")),
    };
    for n in 0..account::WEBHOOKS_MAX {
        assert_eq!(desk.ask(set(n)), Told::Done(true));
    }
    assert!(matches!(desk.ask(set(account::WEBHOOKS_MAX)), Told::Refused(_)));
    let other = Ask::SetWebhook {
        user: user("u1"),
        device: DeviceId::parse("webhook").unwrap(),
        webhook: Some(webhook("https://b.example/")),
    };
    assert_eq!(desk.ask(other), Told::Done(true), "one that is there may change");
}
