//! What follows when a newer connection takes the device over: it may be an attempt of our own that was given up, and whose CONNECT was long
//! under way. Or it is another program with the name of this device, and the newer one of two programs is the one that stays.

/// A connection that was taken over within so many milliseconds may have been by an earlier attempt of our own; one that was there for longer
/// was not: networks and servers do not hold a CONNECT back for so long.
pub const GHOST_MS_MAX: u64 = 60_000;
/// How often in a row that is taken for our own; then it is another program. Two programs are taken over in turn, beginning with the older
/// one, so it is the older one that ends.
pub const TAKEOVERS_MAX: u32 = 3;

/// The takeovers of a client's connections.
///
/// ```
/// use natter_client::core::takeover::Takeovers;
///
/// let mut takeovers = Takeovers::default();
/// assert!(takeovers.ended(300, true), "it may have been our own");
/// assert!(!takeovers.ended(3_600_000, true), "it was not: this client ends");
/// ```
#[derive(Debug, Default, Clone)]
pub struct Takeovers {
    in_a_row: u32,
}

impl Takeovers {
    /// A connection has ended, so many milliseconds after it was begun. Returns whether another one is to be made.
    pub fn ended(&mut self, lived_ms: u64, taken_over: bool) -> bool {
        let was_long = lived_ms > GHOST_MS_MAX;
        if was_long {
            self.in_a_row = 0;
        }
        if taken_over {
            self.in_a_row += 1;
        }
        !taken_over || (!was_long && self.in_a_row <= TAKEOVERS_MAX)
    }
}
