//! Credit: how much may be under way in one direction of the link, and how that is counted on both sides.

/// How much has passed one direction since the start: frames and bytes of payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credit {
    /// Frames.
    pub frames: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// Most frames unconfirmed in one direction. Half of what the router's log keeps of the smallest frames; see [`Window`].
pub const WINDOW_FRAMES: u64 = 8 * 1024;
/// Most bytes unconfirmed in one direction, not counting the reserve. The router keeps a multiple of it in memory, delivered or not.
pub const WINDOW_BYTES: u64 = 1024 * 1024;

/// How a side that sends keeps within what the router's log can hold: the log forgets by size, and a reader that falls behind skips
/// silently. Ordinary frames go out while less than one window is unconfirmed; acknowledgements have a second window in reserve, so that
/// what frees the other side is never stuck behind what fills it.
#[derive(Debug, Default)]
pub struct Window {
    sent: Credit,
    taken: Credit,
}

impl Window {
    /// Whether an ordinary frame may go.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.unconfirmed_frames() < WINDOW_FRAMES && self.unconfirmed_bytes() < WINDOW_BYTES
    }

    /// Whether an acknowledgement may go.
    #[must_use]
    pub fn is_open_in_reserve(&self) -> bool {
        self.unconfirmed_frames() < 2 * WINDOW_FRAMES && self.unconfirmed_bytes() < 2 * WINDOW_BYTES
    }

    /// Counts a frame of `bytes` that went out.
    pub fn sent(&mut self, bytes: usize) {
        self.sent.frames += 1;
        self.sent.bytes += bytes as u64;
    }

    /// The other side has taken in this much.
    pub fn confirmed(&mut self, taken: Credit) {
        // Confirmations are cumulative, so a repeated or late one changes nothing.
        self.taken.frames = self.taken.frames.max(taken.frames.min(self.sent.frames));
        self.taken.bytes = self.taken.bytes.max(taken.bytes.min(self.sent.bytes));
    }

    fn unconfirmed_frames(&self) -> u64 {
        self.sent.frames - self.taken.frames
    }

    fn unconfirmed_bytes(&self) -> u64 {
        self.sent.bytes - self.taken.bytes
    }
}

/// How a side that receives confirms: a little at a time, long before the window of the other side closes.
#[derive(Debug, Default)]
pub struct Intake {
    taken: Credit,
    confirmed: Credit,
}

impl Intake {
    /// Counts a frame of `bytes` that was taken in, and says what to confirm if it is time to.
    #[must_use]
    pub fn took(&mut self, bytes: usize) -> Option<Credit> {
        self.taken.frames += 1;
        self.taken.bytes += bytes as u64;
        let due = self.taken.frames - self.confirmed.frames >= WINDOW_FRAMES / 8
            || self.taken.bytes - self.confirmed.bytes >= WINDOW_BYTES / 8;
        due.then(|| {
            self.confirmed = self.taken;
            self.taken
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_closes_for_messages_before_it_closes_for_acknowledgements() {
        let (mut window, mut intake) = (Window::default(), Intake::default());
        let mut confirmations = 0;
        for _ in 0..WINDOW_FRAMES {
            assert!(window.is_open());
            window.sent(10);
        }
        assert!(!window.is_open() && window.is_open_in_reserve());
        for _ in 0..WINDOW_FRAMES {
            if let Some(taken) = intake.took(10) {
                confirmations += 1;
                window.confirmed(taken);
            }
        }
        assert_eq!(confirmations, 8);
        assert!(window.is_open());
        window.confirmed(Credit { frames: 1, bytes: 1 });
        assert!(window.is_open(), "a late confirmation takes nothing back");
    }
}
