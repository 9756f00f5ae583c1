//! The bounds of the core, and what is said at them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends that way")]

use bytes::Bytes;
use natter_client::core::{Answer, Core, Input, OUTBOX_MAX, Output, RESEND_MS_MAX, SETTLED_MAX, WINDOW};
use natter_client::store::{MemoryStore, Owner, Snapshot, Store};
use natter_client::{Error, Tick};
use natter_protocol::entry::Entry;

fn send(core: &mut Core, number: u64) {
    let id = Some(format!("m{number}"));
    core.handle(0, Input::Send { ticket: number, id, chat: Some("bob".into()), payload: b"{}".to_vec() });
}

fn outputs(core: &mut Core) -> Vec<Output> {
    std::iter::from_fn(|| core.next_output()).collect()
}

/// Commits until nothing is left, and returns what the core wants.
fn settle(core: &mut Core, store: &mut MemoryStore) -> Vec<Output> {
    let mut all = outputs(core);
    while let Some(batch) = core.take_batch() {
        store.commit(&batch).unwrap();
        core.handle(0, Input::Stored);
        all.extend(outputs(core));
    }
    all
}

fn published(outputs: &[Output]) -> Vec<u64> {
    let key = |output: &Output| if let Output::Publish { key, .. } = output { Some(*key) } else { None };
    outputs.iter().filter_map(key).collect()
}

#[test]
fn a_full_outbox_refuses_and_takes_again_when_there_is_room() {
    let (mut core, mut store) = (Core::new(Snapshot::default(), true), MemoryStore::default());
    for number in 0..OUTBOX_MAX as u64 {
        send(&mut core, number);
    }
    settle(&mut core, &mut store);
    send(&mut core, 1 << 40);
    let refused = outputs(&mut core);
    let [Output::Rejected(_, error @ Error::OutboxFull { .. })] = refused.as_slice() else { panic!("{refused:?}") };
    assert!(error.is_retryable());
    core.handle(0, Input::Connected);
    let keys = published(&settle(&mut core, &mut store));
    assert_eq!(keys.len(), WINDOW, "no more are under way than a server takes");
    core.handle(0, Input::Answered { key: keys[0], answer: Answer::Accepted { n: 1, timestamp: 1 } });
    send(&mut core, 1 << 40);
    assert!(settle(&mut core, &mut store).iter().any(|output| matches!(output, Output::Accepted(_))));
}

#[test]
fn only_so_many_answered_messages_are_remembered() {
    let (mut core, mut store) = (Core::new(Snapshot::default(), true), MemoryStore::default());
    core.handle(0, Input::Connected);
    let mut forgotten = Vec::new();
    for number in 1..=SETTLED_MAX as u64 + 2 {
        send(&mut core, number);
        let keys = published(&settle(&mut core, &mut store));
        core.handle(0, Input::Answered { key: keys[0], answer: Answer::Accepted { n: number, timestamp: 1 } });
        let gone = settle(&mut core, &mut store).into_iter();
        forgotten.extend(gone.filter_map(|output| if let Output::Forgotten(id) = output { Some(id) } else { None }));
    }
    assert_eq!(forgotten, ["m1", "m2"]);
    let owner = Owner { user: String::new(), device: String::new() };
    assert_eq!(store.load(&owner).unwrap().outgoing.len(), SETTLED_MAX);
}

#[test]
fn what_was_first_tried_25_days_ago_is_reported_and_what_was_never_tried_is_sent() {
    let (mut core, mut store) = (Core::new(Snapshot::default(), true), MemoryStore::default());
    core.handle(0, Input::Connected);
    send(&mut core, 1);
    assert_eq!(published(&settle(&mut core, &mut store)), [1]);
    core.handle(0, Input::Disconnected);
    send(&mut core, 2);
    settle(&mut core, &mut store);
    core.handle(RESEND_MS_MAX, Input::Tick);
    assert!(outputs(&mut core).is_empty(), "25 days are not over");
    core.handle(RESEND_MS_MAX + 1, Input::Connected);
    let all = settle(&mut core, &mut store);
    assert_eq!(published(&all), [2]);
    let failed = |output: &Output| matches!(output, Output::Failed(failed) if failed.id.as_deref() == Some("m1") && failed.error == Error::Unconfirmed);
    assert!(all.iter().any(failed));
}

#[test]
fn the_same_message_twice_is_one_and_another_under_its_id_is_refused() {
    let (mut core, mut store) = (Core::new(Snapshot::default(), true), MemoryStore::default());
    send(&mut core, 1);
    send(&mut core, 1);
    let accepted = settle(&mut core, &mut store).iter().filter(|o| matches!(o, Output::Accepted(1))).count();
    assert_eq!(accepted, 2);
    core.handle(0, Input::Send { ticket: 9, id: Some("m1".into()), chat: None, payload: b"other".to_vec() });
    assert!(matches!(outputs(&mut core).as_slice(), [Output::Rejected(9, Error::Invalid(_))]));
    core.handle(0, Input::Connected);
    assert_eq!(published(&settle(&mut core, &mut store)).len(), 1);
}

#[test]
fn entries_for_an_app_that_does_not_take_them_stay_with_the_server() {
    let (mut core, mut store) = (Core::with_inbox(Snapshot::default(), true, 2), MemoryStore::default());
    core.handle(0, Input::Connected);
    for seq in 1..=4_u64 {
        let payload = format!("{{\"seq\":{seq},\"prev\":{},\"type\":\"text\"}}", seq - 1).into_bytes();
        let entry = Box::new(Entry::parse(&payload).unwrap());
        core.handle(0, Input::Arrived { delivery: seq, entry, payload: Bytes::from(payload) });
    }
    let acknowledged = |outputs: Vec<Output>| -> Vec<u64> {
        outputs
            .iter()
            .filter_map(|o| if let Output::Acknowledge(delivery) = o { Some(*delivery) } else { None })
            .collect()
    };
    assert_eq!(acknowledged(settle(&mut core, &mut store)), [1, 2]);
    core.handle(0, Input::Took { seq: 1, stored: false });
    assert_eq!(acknowledged(settle(&mut core, &mut store)), [3]);
}

/// A core with a message that is number 1 of `chat`, and its store.
fn with_a_message_in(chat: &str) -> (Core, MemoryStore) {
    let (mut core, mut store) = (Core::new(Snapshot::default(), true), MemoryStore::default());
    core.handle(0, Input::Connected);
    core.handle(0, Input::Send { ticket: 1, id: Some("m1".into()), chat: Some(chat.into()), payload: b"{}".to_vec() });
    let keys = published(&settle(&mut core, &mut store));
    core.handle(0, Input::Answered { key: keys[0], answer: Answer::Accepted { n: 1, timestamp: 1 } });
    settle(&mut core, &mut store);
    (core, store)
}

/// The ticks that follow from a receipt.
fn ticks_after(core: &mut Core, store: &mut MemoryStore, seq: u64, receipt: &str) -> Vec<Tick> {
    let payload = format!(r#"{{"seq":{seq},"prev":{},"type":"status",{receipt}}}"#, seq - 1).into_bytes();
    let entry = Box::new(Entry::parse(&payload).unwrap());
    core.handle(0, Input::Arrived { delivery: seq, entry, payload: Bytes::from(payload) });
    let progress = settle(core, store).into_iter();
    progress.filter_map(|output| if let Output::Progress(_, p) = output { Some(p.tick) } else { None }).collect()
}

#[test]
fn in_a_group_a_tick_is_that_of_all_members_and_never_falls() {
    let (mut core, mut store) = with_a_message_in("g:42");
    let mut counts = |seq, status, delivered, read, of| {
        let receipt = format!(
            r#""status":"{status}","chat":"g:42","after":0,"n":1,"id":"m1","delivered_to":{delivered},"read_by":{read},"of":{of}"#
        );
        ticks_after(&mut core, &mut store, seq, &receipt)
    };
    assert_eq!(counts(1, "delivered", 1, 0, 2), [], "one of two");
    assert_eq!(counts(2, "delivered", 2, 1, 2), [Tick::Delivered]);
    assert_eq!(counts(3, "delivered", 2, 1, 3), [], "it has a member more, and does not fall");
    assert_eq!(counts(4, "read", 3, 3, 3), [Tick::Read]);
    assert_eq!(counts(5, "read", 0, 0, 0), [], "nobody is left");
}

#[test]
fn a_message_that_nobody_is_there_for_stays_at_one_tick() {
    let (mut core, mut store) = with_a_message_in("g:42");
    let alone = r#""status":"delivered","chat":"g:42","after":0,"n":1,"id":"m1","delivered_to":0,"read_by":0,"of":0"#;
    assert_eq!(ticks_after(&mut core, &mut store, 1, alone), []);
}

#[test]
fn what_this_user_read_on_another_device_are_not_his_own_messages() {
    for chat in ["bob", "g:42"] {
        let (mut core, mut store) = with_a_message_in(chat);
        let receipt = |who: &str| {
            format!(
                r#""status":"read","chat":"{chat}","after":0,"n":2,"id":"b2","recipient_id":"{who}","timestamp":"5""#
            )
        };
        assert_eq!(ticks_after(&mut core, &mut store, 1, &receipt("alice")), [], "{chat}");
        if chat == "bob" {
            assert_eq!(ticks_after(&mut core, &mut store, 2, &receipt("bob")), [Tick::Read]);
        }
    }
    let (mut core, mut store) = with_a_message_in("status@broadcast");
    let own =
        r#""status":"read","chat":"status@broadcast","from":"carol","after":0,"n":2,"id":"c2","recipient_id":"alice""#;
    assert_eq!(ticks_after(&mut core, &mut store, 1, own), []);
    let seen = r#""status":"delivered","chat":"status@broadcast","after":0,"n":1,"id":"m1","recipient_id":"carol""#;
    assert_eq!(ticks_after(&mut core, &mut store, 2, seen), [Tick::Delivered]);
}
