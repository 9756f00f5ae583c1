//! One suite for every store. What the rules rely on is written down here, not in a store's own tests.

mod people;

use std::sync::Arc;

use natter_protocol::{Chat, DeviceId, MediaId, MessageId, Seq, UserId};

use super::memory::Memory;
use super::sqlite::Sqlite;
use super::{Append, DeviceRow, KEPT_MAX, MemberRow, Settlement, Store, StoreError, UserRow};
use crate::change::{Accepted, Account, Gap, Item, Message, Revoked, Row, Secret, Session, Webhook};
use crate::chat_key::ChatKey;
use crate::media::row::{MediaFile, MediaGrant, MediaKind, MediaUse};
use crate::status::Status;
use people::{
    blocks_are_listed_until_they_are_lifted_and_what_they_hid_stays,
    contacts_are_listed_in_order_of_names_until_they_are_removed, groups_are_kept_with_their_members_invites_and_files,
    last_seen_only_rises_and_privacy_is_replaced_with_its_list, what_is_to_fail_unheard_is_found_by_its_time,
    what_was_said_anew_is_known_until_its_time_is_over,
};

/// A store, and how to close and open it again.
trait Fixture {
    type Store: Store;
    fn store(&mut self) -> &mut Self::Store;
    fn reopen(&mut self);
}

struct InMemory(Memory);

impl Fixture for InMemory {
    type Store = Memory;
    fn store(&mut self) -> &mut Memory {
        &mut self.0
    }
    fn reopen(&mut self) {
        self.0 = self.0.clone();
    }
}

struct OnDisk {
    store: Option<Sqlite>,
    dir: std::path::PathBuf,
}

impl OnDisk {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("natter-conformance-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut fixture = Self { store: None, dir };
        fixture.reopen();
        fixture
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.join("natter.db")
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        self.store = None;
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Fixture for OnDisk {
    type Store = Sqlite;
    fn store(&mut self) -> &mut Sqlite {
        self.store.as_mut().unwrap()
    }
    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(Sqlite::open(&self.path()).unwrap());
    }
}

macro_rules! suite {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[test] fn $name() { super::$name(&mut super::InMemory(Default::default())); })+
        }
        mod sqlite {
            $(#[test] fn $name() { super::$name(&mut super::OnDisk::new(stringify!($name))); })+
        }
    };
}

suite!(
    journal_rows_have_numbers_that_are_never_used_again,
    a_settlement_is_what_is_read_afterwards,
    a_body_stays_as_long_as_a_row_points_to_it,
    inboxes_are_read_in_order_and_in_pages,
    what_is_dropped_is_gone_up_to_there,
    a_kept_message_outlives_its_row_until_its_time_is_over,
    repeats_are_found_by_id_and_by_place,
    sweeps_go_around_a_little_at_a_time,
    an_account_is_its_password_and_whether_its_user_may_come_in,
    a_webhook_is_kept_until_it_is_taken_away,
    files_are_found_by_those_who_may_read_them_until_they_go,
    what_is_to_fail_unheard_is_found_by_its_time,
    groups_are_kept_with_their_members_invites_and_files,
    what_was_said_anew_is_known_until_its_time_is_over,
    contacts_are_listed_in_order_of_names_until_they_are_removed,
    blocks_are_listed_until_they_are_lifted_and_what_they_hid_stays,
    last_seen_only_rises_and_privacy_is_replaced_with_its_list,
    a_status_keeps_its_body_and_is_found_by_poster_time_and_file,
);

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn device(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

fn id(name: &str) -> MessageId {
    MessageId::parse(name).unwrap()
}

fn chat() -> ChatKey {
    ChatKey::new(&user("alice"), &Chat::Direct(user("bob")))
}

fn message(n: u64) -> Arc<Message> {
    let (from, body) = (user("alice"), Arc::from("\"type\":\"text\",\"text\":{\"body\":\"hi\"}"));
    Arc::new(Message { chat: chat(), n, from, id: id(&format!("m{n}")), timestamp: 1_764_000_000 + n, body })
}

fn row(item: Item, at: u64) -> Row {
    Row { at, offset: at * 100, only: None, except: None, item }
}

fn of(n: u64) -> Row {
    row(Item::Message(message(n)), n)
}

fn accepted(n: u64, until: u64) -> Accepted {
    Accepted { chat: chat(), n, timestamp: n, hash: [u8::try_from(n % 256).unwrap(); 16], until }
}

fn settle(store: &mut impl Store, settlement: Settlement) {
    store.settle(0, &settlement).unwrap();
}

fn seqs(rows: &[(Seq, Row)]) -> Vec<Seq> {
    rows.iter().map(|(seq, _)| *seq).collect()
}

fn journal_rows_have_numbers_that_are_never_used_again(fixture: &mut impl Fixture) {
    assert_eq!(fixture.store().next_no(0).unwrap(), 1);
    for no in 1..=3 {
        assert!(matches!(fixture.store().append(0, no, &[1, 2, no as u8]), Append::Committed));
    }
    assert!(matches!(fixture.store().append(0, 2, b"another"), Append::Fenced), "row 2 is taken");
    fixture.reopen();
    assert_eq!(fixture.store().journal(0).unwrap(), [(1, vec![1, 2, 1]), (2, vec![1, 2, 2]), (3, vec![1, 2, 3])]);
    settle(fixture.store(), Settlement { upto: 2, ..Settlement::default() });
    assert_eq!(fixture.store().journal(0).unwrap(), [(3, vec![1, 2, 3])]);
    settle(fixture.store(), Settlement { upto: 3, server_secs: 77, ..Settlement::default() });
    fixture.reopen();
    assert!(fixture.store().journal(0).unwrap().is_empty());
    assert_eq!(fixture.store().next_no(0).unwrap(), 4);
    assert_eq!(fixture.store().server_secs().unwrap(), 77);
}

fn a_settlement_is_what_is_read_afterwards(fixture: &mut impl Fixture) {
    let (alice, phone) = (user("alice"), device("phone"));
    let session = Session { device: Some(phone.clone()), expiry_secs: 60, gone_at: Some(9), held: vec![1, 65_535] };
    let row = DeviceRow {
        cursor: 3,
        skipped: 4,
        offset: 500,
        active_at: 2,
        linked_at: 1_764_000_000,
        seen_at: 1_764_000_009,
        label: Some("Work".into()),
    };
    let member = MemberRow { joined_n: 1, left_n: Some(9), delivered_n: 4, read_n: 3, is_admin: true };
    settle(
        fixture.store(),
        Settlement {
            users: vec![(alice.clone(), UserRow { last_seq: 7, settled_seq: 5, last_offset: 900 })],
            devices: vec![
                (alice.clone(), device("desk"), Some(DeviceRow { label: None, ..row.clone() })),
                (alice.clone(), phone.clone(), Some(row.clone())),
            ],
            chats: vec![(chat(), 12)],
            members: vec![(chat(), user("bob"), member)],
            sessions: vec![(alice.clone(), "c".into(), Some(session.clone()))],
            revoked: vec![
                Revoked::Token(alice.clone(), "j".into()),
                Revoked::Device(alice.clone(), phone.clone(), 5),
                Revoked::User(alice.clone(), 6),
            ],
            ..Settlement::default()
        },
    );
    fixture.reopen();
    let store = fixture.store();
    assert_eq!(store.user(&alice).unwrap(), Some(UserRow { last_seq: 7, settled_seq: 5, last_offset: 900 }));
    assert_eq!(store.user(&user("nobody")).unwrap(), None);
    assert_eq!(
        store.devices(&alice).unwrap(),
        [(device("desk"), DeviceRow { label: None, ..row.clone() }), (phone.clone(), row)]
    );
    assert_eq!(store.chat(&chat()).unwrap(), Some(12));
    assert_eq!(store.members(&chat()).unwrap(), [(user("bob"), member)]);
    assert_eq!(store.session(&alice, "c").unwrap(), Some(session.clone()));
    assert_eq!(store.sessions(&alice).unwrap(), [("c".to_owned(), session)]);
    assert_eq!(store.revoked().unwrap().len(), 3);
    settle(
        store,
        Settlement {
            devices: vec![(alice.clone(), phone, None), (alice.clone(), device("desk"), None)],
            sessions: vec![(alice.clone(), "c".into(), None)],
            ..Settlement::default()
        },
    );
    assert!(store.devices(&alice).unwrap().is_empty() && store.session(&alice, "c").unwrap().is_none());
}

fn a_body_stays_as_long_as_a_row_points_to_it(fixture: &mut impl Fixture) {
    let (alice, bob) = (user("alice"), user("bob"));
    let inbox = vec![(bob.clone(), 1, of(1)), (alice.clone(), 1, of(1))];
    settle(fixture.store(), Settlement { messages: vec![message(1)], inbox, ..Settlement::default() });
    fixture.reopen();
    settle(fixture.store(), Settlement { gone: vec![(bob.clone(), 1), (bob.clone(), 99)], ..Settlement::default() });
    assert_eq!(fixture.store().inbox(&alice, 0, 9).unwrap(), [(1, of(1))], "alice's row has its body");
    settle(fixture.store(), Settlement { gone: vec![(alice.clone(), 1)], ..Settlement::default() });
    assert!(fixture.store().inbox(&alice, 0, 9).unwrap().is_empty());
    // A row that came back without its body would be an error: the body is gone with the last row.
    settle(
        fixture.store(),
        Settlement { messages: vec![message(1)], inbox: vec![(bob.clone(), 2, of(1))], ..Settlement::default() },
    );
    assert_eq!(fixture.store().inbox(&bob, 0, 9).unwrap(), [(2, of(1))]);
}

fn inboxes_are_read_in_order_and_in_pages(fixture: &mut impl Fixture) {
    let bob = user("bob");
    let gap = Row {
        only: Some(device("tablet")),
        except: Some(device("phone")),
        ..row(Item::Gap(Gap { from: 1, to: 2, lagged: true }), 3)
    };
    let mut inbox: Vec<_> = (1..=5).map(|n| (bob.clone(), n, of(n))).collect();
    inbox.push((bob.clone(), 6, gap.clone()));
    inbox.push((user("boba"), 1, row(Item::Gap(Gap { from: 9, to: 9, lagged: false }), 1)));
    settle(fixture.store(), Settlement { messages: (1..=5).map(message).collect(), inbox, ..Settlement::default() });
    fixture.reopen();
    let store = fixture.store();
    assert_eq!(seqs(&store.inbox(&bob, 0, 3).unwrap()), [1, 2, 3]);
    assert_eq!(seqs(&store.inbox(&bob, 3, 100).unwrap()), [4, 5, 6]);
    assert_eq!(store.inbox(&bob, 5, 1).unwrap(), [(6, gap)]);
    let places = store.inbox_places(&bob, 4, 6, 10).unwrap();
    assert_eq!(places.iter().map(|place| (place.seq, place.offset)).collect::<Vec<_>>(), [(5, 500), (6, 300)]);
    assert_eq!((&places[1].only, &places[1].except), (&Some(device("tablet")), &Some(device("phone"))));
    assert_eq!(store.inbox_places(&bob, 0, 4, 2).unwrap().len(), 2);
}

fn what_is_dropped_is_gone_up_to_there(fixture: &mut impl Fixture) {
    let (bob, alice) = (user("bob"), user("alice"));
    let inbox = (1..=4).map(|n| (bob.clone(), n, of(n))).chain([(alice.clone(), 1, of(2))]).collect();
    settle(fixture.store(), Settlement { messages: (1..=4).map(message).collect(), inbox, ..Settlement::default() });
    settle(fixture.store(), Settlement { dropped: vec![(bob.clone(), 3)], ..Settlement::default() });
    fixture.reopen();
    assert_eq!(seqs(&fixture.store().inbox(&bob, 0, 9).unwrap()), [4]);
    assert_eq!(fixture.store().inbox(&alice, 0, 9).unwrap(), [(1, of(2))], "another's row keeps the body");
}

fn a_kept_message_outlives_its_row_until_its_time_is_over(fixture: &mut impl Fixture) {
    let bob = user("bob");
    let settlement = Settlement {
        messages: vec![message(1), message(2)],
        inbox: vec![(bob.clone(), 1, of(1)), (bob.clone(), 2, of(2))],
        kept: vec![(bob.clone(), message(1), 50)],
        gone: vec![(bob.clone(), 1), (bob.clone(), 2)],
        ..Settlement::default()
    };
    settle(fixture.store(), settlement);
    fixture.reopen();
    let store = fixture.store();
    assert_eq!(store.kept(&bob, &chat(), 1).unwrap(), Some(message(1)));
    assert_eq!(store.kept(&user("alice"), &chat(), 1).unwrap(), None, "kept for bob alone");
    assert_eq!(store.kept(&bob, &chat(), 2).unwrap(), None);
    store.sweep_kept(9, 50).unwrap();
    assert!(store.kept(&bob, &chat(), 1).unwrap().is_some(), "not over yet");
    store.sweep_kept(9, 51).unwrap();
    assert_eq!(store.kept(&bob, &chat(), 1).unwrap(), None);
    let many = (1..=KEPT_MAX as u64 + 1).map(message);
    let settlement = Settlement {
        messages: many.clone().collect(),
        kept: many.map(|message| (bob.clone(), Arc::clone(&message), 100 + message.n)).collect(),
        ..Settlement::default()
    };
    settle(store, settlement);
    assert_eq!(store.kept(&bob, &chat(), 1).unwrap(), None, "one more than a user may have: the oldest goes");
    assert!(store.kept(&bob, &chat(), 2).unwrap().is_some());
}

fn repeats_are_found_by_id_and_by_place(fixture: &mut impl Fixture) {
    let (alice, bob) = (user("alice"), user("bob"));
    let rows = vec![
        (id("x"), alice.clone(), accepted(1, 9)),
        (id("x"), bob.clone(), accepted(2, 9)),
        (id("y"), alice.clone(), accepted(3, 9)),
    ];
    settle(fixture.store(), Settlement { accepted: rows, ..Settlement::default() });
    fixture.reopen();
    let store = fixture.store();
    assert_eq!(store.accepted(&id("x"), &alice).unwrap(), Some(accepted(1, 9)));
    assert_eq!(store.accepted(&id("y"), &bob).unwrap(), None);
    assert_eq!(store.accepted_by_id(&id("x"), 9).unwrap().len(), 2);
    assert_eq!(store.accepted_by_id(&id("x"), 1).unwrap().len(), 1);
    assert_eq!(store.newest_of(&chat(), &alice, 0, 9).unwrap(), Some((3, id("y"))));
    assert_eq!(store.newest_of(&chat(), &alice, 0, 2).unwrap(), Some((1, id("x"))));
    assert_eq!(store.newest_of(&chat(), &alice, 1, 2).unwrap(), None);
    let counts =
        [(0, 9), (1, 9), (3, 9), (0, 1)].map(|(after, limit)| store.count_of(&chat(), &alice, after, limit).unwrap());
    assert_eq!(counts, [2, 1, 0, 1]);
}

fn an_account_is_its_password_and_whether_its_user_may_come_in(fixture: &mut impl Fixture) {
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let hash = Some(Secret("$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA".into()));
    let accounts = vec![
        (alice.clone(), Account { password: hash.clone(), disabled: false }),
        (bob.clone(), Account { password: None, disabled: true }),
    ];
    settle(fixture.store(), Settlement { accounts: accounts.clone(), ..Settlement::default() });
    fixture.reopen();
    let store = fixture.store();
    for (user, account) in accounts {
        assert_eq!(store.account(&user).unwrap(), account);
    }
    assert_eq!(store.account(&carol).unwrap(), Account::default());
    assert_eq!(store.disabled().unwrap(), std::slice::from_ref(&bob));
    let accounts = vec![(alice.clone(), Account { password: hash, disabled: true }), (bob.clone(), Account::default())];
    settle(store, Settlement { accounts, ..Settlement::default() });
    fixture.reopen();
    let store = fixture.store();
    assert!(store.account(&alice).unwrap().password.is_some(), "who may not come in keeps his password");
    assert_eq!(store.disabled().unwrap(), [alice]);
    assert_eq!(store.account(&bob).unwrap(), Account::default());
}

fn a_webhook_is_kept_until_it_is_taken_away(fixture: &mut impl Fixture) {
    let (alice, bob, hook) = (user("alice"), user("bob"), device("webhook"));
    let webhook =
        |url: &str| Webhook { url: url.into(), verify_token: Secret("vt".into()), secret: Secret("s".into()) };
    let first = vec![
        (alice.clone(), hook.clone(), Some(webhook("https://a.example/1"))),
        (bob.clone(), hook.clone(), Some(webhook("https://b.example/"))),
    ];
    settle(fixture.store(), Settlement { webhooks: first, ..Settlement::default() });
    let then = vec![
        (alice.clone(), hook.clone(), Some(webhook("https://a.example/2"))),
        (bob.clone(), hook.clone(), None),
        (bob, device("other"), None),
    ];
    settle(fixture.store(), Settlement { webhooks: then, ..Settlement::default() });
    fixture.reopen();
    assert_eq!(fixture.store().webhooks().unwrap(), [(alice, hook, webhook("https://a.example/2"))]);
}

fn sweeps_go_around_a_little_at_a_time(fixture: &mut impl Fixture) {
    let names = ["a", "b", "c"];
    let inbox = names
        .iter()
        .flat_map(|name| {
            (1..=2).map(move |n| (user(name), n, row(Item::Gap(Gap { from: n, to: n, lagged: false }), n)))
        })
        .collect();
    let rows = (1..=5).map(|n| (id(&format!("m{n}")), user("a"), accepted(n, n))).collect();
    settle(fixture.store(), Settlement { inbox, accepted: rows, ..Settlement::default() });
    let store = fixture.store();
    assert_eq!(store.oldest_rows(None, 2).unwrap(), [(user("a"), 1), (user("b"), 1)]);
    assert_eq!(store.oldest_rows(Some(&user("b")), 2).unwrap(), [(user("c"), 1)]);
    let next = store.sweep_accepted(None, 2, 4).unwrap();
    assert_eq!(next, Some((id("m2"), user("a"))));
    assert_eq!(store.accepted(&id("m2"), &user("a")).unwrap(), None);
    assert!(store.accepted(&id("m3"), &user("a")).unwrap().is_some(), "not looked at yet");
    let next = store.sweep_accepted(next, 9, 4).unwrap();
    assert_eq!(next, None, "around");
    assert_eq!(store.accepted(&id("m3"), &user("a")).unwrap(), None);
    assert!(store.accepted(&id("m4"), &user("a")).unwrap().is_some(), "its time is not over");
}

fn file(id: u64, owner: &str, name: &str, until: u64) -> MediaFile {
    MediaFile {
        id: MediaId::parse(&id.to_string()).unwrap(),
        owner: user(owner),
        kind: MediaKind::Sticker,
        mime: "image/webp".into(),
        sha256: [u8::try_from(id % 256).unwrap(); 32],
        size: id % 100,
        name: (!name.is_empty()).then(|| name.to_owned()),
        made_at: 1_764_000_000 + id % 10,
        until,
    }
}

fn granted(file: &MediaFile, to: &str) -> MediaGrant {
    MediaGrant { media: file.id.clone(), user: user(to), name: file.name.clone(), made_at: file.made_at }
}

fn files_are_found_by_those_who_may_read_them_until_they_go(fixture: &mut impl Fixture) {
    const BASE: u64 = 1_000_000_000_000_000;
    let files = [
        file(BASE + 1, "alice", "a.webp", 70),
        file(BASE + 2, "alice", "a.webp", 60),
        file(BASE + 3, "alice", "", 50),
        file(BASE + 4, "bob", "a.webp", 80),
    ];
    let [first, second, nameless, bobs] = &files;
    let mut grants: Vec<_> = files.iter().map(|file| granted(file, file.owner.as_str())).collect();
    grants.extend([granted(first, "bob"), granted(first, "bob")]);
    let media = files.iter().map(|file| (file.id.clone(), Some(file.clone()))).collect();
    settle(fixture.store(), Settlement { media, grants, ..Settlement::default() });
    fixture.reopen();
    let store = fixture.store();
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    assert_eq!(store.media(&first.id).unwrap().as_ref(), Some(first));
    assert_eq!(store.media(&nameless.id).unwrap().as_ref(), Some(nameless));
    let may = [&alice, &bob, &carol].map(|user| store.has_media_grant(user, &first.id).unwrap());
    assert_eq!(may, [true, true, false]);
    assert_eq!(store.find_media(&alice, "a.webp", 9).unwrap(), [second.clone(), first.clone()], "the newest first");
    assert_eq!(store.find_media(&alice, "a.webp", 1).unwrap(), std::slice::from_ref(second));
    assert_eq!(store.find_media(&bob, "a.webp", 9).unwrap(), [bobs.clone(), first.clone()]);
    assert!(store.find_media(&carol, "a.webp", 9).unwrap().is_empty());
    assert!(
        store.find_media(&alice, "A.webp", 9).unwrap().is_empty()
            && store.find_media(&alice, "", 9).unwrap().is_empty()
    );
    assert_eq!(store.media_use(&alice).unwrap(), MediaUse { files: 3, bytes: 6 });
    assert_eq!(store.media_use(&carol).unwrap(), MediaUse::default());
    assert_eq!(store.expired_media(70, 9).unwrap(), [nameless.clone(), second.clone()], "not yet at its second");
    assert_eq!(store.expired_media(99, 1).unwrap(), std::slice::from_ref(nameless));
    let longer = MediaFile { until: 200, ..first.clone() };
    let media = vec![(first.id.clone(), Some(longer)), (second.id.clone(), None), (bobs.id.clone(), None)];
    settle(store, Settlement { media, ..Settlement::default() });
    fixture.reopen();
    let store = fixture.store();
    assert_eq!(store.media(&first.id).unwrap().map(|file| file.until), Some(200));
    assert_eq!(store.media(&second.id).unwrap(), None);
    assert!(!store.has_media_grant(&bob, &bobs.id).unwrap(), "a grant goes with its file");
    assert!(store.has_media_grant(&bob, &first.id).unwrap(), "and stays with it");
    assert_eq!(store.media_use(&alice).unwrap(), MediaUse { files: 2, bytes: 4 });
}

#[test]
fn a_database_of_another_version_is_refused_and_starts_are_counted() {
    let mut fixture = OnDisk::new("version");
    assert_eq!(fixture.store().next_boot().unwrap(), 1);
    fixture.reopen();
    assert_eq!(fixture.store().next_boot().unwrap(), 2);
    fixture.store = None;
    rusqlite::Connection::open(fixture.path()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Sqlite::open(&fixture.path()).map(|_| ()).unwrap_err();
    assert!(matches!(&error, StoreError::Database(text) if text.contains("99")), "{error}");
}

#[test]
fn a_body_stays_as_long_as_somebody_may_still_read_it() {
    let mut fixture = OnDisk::new("kept");
    let bob = user("bob");
    let inbox = vec![(bob.clone(), 1, of(1)), (bob.clone(), 2, of(2))];
    settle(fixture.store(), Settlement { messages: vec![message(1), message(2)], inbox, ..Settlement::default() });
    let connection = rusqlite::Connection::open(fixture.path()).unwrap();
    connection.execute("INSERT INTO kept VALUES ('bob', ?1, 2, 99)", [chat().as_str()]).unwrap();
    settle(
        fixture.store(),
        Settlement { gone: vec![(bob.clone(), 1)], dropped: vec![(bob, 2)], ..Settlement::default() },
    );
    let left: Vec<i64> = {
        let mut statement = connection.prepare("SELECT n FROM messages").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(left, [2]);
}

#[test]
fn a_damaged_page_is_told_from_a_full_disk() {
    let mut fixture = OnDisk::new("damaged");
    let bob = user("bob");
    let rows = (1..=500).map(|n| (bob.clone(), n, of(n))).collect();
    settle(
        fixture.store(),
        Settlement { messages: (1..=500).map(message).collect(), inbox: rows, ..Settlement::default() },
    );
    fixture.store = None;
    // Everything behind the schema's page.
    let mut bytes = std::fs::read(fixture.path()).unwrap();
    bytes.iter_mut().skip(4096).for_each(|byte| *byte = 0x5a);
    std::fs::write(fixture.path(), bytes).unwrap();
    let error = Sqlite::open(&fixture.path()).and_then(|mut store| store.inbox(&bob, 0, 500)).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }) && error.is_final(), "{error}");
    assert!(!StoreError::Database("database or disk is full".into()).is_final());
}

fn a_status_keeps_its_body_and_is_found_by_poster_time_and_file(fixture: &mut impl Fixture) {
    let chat = ChatKey::new(&user("alice"), &Chat::Status);
    let file = MediaId::parse("7000000000000001").unwrap();
    let status = |n, until, media: Option<&MediaId>| {
        let message = Message {
            chat: chat.clone(),
            n,
            from: user("alice"),
            id: id(&format!("s{n}")),
            timestamp: 1,
            body: Arc::from("\"type\":\"text\""),
        };
        let places = vec![(user("alice"), 4), (user("bob"), 9)];
        Arc::new(Status { message: Arc::new(message), until, media: media.cloned(), places })
    };
    let all = [status(1, 10, Some(&file)), status(2, 20, None), status(3, 15, Some(&file))];
    let statuses = all.iter().map(|status| (chat.clone(), status.message.n, Some(Arc::clone(status)))).collect();
    let messages: Vec<_> = all.iter().map(|status| Arc::clone(&status.message)).collect();
    // One row in an inbox, beside: it goes, and the body stays with its status.
    let row = Row { at: 1, offset: 1, only: None, except: None, item: Item::Message(Arc::clone(&messages[0])) };
    let inbox = vec![(user("bob"), 9, row)];
    let users = vec![(user("bob"), UserRow { last_seq: 9, settled_seq: 9, last_offset: 1 })];
    let chats = vec![(chat.clone(), 3)];
    let settlement = Settlement { users, chats, messages, inbox, statuses, upto: 1, ..Settlement::default() };
    fixture.store().settle(0, &settlement).unwrap();
    fixture.reopen();
    let gone = vec![(user("bob"), 9)];
    fixture.store().settle(0, &Settlement { gone, upto: 2, ..Settlement::default() }).unwrap();
    let store = fixture.store();
    assert_eq!(store.status(&chat, 1).unwrap().as_ref(), Some(&*all[0]));
    assert_eq!(store.status_times(&chat).unwrap(), [(1, 10), (2, 20), (3, 15)]);
    assert_eq!(store.statuses_over(15, 9).unwrap(), [(chat.clone(), 1), (chat.clone(), 3)]);
    assert_eq!(store.statuses_over(15, 1).unwrap(), [(chat.clone(), 1)]);
    assert!(store.statuses_over(9, 9).unwrap().is_empty(), "it is shown before that second");
    assert_eq!(store.statuses_with(&file, 9).unwrap(), [(chat.clone(), 3), (chat.clone(), 1)]);
    let over = vec![(chat.clone(), 1, None), (chat.clone(), 7, None)];
    store.settle(0, &Settlement { statuses: over, upto: 3, ..Settlement::default() }).unwrap();
    assert_eq!(store.status(&chat, 1).unwrap(), None);
    assert_eq!(store.statuses_with(&file, 9).unwrap(), [(chat.clone(), 3)]);
    // Its body went with it: a row that points to it now finds none.
    let row =
        |n: usize| Row { at: 1, offset: 1, only: None, except: None, item: Item::Message(Arc::clone(&all[n].message)) };
    let inbox = vec![(user("bob"), 10, row(1))];
    store.settle(0, &Settlement { inbox, upto: 4, ..Settlement::default() }).unwrap();
    assert_eq!(store.inbox(&user("bob"), 9, 9).unwrap().len(), 1, "the second's is there");
    let over = vec![(chat.clone(), 2, None)];
    store.settle(0, &Settlement { statuses: over, upto: 5, ..Settlement::default() }).unwrap();
    assert_eq!(store.inbox(&user("bob"), 9, 9).unwrap()[0].1, row(1), "as long as a row points to it");
}
