use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

const MEMBERS: usize = 24;
const LAST_N: N = 40;

fn user(i: usize) -> UserId {
    UserId::parse(&format!("u{i:04}")).unwrap()
}

fn sent(n: N, from: usize) -> Sent {
    Sent { n, from: user(from), id: MessageId::parse(&format!("m{n}")).unwrap() }
}

/// A member as the strategy makes one; marks only rise while he is in.
#[derive(Debug, Clone)]
struct Drawn {
    joined_n: N,
    hidden: Hidden,
    before: Option<Marks>,
    after: Option<Marks>,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let mark = || 0..=LAST_N;
    (
        0..10_u64,
        vec((0..LAST_N, 0..5_u64), 0..3),
        option::weighted(0.9, (mark(), mark())),
        option::weighted(0.9, (mark(), mark())),
    )
        .prop_map(|(joined_n, ranges, before, after)| {
            let mut hidden = Hidden::default();
            for (from, length) in ranges {
                hidden.add(from, from + length);
            }
            let marks = |(delivered, read): (N, N)| Marks { delivered_n: delivered.max(read), read_n: read };
            let before = before.map(marks);
            let after = after.map(marks).map(|after| Marks {
                delivered_n: after.delivered_n.max(before.unwrap_or_default().delivered_n),
                read_n: after.read_n.max(before.unwrap_or_default().read_n),
            });
            Drawn { joined_n, hidden, before, after }
        })
}

fn standings<'a>(names: &'a [UserId], all: &'a [Drawn]) -> Vec<Standing<'a>> {
    let one = |(user, it): (&'a UserId, &'a Drawn)| Standing {
        user,
        joined_n: it.joined_n,
        hidden: Some(&it.hidden),
        before: it.before,
        after: it.after,
    };
    names.iter().zip(all).map(one).collect()
}

/// As the contract says it, member by member.
fn naive(all: &[Standing<'_>], from: &UserId, n: N, marks: impl Fn(&Standing<'_>) -> Option<Marks>) -> Counts {
    let mut counts = Counts::default();
    for standing in all.iter().filter(|standing| standing.user != from && standing.joined_n < n) {
        let Some(marks) = marks(standing) else { continue };
        if standing.hidden.is_some_and(|hidden| hidden.has(n)) {
            continue;
        }
        counts.of += 1;
        counts.delivered_to += u32::from(marks.delivered_n >= n);
        counts.read_by += u32::from(marks.read_n >= n);
    }
    counts
}

proptest! {
    #[test]
    fn what_is_told_is_true_and_what_rose_is_told(
        all in vec(drawn(), 1..MEMBERS), senders in vec(0..MEMBERS, 1..LAST_N as usize),
    ) {
        let names: Vec<UserId> = (0..all.len()).map(user).collect();
        let all = standings(&names, &all);
        let messages: Vec<Sent> = senders.iter().zip(1..).map(|(from, n)| sent(n, from / 6)).collect();
        let runs = told(&all, &messages);
        let mut by_message: BTreeMap<N, &Run<'_>> = BTreeMap::new();
        for run in &runs {
            let covered = messages.iter().filter(|m| m.from == *run.to && run.after < m.n && m.n <= run.n);
            for message in covered {
                prop_assert_eq!(run.counts, naive(&all, &message.from, message.n, |s| s.after), "{:?} of {}", run, message.n);
                prop_assert!(by_message.insert(message.n, run).is_none(), "{} is told twice", message.n);
            }
            let last = messages.iter().find(|m| m.n == run.n).unwrap();
            prop_assert_eq!((&last.from, &last.id), (run.to, run.id));
        }
        for message in &messages {
            let was = naive(&all, &message.from, message.n, |s| s.before);
            let is = naive(&all, &message.from, message.n, |s| s.after);
            prop_assert_eq!(counts(&all, &message.from, message.n), is);
            let delivered = step(is.delivered_to, is.of) > step(was.delivered_to, was.of);
            let read = step(is.read_by, is.of) > step(was.read_by, was.of);
            let must = is.of > 0 && (delivered || read);
            let run = by_message.get(&message.n);
            prop_assert!(!must || run.is_some(), "{} is not told", message.n);
            if must && read {
                prop_assert_eq!(run.unwrap().tick, Tick::Read);
            }
        }
        prop_assert!(runs.iter().all(|run| {
            let is_due = |m: &&Sent| {
                let (was, is) = (naive(&all, &m.from, m.n, |s| s.before), naive(&all, &m.from, m.n, |s| s.after));
                m.n == run.n && (step(is.delivered_to, is.of) > step(was.delivered_to, was.of) || step(is.read_by, is.of) > step(was.read_by, was.of))
            };
            messages.iter().any(|m| is_due(&m))
        }), "an entry that says nothing new");
        prop_assert!(runs.len() <= messages.len());
    }

    #[test]
    fn nothing_beyond_the_range_is_to_be_told(all in vec(drawn(), 1..MEMBERS), senders in vec(0..4_usize, LAST_N as usize)) {
        let names: Vec<UserId> = (0..all.len()).map(user).collect();
        // Nobody joins: that makes no count rise.
        let all: Vec<Drawn> = all.into_iter().filter(|it| it.before.is_some()).collect();
        let all = standings(&names, &all);
        let messages: Vec<Sent> = senders.iter().zip(1..).map(|(from, n)| sent(n, *from)).collect();
        let (after, upto) = range(&all, LAST_N).unwrap_or((0, 0));
        for run in told(&all, &messages) {
            prop_assert!(after < run.n && run.n <= upto, "{run:?} lies beyond {after}..{upto}");
        }
    }
}

#[test]
fn a_count_rises_in_few_steps_and_the_last_one_always_is_one() {
    for of in [1, 2, 7, 16, 17, 100, 1023, 1024] {
        let steps: Vec<u32> = (0..=of).map(|count| step(count, of)).collect();
        assert!(steps.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(steps[of as usize - 1] < steps[of as usize], "all of {of} is a step");
        let different = steps.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(different <= 65, "{different} entries for {of} members");
    }
    assert_eq!(
        [15, 16, 17, 18, 31, 32, 35, 36, 1000].map(|count| step(count, 2000)),
        [15, 16, 16, 18, 30, 32, 32, 36, 960]
    );
}

/// `cargo test --release -p natter-bridge --lib ticks -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "a measurement")]
fn what_a_batch_costs_in_a_group_of_a_thousand() {
    let names: Vec<UserId> = (0..1000).map(user).collect();
    let marks = |n| Some(Marks { delivered_n: n, read_n: 0 });
    for (what, messages, risen) in [
        ("1 message, 1,000 acks", 1, 1),
        ("100 messages, 1,000 acks", 100, 100),
        ("1,000 messages, 1,000 acks", 1000, 1000),
    ] {
        let messages: Vec<Sent> = (1..=messages).map(|n| sent(n, (n % 50) as usize)).collect();
        let standings: Vec<Standing<'_>> = names
            .iter()
            .enumerate()
            .map(|(i, user)| Standing {
                user,
                joined_n: 0,
                hidden: None,
                before: marks(0),
                after: marks(i as u64 % risen + 1),
            })
            .collect();
        let started = std::time::Instant::now();
        let rounds = 100;
        let mut entries = 0;
        for _ in 0..rounds {
            entries = told(&standings, std::hint::black_box(&messages)).len();
        }
        println!("{what}: {} us, {entries} entries", started.elapsed().as_micros() / rounds);
    }
}
