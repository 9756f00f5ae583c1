use super::*;
use crate::torture::history::Event;

const FIRST: Message = Message { device: 0, k: 0 };
const SECOND: Message = Message { device: 0, k: 1 };

/// Device 0 of user 0 sends two messages to device 1 of user 1, which takes and reads both.
fn good() -> History {
    let log = |user, whats: &[(u64, What)]| Device {
        user,
        events: whats.iter().map(|(at, what)| Event { at: *at, what: *what }).collect(),
    };
    let receipt = |read, after, n, message, seq| What::Receipt { read, recipient: 1, after, n, message, seq };
    let sender = [
        (1, What::Sent { k: 0, hash: 7 }),
        (2, What::Acked { k: 0, n: Some(1) }),
        (3, What::Sent { k: 1, hash: 8 }),
        (4, What::Acked { k: 1, n: None }),
        (12, receipt(false, 0, 2, SECOND, 1)),
        (14, receipt(true, 0, 2, SECOND, 2)),
    ];
    let reader = [
        (5, What::Taken { message: FIRST, n: 1, seq: 1, hash: 7 }),
        (6, What::Acknowledged { seq: 1 }),
        (7, What::Taken { message: SECOND, n: 2, seq: 2, hash: 8 }),
        (8, What::Acknowledged { seq: 2 }),
        (13, What::MarkedRead { n: 2 }),
    ];
    History { devices: vec![log(0, &sender), log(1, &reader)] }
}

/// What the checker says after `change` to an event of the good history.
fn with(device: usize, event: usize, what: What) -> Verdict {
    let mut history = good();
    history.devices[device].events[event].what = what;
    check(&history)
}

#[test]
fn a_good_history_is_clean() {
    assert_eq!(check(&good()), Verdict { acked: 2, ..Verdict::default() });
}

#[test]
fn a_lost_message_is_reported() {
    let mut history = good();
    history.devices[1].events.drain(2..4);
    let verdict = check(&history);
    assert_eq!(verdict.lost, 1, "{verdict}");
    assert!(!verdict.is_clean());
}

#[test]
fn a_message_never_acknowledged_is_reported() {
    assert_eq!(with(0, 3, What::Acked { k: 0, n: None }).lost, 1);
}

#[test]
fn a_doubled_message_is_reported() {
    let mut history = good();
    let what = What::Taken { message: SECOND, n: 2, seq: 3, hash: 8 };
    history.devices[1].events.push(Event { at: 20, what });
    assert_eq!(check(&history), Verdict { acked: 2, duplicated: 1, ..Verdict::default() });
}

#[test]
fn a_changed_order_is_reported() {
    let mut history = good();
    history.devices[1].events.swap(0, 2);
    assert_eq!(check(&history).reordered, 2, "seq and n fall");
}

#[test]
fn a_senders_changed_order_is_reported() {
    let mut history = good();
    history.devices[0].events[1].what = What::Acked { k: 0, n: None };
    history.devices[1].events[0].what = What::Taken { message: SECOND, n: 1, seq: 1, hash: 8 };
    history.devices[1].events[2].what = What::Taken { message: FIRST, n: 2, seq: 2, hash: 7 };
    // Of its sender, and of real time: the first was acknowledged before the second was sent.
    assert_eq!(check(&history).reordered, 2);
}

#[test]
fn a_receipt_before_the_acknowledgement_is_false() {
    let mut history = good();
    history.devices[1].events[3].at = 13;
    assert_eq!(check(&history), Verdict { acked: 2, false_receipts: 1, ..Verdict::default() });
}

#[test]
fn a_read_receipt_before_the_mark_is_false() {
    let mut history = good();
    history.devices[1].events[4].at = 15;
    assert_eq!(check(&history), Verdict { acked: 2, false_receipts: 1, ..Verdict::default() });
}

#[test]
fn a_receipt_that_names_another_message_is_false() {
    let what = What::Receipt { read: false, recipient: 1, after: 0, n: 2, message: FIRST, seq: 1 };
    assert_eq!(with(0, 4, what).false_receipts, 1);
}

#[test]
fn a_missing_receipt_is_reported() {
    let mut history = good();
    history.devices[0].events.pop();
    assert_eq!(check(&history), Verdict { acked: 2, uncovered: 2, ..Verdict::default() });
}

#[test]
fn another_body_is_reported() {
    let verdict = with(1, 2, What::Taken { message: SECOND, n: 2, seq: 2, hash: 9 });
    assert_eq!(verdict, Verdict { acked: 2, altered: 1, ..Verdict::default() });
}

#[test]
fn a_changed_number_is_reported() {
    assert!(with(0, 1, What::Acked { k: 0, n: Some(9) }).renumbered > 0);
    assert!(with(0, 3, What::Acked { k: 1, n: Some(1) }).renumbered > 0);
}

#[test]
fn what_nobody_sent_is_reported() {
    let message = Message { device: 0, k: 5 };
    assert!(with(1, 2, What::Taken { message, n: 2, seq: 2, hash: 8 }).phantoms > 0);
    assert_eq!(with(1, 4, What::Phantom).phantoms, 1);
}

#[test]
fn gaps_and_refusals_are_reported() {
    assert_eq!(with(1, 4, What::Gap).gaps, 1);
    assert_eq!(with(1, 4, What::Refused).refused, 1);
}
