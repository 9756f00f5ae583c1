//! Ticks in groups: what the senders of a group's messages are told when marks of its members rise, or members go. Pure.
//!
//! A member counts for message `n` if he is in the group, joined before it, did not send it, and it is not hidden from him. `of` is how many
//! those are; `delivered_to` and `read_by` are those of them whose mark is at `n` or above. Each of the three is a sum over half-open ranges
//! of numbers, one or two a member, so a sweep over the ends of those ranges and the messages gives all counts: nothing is done for each
//! member of each message.

use std::collections::HashMap;

use natter_protocol::{MessageId, N, UserId};

use crate::change::Tick;
use crate::hidden::Hidden;

/// Messages of a group that a batch looks at, the newest of those for which a mark rose. What is older is told by no entry: by
/// [`Ask::Receipts`](super::Ask::Receipts) alone.
pub const RISEN_MAX: usize = 4096;
/// Counts up to this one are told one by one; above it a count is told when one of its first four binary digits changes.
pub const EXACT_MAX: u32 = 16;

/// A member, as a batch found and as it left him.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Who.
    pub user: &'a UserId,
    /// The number behind which he joined.
    pub joined_n: N,
    /// What he never had.
    pub hidden: Option<&'a Hidden>,
    /// Before the batch; `None`: he was not in the group.
    pub before: Option<Marks>,
    /// After it; `None`: he is not in it any more.
    pub after: Option<Marks>,
}

/// A member's watermarks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// A device of his has had everything up to here.
    pub delivered_n: N,
    /// He has read everything up to here.
    pub read_n: N,
}

/// A message of the group, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its number.
    pub n: N,
    /// Who sent it.
    pub from: UserId,
    /// His name for it.
    pub id: MessageId,
}

/// How many members a message has reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those of whom a device has it.
    pub delivered_to: u32,
    /// Those who have read it.
    pub read_by: u32,
    /// All who may.
    pub of: u32,
}

/// What a sender is to be told: all of his messages with `after < n <= n` have these counts now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<'a> {
    /// Who is told.
    pub to: &'a UserId,
    /// Which of the two rose; `read` if both did.
    pub tick: Tick,
    /// From behind this number.
    pub after: N,
    /// Up to this one.
    pub n: N,
    /// The id of that one.
    pub id: &'a MessageId,
    /// The counts.
    pub counts: Counts,
}

/// What is told of a count: itself up to [`EXACT_MAX`], its first four binary digits above, and more than any other if it is all of `of`.
#[must_use]
pub fn step(count: u32, of: u32) -> u32 {
    if count >= of {
        return u32::MAX;
    }
    if count <= EXACT_MAX {
        return count;
    }
    let dropped = count.ilog2().saturating_sub(3);
    count >> dropped << dropped
}

/// The numbers that a batch must look at: those for which a mark rose, and for a member who went those for which he was awaited. `None`:
/// there are none. Both ends as in a receipt: `after < n <= upto`.
#[must_use]
pub fn range(standings: &[Standing<'_>], last_n: N) -> Option<(N, N)> {
    let mut all: Option<(N, N)> = None;
    for standing in standings {
        let Some(before) = standing.before else { continue };
        let risen = match standing.after {
            Some(after) => [(before.delivered_n, after.delivered_n), (before.read_n, after.read_n)],
            None => [(before.delivered_n, last_n), (before.read_n, last_n)],
        };
        for (from, to) in risen {
            let from = from.max(standing.joined_n);
            if from < to {
                all = Some(all.map_or((from, to), |(least, most)| (least.min(from), most.max(to))));
            }
        }
    }
    all
}

/// What senders are told, in order of numbers. `messages` are the group's with numbers in [`range`], in order; `standings` are all its members,
/// and those who went in this batch.
///
/// A message is told if a step of its counts rose. What is told beside it, to make one entry of many, is true as well.
#[must_use]
pub fn told<'a>(standings: &[Standing<'_>], messages: &'a [Sent]) -> Vec<Run<'a>> {
    let (Some(first), Some(last)) = (messages.first(), messages.last()) else { return Vec::new() };
    let within = (first.n, last.n);
    let mut before = Sweep::new(standings, |standing| standing.before, within);
    let mut after = Sweep::new(standings, |standing| standing.after, within);
    let by_name: HashMap<&UserId, &Standing<'_>> = standings.iter().map(|standing| (standing.user, standing)).collect();
    let mut runs: Vec<Run<'a>> = Vec::new();
    // Of each sender: his last message, and its run.
    let mut open: HashMap<&UserId, Option<usize>> = HashMap::new();
    for message in messages {
        let sender = by_name.get(&message.from);
        let was = before.at(message.n).without(sender, |standing| standing.before, message.n);
        let is = after.at(message.n).without(sender, |standing| standing.after, message.n);
        let tick = risen(was, is);
        let run = open.entry(&message.from).or_insert(None);
        let extended = run.and_then(|index| runs.get_mut(index)).filter(|run| run.counts == is);
        match (tick, extended) {
            (Some(tick), Some(run)) => {
                run.tick = run.tick.max(tick);
                run.n = message.n;
                run.id = &message.id;
            }
            // It says nothing new, and what may follow says the same of it as of itself.
            (None, Some(_)) => {}
            (Some(tick), None) => {
                *run = Some(runs.len());
                let Sent { n, from, id } = message;
                runs.push(Run { to: from, tick, after: n.saturating_sub(1), n: *n, id, counts: is });
            }
            (None, None) => *run = None,
        }
    }
    runs
}

/// Which tick rose by a step, if one did.
fn risen(was: Counts, is: Counts) -> Option<Tick> {
    if is.of == 0 {
        // Nobody is left to have it.
        return None;
    }
    if step(is.read_by, is.of) > step(was.read_by, was.of) {
        return Some(Tick::Read);
    }
    (step(is.delivered_to, is.of) > step(was.delivered_to, was.of)).then_some(Tick::Delivered)
}

/// The counts of one number.
#[must_use]
pub fn counts(standings: &[Standing<'_>], from: &UserId, n: N) -> Counts {
    let sender = standings.iter().find(|standing| standing.user == from);
    Sweep::new(standings, |standing| standing.after, (n, n)).at(n).without(
        sender.as_ref(),
        |standing| standing.after,
        n,
    )
}

impl Counts {
    /// As if the sender had no part in it.
    fn without(self, sender: Option<&&Standing<'_>>, marks: impl Fn(&Standing<'_>) -> Option<Marks>, n: N) -> Self {
        let Some((standing, marks)) = sender.and_then(|standing| Some((standing, marks(standing)?))) else {
            return self;
        };
        if !standing.may_have(n) {
            return self;
        }
        Self {
            delivered_to: self.delivered_to.saturating_sub(u32::from(marks.delivered_n >= n)),
            read_by: self.read_by.saturating_sub(u32::from(marks.read_n >= n)),
            of: self.of.saturating_sub(1),
        }
    }
}

impl Standing<'_> {
    /// Whether a message of that number is for him, as long as he is in the group.
    #[must_use]
    pub fn may_have(&self, n: N) -> bool {
        self.joined_n < n && self.hidden.is_none_or(|hidden| !hidden.has(n))
    }
}

/// The ends of ranges, in order, and the sums over those that were passed.
struct Sweep {
    /// Behind which number, and what of (`of`, delivered, read) begins (1) or ends (-1) there.
    ends: Vec<(N, [i32; 3])>,
    passed: usize,
    sums: [i32; 3],
}

impl Sweep {
    /// For numbers from `first` to `last`.
    fn new(standings: &[Standing<'_>], marks: impl Fn(&Standing<'_>) -> Option<Marks>, (first, last): (N, N)) -> Self {
        let mut ends = Vec::with_capacity(standings.len() * 2);
        let mut sums = [0; 3];
        // What lies before the first number is summed at once, and what lies behind the last one is of no interest.
        let mut end = |at: N, what: [i32; 3]| {
            if at < first {
                add(&mut sums, what);
            } else if at < last {
                ends.push((at, what));
            }
        };
        for standing in standings {
            let Some(marks) = marks(standing) else { continue };
            let joined = standing.joined_n;
            let (delivered, read) = (marks.delivered_n.max(joined), marks.read_n.max(joined));
            end(joined, [1, 1, 1]);
            end(delivered, [0, -1, 0]);
            end(read, [0, 0, -1]);
            for (from, to) in standing.hidden.map(Hidden::ranges).unwrap_or_default() {
                let from = (*from).max(joined);
                if from >= *to {
                    continue;
                }
                end(from, [-1, 0, 0]);
                end(*to, [1, 0, 0]);
                for (mark, what) in [(delivered, [0, 1, 0]), (read, [0, 0, 1])] {
                    if from < mark {
                        end(from, what.map(|part: i32| -part));
                        end(mark.min(*to), what);
                    }
                }
            }
        }
        ends.sort_unstable_by_key(|(at, _)| *at);
        Self { ends, passed: 0, sums }
    }

    /// The counts of a number, the sender's among them. Numbers come in order.
    fn at(&mut self, n: N) -> Counts {
        while let Some((_, what)) = self.ends.get(self.passed).filter(|(at, _)| *at < n) {
            add(&mut self.sums, *what);
            self.passed += 1;
        }
        let [of, delivered_to, read_by] = self.sums.map(|sum| u32::try_from(sum).unwrap_or(0));
        Counts { delivered_to, read_by, of }
    }
}

fn add(sums: &mut [i32; 3], what: [i32; 3]) {
    for (sum, part) in sums.iter_mut().zip(what) {
        *sum += part;
    }
}

#[cfg(test)]
#[path = "ticks_tests.rs"]
mod tests;
