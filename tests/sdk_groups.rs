//! Groups by the SDK, against the real server: one history for all members whatever is killed, nothing for who is out, counts up to blue ticks,
//! and what is asked over HTTP.
#![expect(clippy::expect_used, clippy::panic, reason = "a test ends that way")]

mod common;

use std::path::Path;

use common::port::stable_port;
use common::{TestServer, patience};
use natter_client::groups::{Change, GroupError};
use natter_client::{Client, Error, Event, Events, Tick};
use tokio::sync::watch;
use tokio::time::timeout;

async fn connect(server: &TestServer, user: &str) -> Client {
    let url = format!("mqtt://{}", server.mqtt());
    let builder = Client::builder(&url).http(&format!("http://{}", server.http())).user(user).device("phone");
    builder.token(server.token(user)).connect().await.expect("a connection")
}

async fn next(events: &mut Events) -> Event {
    timeout(patience(), events.next()).await.expect("in time").expect("a client that runs")
}

async fn in_time<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(patience(), work).await.expect("in time")
}

/// What a member sees of a chat: number and words, changes too.
async fn line(events: &mut Events) -> (u64, String) {
    loop {
        match next(events).await {
            Event::Message(message) => return (message.n, message.text().expect("words").to_owned()),
            Event::Group(change) => return (change.n, what(&change.by, &change.what)),
            _ => {}
        }
    }
}

fn what(by: &str, change: &Change) -> String {
    match change {
        Change::Created { subject, users, .. } => format!("{by} made {subject} with {}", users.join(" ")),
        Change::Added { users, subject } => format!("{by} added {} to {subject:?}", users.join(" ")),
        Change::Removed { users } => format!("{by} removed {}", users.join(" ")),
        Change::AdminAdded { users } => format!("{by} promoted {}", users.join(" ")),
        Change::AdminRemoved { users } => format!("{by} demoted {}", users.join(" ")),
        Change::Changed { subject, description } => format!("{by} changed {subject:?} {description:?}"),
        other => panic!("{other:?}"),
    }
}

async fn lines(events: &mut Events, count: usize) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    while all.len() < count {
        all.push(line(events).await);
    }
    all
}

const MESSAGES: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn all_members_see_one_history_although_the_server_is_killed() {
    let mut server = TestServer::with_users(&["alice", "bob", "carol"]);
    let tokens = ["alice", "bob", "carol"].map(|user| (user, server.token(user)));
    let dir = tempfile::tempdir().expect("a directory");
    let (place, places) = watch::channel(server.mqtt());
    let url = format!("mqtt://{}", stable_port(places).await);
    let open = |dir: &Path, user: &str, token: &str| {
        Client::builder(&url).user(user).device("phone").token(token).store(dir.join(format!("{user}.db")))
    };
    let mut clients = Vec::new();
    for (user, token) in &tokens {
        clients.push(open(dir.path(), user, token).start().await.expect("a client"));
    }
    let [alice, bob, carol] = &clients[..] else { panic!("three") };

    server.kill9();
    // Made and written into without a server.
    let trip = alice.create_group("Trip", &["bob", "carol"]).await.expect("on the disk");
    let mut own = vec![trip.creation().expect("this device made it")];
    for i in 0..MESSAGES {
        own.push(trip.chat().send_text(format!("a{i}")).await.expect("on the disk"));
        if i == MESSAGES / 3 {
            server.restart();
            place.send_replace(server.mqtt());
            in_time(own[0].sent()).await.expect("the group is there");
        }
        if i == 2 * MESSAGES / 3 {
            server.kill9();
            own.push(trip.set_subject("Crete").await.expect("on the disk"));
            own.push(trip.promote(&["bob"]).await.expect("on the disk"));
        }
    }
    server.restart();
    place.send_replace(server.mqtt());
    // Two write at once: the server's order is everybody's.
    let by_bob = bob.group(trip.name());
    for i in 0..MESSAGES / 2 {
        by_bob.chat().send_text(format!("b{i}")).await.expect("on the disk");
    }
    for message in &own {
        in_time(message.sent()).await.expect("committed");
    }
    let numbers: Vec<u64> = own.iter().filter_map(|message| message.progress().sent).map(|(n, _)| n).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "in the order of sending: {numbers:?}");

    let all = own.len() + MESSAGES / 2;
    let (at_bob, at_carol) = (bob.events(), carol.events());
    let (mut at_bob, mut at_carol) = (at_bob, at_carol);
    let carols = lines(&mut at_carol, all).await;
    assert_eq!(carols.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (1..=all as u64).collect::<Vec<_>>());
    assert_eq!(carols[0].1, "alice made Trip with bob carol");
    for (of, count) in [("a", MESSAGES), ("b", MESSAGES / 2)] {
        let said: Vec<_> = carols.iter().map(|(_, text)| text.clone()).filter(|text| text.starts_with(of)).collect();
        let said: Vec<_> = said.into_iter().filter(|text| text[1..].parse::<usize>().is_ok()).collect();
        assert_eq!(said, (0..count).map(|i| format!("{of}{i}")).collect::<Vec<_>>());
    }
    let own_of_bob = |text: &str| text.starts_with('b') && text[1..].parse::<usize>().is_ok();
    let others: Vec<_> = carols.iter().filter(|(_, text)| !own_of_bob(text)).cloned().collect();
    assert_eq!(lines(&mut at_bob, others.len()).await, others, "the same, without what he wrote on this device");
    // Who made a change hears of it too, at its place.
    let changes: Vec<_> =
        carols.iter().filter(|(_, text)| text.starts_with("alice ") || own_of_bob(text)).cloned().collect();
    assert_eq!(lines(&mut alice.events(), changes.len()).await, changes);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_removed_while_away_gets_that_as_the_last_of_the_group() {
    let server = TestServer::with_users(&["alice", "bob", "carol"]);
    let alice = connect(&server, "alice").await;
    let bob = connect(&server, "bob").await;
    let trip = alice.create_group("Trip", &["bob", "carol"]).await.expect("on the disk");
    let mut events = bob.events();
    assert_eq!(line(&mut events).await, (1, "alice made Trip with bob carol".into()));
    let store = trip.chat().send_text("one").await.expect("on the disk");
    assert_eq!(line(&mut events).await, (2, "one".into()));
    drop(events);
    bob.close(patience()).await;

    in_time(store.sent()).await.expect("committed");
    trip.chat().send_text("two").await.expect("on the disk");
    trip.remove(&["bob"]).await.expect("on the disk");
    in_time(trip.chat().send_text("three").await.expect("on the disk").sent()).await.expect("committed");
    let last = alice.chat("bob").send_text("you are out").await.expect("on the disk");
    in_time(last.sent()).await.expect("committed");

    let bob = connect(&server, "bob").await;
    let mut events = bob.events();
    let mut seen = lines(&mut events, 1).await;
    while seen.last().is_some_and(|(_, text)| text != "you are out") {
        seen.push(line(&mut events).await);
    }
    // What he had taken may come again: he was closed between taking and acknowledging.
    seen.retain(|(_, text)| text != "one");
    assert_eq!(seen, [(3, "two".into()), (4, "alice removed bob".into()), (1, "you are out".into())]);

    // Out of it, it is as if it were not there.
    let mut refusals = Vec::new();
    for group in [trip.name(), "g:0123456789abcdef"] {
        let message = bob.chat(group).send_text("hello?").await.expect("on the disk");
        match in_time(message.sent()).await {
            Err(Error::Refused { reason, details }) => refusals.push((reason, details.replace(group, "g:x"))),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refusals[0], refusals[1]);
    let refused = in_time(bob.group(trip.name()).add(&["bob"]).await.expect("on the disk").sent()).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_are_those_of_all_members_and_a_receipt_counts_them() {
    let server = TestServer::with_users(&["alice", "bob", "carol"]);
    let alice = connect(&server, "alice").await;
    let bob = connect(&server, "bob").await;
    let trip = alice.create_group("Trip", &["bob", "carol"]).await.expect("on the disk");
    let message = trip.chat().send_text("hi").await.expect("on the disk");
    let n = in_time(message.sent()).await.expect("committed").n;
    let (mut at_alice, mut at_bob) = (alice.events(), bob.events());
    lines(&mut at_bob, 2).await;
    bob.chat(trip.name()).mark_read(n).await.expect("on the disk");
    // Bob has read it, Carol was never there: no tick of all.
    let mut counted = async |end: (u64, u64, u64)| loop {
        if let Event::Receipt(receipt) = next(&mut at_alice).await
            && receipt.chat == trip.name()
            && receipt.after < n
            && n <= receipt.n
        {
            assert_eq!(receipt.recipient, None);
            let counts = receipt.counts.expect("counts");
            let got = (counts.delivered_to, counts.read_by, counts.of);
            assert!(got.0 <= end.0 && got.1 <= end.1, "{got:?} before {end:?}");
            if got == end {
                return;
            }
        }
    };
    counted((1, 1, 2)).await;
    assert_eq!(message.progress().tick, Tick::Sent);

    let carol = connect(&server, "carol").await;
    let mut at_carol = carol.events();
    lines(&mut at_carol, 2).await;
    // Asking for the next one says that the one before is there.
    tokio::spawn(async move { while at_carol.next().await.is_some() {} });
    counted((2, 1, 2)).await;
    in_time(message.delivered()).await.expect("two ticks");
    assert_eq!(message.progress().tick, Tick::Delivered);
    carol.chat(trip.name()).mark_read(n).await.expect("on the disk");
    counted((2, 2, 2)).await;
    in_time(message.read()).await.expect("blue ticks");

    let members = trip.receipts(n).await.expect("over HTTP");
    let brief: Vec<_> = members.iter().map(|m| (m.user.as_str(), m.delivered, m.read)).collect();
    assert_eq!(brief, [("bob", true, true), ("carol", true, true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_listed_shown_and_joined_by_its_link() {
    let server = TestServer::with_users(&["alice", "bob", "carol"]);
    let (alice, bob) = (connect(&server, "alice").await, connect(&server, "bob").await);
    let trip = alice.create_group("Trip", &["carol"]).await.expect("on the disk");
    trip.set_description("May").await.expect("on the disk");
    in_time(trip.promote(&["carol"]).await.expect("on the disk").sent()).await.expect("committed");

    let listed = alice.groups().await.expect("a list");
    let brief: Vec<_> = listed.iter().map(|g| (g.name.as_str(), g.subject.as_str(), g.members_count)).collect();
    assert_eq!(brief, [(trip.name(), "Trip", 2)]);
    let info = trip.info().await.expect("a member");
    assert_eq!((&info.summary, info.summary.description.as_deref()), (&listed[0], Some("May")));
    let members: Vec<_> = info.members.iter().map(|m| (m.user.as_str(), m.is_admin)).collect();
    assert_eq!(members, [("alice", true), ("carol", true)]);
    let his = bob.group(trip.name());
    for refused in [his.info().await.map(drop), his.invite_link().await.map(drop), his.receipts(1).await.map(drop)] {
        assert!(matches!(refused, Err(GroupError::NotFound(_))), "{refused:?}");
    }

    assert_eq!(trip.invite_link().await, Ok(None));
    let old = trip.new_invite_link().await.expect("an admin");
    let link = trip.new_invite_link().await.expect("an admin");
    assert_eq!(trip.invite_link().await, Ok(Some(link.clone())));
    assert!(matches!(bob.preview_invite(&old).await, Err(GroupError::NotFound(_))));
    assert_eq!(bob.preview_invite(&link).await.expect("a good link").subject, "Trip");
    assert!(in_time(bob.join_group(&old).await.expect("on the disk").sent()).await.is_err());
    in_time(bob.join_group(&link).await.expect("on the disk").sent()).await.expect("he is in");
    let mut events = bob.events();
    let Event::Group(change) = (loop {
        let event = next(&mut events).await;
        if matches!(event, Event::Group(_)) {
            break event;
        }
    }) else {
        panic!("a change")
    };
    assert_eq!((change.chat.as_str(), change.by.as_str()), (trip.name(), "bob"));
    assert_eq!(change.what, Change::Added { users: vec!["bob".into()], subject: Some("Trip".into()) });
    trip.revoke_invite_link().await.expect("an admin");
    assert_eq!(trip.invite_link().await, Ok(None));
    assert!(matches!(his.invite_link().await, Err(GroupError::NotAllowed(_))), "he is no admin");
}
