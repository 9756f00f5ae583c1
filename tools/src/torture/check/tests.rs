use super::*;
use crate::torture::history::{Device, Event, Message, What};

const FIRST: Message = Message { device: 0, k: 0 };
const SECOND: Message = Message { device: 0, k: 1 };

/// Device 0 of user 0 sends two messages to device 1 of user 1, which takes and reads both.
fn good() -> History {
    let log = |user, whats: &[(u64, What)]| Device {
        is_sdk: false,
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
    History { first: 0, devices: vec![log(0, &sender), log(1, &reader)] }
}

fn check(history: &History) -> Verdict {
    let mut judgement = Judgement::default();
    super::check(history, &mut judgement);
    let Judgement { verdict, words } = judgement;
    assert_eq!(verdict.is_clean(), words.is_empty(), "{words:?}");
    verdict
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

#[test]
fn a_hint_that_names_another_number_is_reported() {
    let mut history = good();
    history.devices[0].events.insert(2, Event { at: 3, what: What::Numbered { k: 0, n: 1 } });
    assert!(check(&history).is_clean());
    history.devices[0].events[2].what = What::Numbered { k: 0, n: 2 };
    assert!(check(&history).renumbered > 0);
}

#[test]
fn a_repeated_send_with_another_number_is_reported() {
    let mut history = good();
    history.devices[0].events.insert(4, Event { at: 5, what: What::Acked { k: 0, n: Some(1) } });
    assert_eq!(check(&history), Verdict { acked: 2, ..Verdict::default() });
    history.devices[0].events[4].what = What::Acked { k: 0, n: Some(2) };
    assert!(check(&history).renumbered > 0);
}

#[test]
fn a_skipped_number_is_reported() {
    let mut history = good();
    // A third message, so that 3 may be a number.
    history.devices[0].events.push(Event { at: 20, what: What::Sent { k: 2, hash: 9 } });
    history.devices[0].events.push(Event { at: 21, what: What::Acked { k: 2, n: Some(3) } });
    assert_eq!(check(&history).skipped, 0);
    history.devices[1].events.drain(2..4);
    assert_eq!(check(&history).skipped, 1, "nobody says which message has 2");
}

#[test]
fn a_read_mark_with_a_late_puback_is_clean() {
    let mut history = good();
    // The mark stands for the PUBACK, which comes later, and `delivered` is never said.
    let sender = &mut history.devices[0].events;
    sender.remove(4);
    history.devices[1].events[3].at = 30;
    assert_eq!(check(&history), Verdict { acked: 2, ..Verdict::default() });
}

#[test]
fn a_receipt_that_says_it_again_is_reported() {
    for read in [false, true] {
        let mut history = good();
        let what = What::Receipt { read, recipient: 1, after: 1, n: 2, message: SECOND, seq: 3 };
        history.devices[0].events.push(Event { at: 20, what });
        let expected = Verdict { acked: 2, repeated_receipts: 1, ..Verdict::default() };
        assert_eq!(check(&history), expected, "read {read}");
    }
}

#[test]
fn a_tick_that_goes_back_is_reported() {
    let mut history = good();
    let sender = &mut history.devices[0].events;
    sender.remove(4);
    let what = What::Receipt { read: false, recipient: 1, after: 0, n: 2, message: SECOND, seq: 3 };
    sender.push(Event { at: 20, what });
    assert_eq!(check(&history), Verdict { acked: 2, repeated_receipts: 1, ..Verdict::default() });
}

#[test]
fn receipts_that_follow_each_other_are_clean() {
    let mut history = good();
    let receipt = |read, after, n, message, seq| What::Receipt { read, recipient: 1, after, n, message, seq };
    let receipts = [
        receipt(false, 0, 1, FIRST, 1),
        receipt(false, 1, 2, SECOND, 2),
        receipt(true, 0, 1, FIRST, 3),
        receipt(true, 1, 2, SECOND, 4),
    ];
    history.devices[0].events.truncate(4);
    history.devices[0].events.extend(receipts.map(|what| Event { at: 20, what }));
    assert_eq!(check(&history), Verdict { acked: 2, ..Verdict::default() });
}

#[test]
fn a_receipt_of_somebody_else_is_false() {
    let mut history = good();
    let what = What::Receipt { read: false, recipient: 2, after: 0, n: 2, message: SECOND, seq: 3 };
    history.devices[0].events.push(Event { at: 20, what });
    assert_eq!(check(&history), Verdict { acked: 2, false_receipts: 1, ..Verdict::default() });
}

#[test]
fn the_devices_of_a_later_pair_are_judged_alike() {
    let mut history = good();
    history.first = 10;
    let message = |message: Message| Message { device: 10, ..message };
    for device in &mut history.devices {
        device.user += 6;
        for event in &mut device.events {
            match &mut event.what {
                What::Taken { message: named, .. } => *named = message(*named),
                What::Receipt { message: named, recipient, .. } => (*named, *recipient) = (message(*named), 7),
                _ => {}
            }
        }
    }
    assert_eq!(check(&history), Verdict { acked: 2, ..Verdict::default() });
    history.devices[1].events.drain(2..4);
    assert_eq!(check(&history).lost, 1);
}

#[test]
fn what_is_stuck_or_without_bounds_is_not_clean() {
    let mut judgement = Judgement::default();
    judgement.stuck(3, "2 of 5 messages are received");
    judgement.unbounded("the server: expected at most 64 file descriptors, got 65");
    assert_eq!(judgement.verdict, Verdict { stuck: 1, unbounded: 1, ..Verdict::default() });
    assert!(judgement.words[0].contains("device 3: 2 of 5"), "{:?}", judgement.words);
    (0..9).for_each(|device| judgement.stuck(device, "0 of 5 messages are received"));
    assert_eq!((judgement.verdict.stuck, judgement.words.len()), (10, 4), "the first of each kind in words");
}

/// Two users with a device each, `messages` in each direction, one receipt of each kind for every ten.
fn long(messages: u32) -> History {
    let mut devices = [0, 1].map(|user| Device { user, is_sdk: false, events: Vec::new() });
    let (mut at, mut seqs) = (0, [0, 0]);
    for k in 0..messages {
        for sender in 0..2_u32 {
            let n = 2 * k + sender + 1;
            let message = Message { device: sender, k };
            let mut note = |device: u32, what: What| {
                at += 1;
                devices[device as usize].events.push(Event { at, what });
            };
            let recipient = 1 - sender;
            note(sender, What::Sent { k, hash: k.into() });
            note(sender, What::Acked { k, n: Some(n) });
            seqs[recipient as usize] += 1;
            let seq = seqs[recipient as usize];
            note(recipient, What::Taken { message, n, seq, hash: k.into() });
            note(recipient, What::Acknowledged { seq });
            if k % 10 == 9 || k + 1 == messages {
                let after = (2 * (k / 10 * 10) + sender + 1).saturating_sub(2);
                note(recipient, What::MarkedRead { n });
                for read in [false, true] {
                    seqs[sender as usize] += 1;
                    let seq = seqs[sender as usize];
                    note(sender, What::Receipt { read, recipient, after, n, message, seq });
                }
            }
        }
    }
    History { first: 0, devices: devices.to_vec() }
}

#[test]
fn a_long_history_is_judged() {
    assert_eq!(check(&long(10_005)), Verdict { acked: 20_010, ..Verdict::default() });
}

#[test]
#[expect(clippy::print_stdout, reason = "it measures")]
#[ignore = "figures: cargo test --release -p natter-tools -- --ignored --nocapture"]
fn ten_million_events_are_judged_in_seconds() {
    let history = long(1_200_000);
    let events: usize = history.devices.iter().map(|device| device.events.len()).sum();
    let start = std::time::Instant::now();
    assert!(check(&history).is_clean());
    let time = start.elapsed();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("{events} events in {time:?}, {peak}");
    assert!(time.as_secs() < 20);
}
