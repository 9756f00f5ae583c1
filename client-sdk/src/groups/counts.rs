//! How many members of a group have a message. Pure.

use natter_protocol::entry::Entry;

/// How many members have a message, of how many: those who are members now and were when it was sent, without its sender.
///
/// The server tells exact numbers up to 16 and at the end; between them it leaves some out in a large group.
///
/// ```no_run
/// # async fn example(mut events: natter_client::Events) -> Result<(), natter_client::Error> {
/// while let Some(event) = events.next().await {
///     if let natter_client::Event::Receipt(natter_client::Receipt { counts: Some(counts), n, .. }) = event {
///         println!("message {n}: {} of {} have it, {} have read it", counts.delivered_to, counts.of, counts.read_by);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counts {
    /// A device of so many has it.
    pub delivered_to: u64,
    /// So many have read it.
    pub read_by: u64,
    /// So many it is for.
    pub of: u64,
}

impl Counts {
    /// Of a receipt, if it counts.
    pub(crate) fn of_entry(entry: &Entry) -> Option<Self> {
        let number = |name: &str| entry.rest.get(name)?.as_u64();
        Some(Self { delivered_to: number("delivered_to")?, read_by: number("read_by")?, of: number("of")? })
    }

    /// Two ticks: every member has it. Nobody is not every member: what all others have left before stays at one tick.
    ///
    /// ```no_run
    /// # fn example(counts: natter_client::groups::Counts) {
    /// println!("{}", if counts.is_delivered() { "two ticks" } else { "one tick" });
    /// # }
    /// ```
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        self.of > 0 && self.delivered_to >= self.of
    }

    /// Blue ticks: every member has read it.
    ///
    /// ```no_run
    /// # fn example(counts: natter_client::groups::Counts) {
    /// println!("{}", if counts.is_read() { "blue" } else { "not by everybody" });
    /// # }
    /// ```
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.of > 0 && self.read_by >= self.of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_everybody_and_at_least_one() {
        let counts = |delivered_to, read_by, of| Counts { delivered_to, read_by, of };
        assert!(!counts(0, 0, 0).is_delivered() && !counts(0, 0, 0).is_read());
        assert!(!counts(1, 1, 2).is_delivered() && counts(2, 1, 2).is_delivered() && !counts(2, 1, 2).is_read());
        assert!(counts(2, 2, 2).is_read());
    }
}
