//! Typing hints, held back: one in [`TYPING_SECS`] of a user in a chat. Pure.

use std::collections::{HashSet, VecDeque};

use natter_protocol::UserId;

/// Server seconds in which one hint of a user in a chat goes out; more say nothing new.
pub const TYPING_SECS: u64 = 3;
/// Hints that are remembered for as long; while there are so many, others are dropped.
pub const TYPING_MAX: usize = 50_000;

/// Who typed to whom lately.
#[derive(Debug, Default)]
pub struct Typing {
    said: HashSet<(UserId, UserId)>,
    in_order: VecDeque<(u64, (UserId, UserId))>,
}

impl Typing {
    /// Whether a hint of `from` for `to` goes out at this server second.
    pub fn goes_out(&mut self, from: &UserId, to: &UserId, now: u64) -> bool {
        while self.in_order.front().is_some_and(|(at, _)| at.saturating_add(TYPING_SECS) <= now)
            && let Some((_, pair)) = self.in_order.pop_front()
        {
            self.said.remove(&pair);
        }
        let pair = (from.clone(), to.clone());
        if self.said.len() >= TYPING_MAX || !self.said.insert(pair.clone()) {
            return false;
        }
        self.in_order.push_back((now, pair));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hint_in_three_seconds_goes_out_and_no_more_are_remembered_than_may_be() {
        let [alice, bob] = ["alice", "bob"].map(|name| UserId::parse(name).unwrap());
        let mut typing = Typing::default();
        assert!(typing.goes_out(&alice, &bob, 7) && typing.goes_out(&bob, &alice, 7));
        assert!(!typing.goes_out(&alice, &bob, 9));
        assert!(typing.goes_out(&alice, &bob, 10));
        for i in 0..TYPING_MAX {
            typing.goes_out(&UserId::parse(&format!("u{i}")).unwrap(), &bob, 10);
        }
        assert!(!typing.goes_out(&UserId::parse("late").unwrap(), &bob, 12));
        assert_eq!((typing.said.len(), typing.in_order.len()), (TYPING_MAX, TYPING_MAX));
        assert!(typing.goes_out(&UserId::parse("late").unwrap(), &bob, 13));
        assert_eq!((typing.said.len(), typing.in_order.len()), (1, 1));
    }
}
