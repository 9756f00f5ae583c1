//! How far a run is, on stderr: a bar on a terminal, else a line now and then.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Width of the bar, in characters.
const WIDTH: usize = 30;

/// What was told last.
pub(crate) struct Progress {
    start: Instant,
    told: Option<Instant>,
    terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), told: None, terminal: io::stderr().is_terminal() }
    }

    /// `part`: 0 to 1.
    pub(crate) fn tell(&mut self, part: f64, text: &str) -> io::Result<()> {
        let pause = Duration::from_millis(if self.terminal { 200 } else { 5000 });
        if self.told.unwrap_or(self.start).elapsed() < pause {
            return Ok(());
        }
        self.told = Some(Instant::now());
        let time = self.start.elapsed().as_secs();
        let percent = part.clamp(0.0, 1.0) * 100.0;
        if self.terminal {
            let full = WIDTH.min((part.clamp(0.0, 1.0) * WIDTH as f64) as usize);
            let (done, left) = ("#".repeat(full), ".".repeat(WIDTH - full));
            write!(io::stderr(), "\r[{done}{left}] {percent:3.0} % {time} s {text}\x1b[K")
        } else {
            writeln!(io::stderr(), "{percent:3.0} % {time} s {text}")
        }
    }

    /// Leaves a clean line.
    pub(crate) fn end(&self) -> io::Result<()> {
        if self.terminal && self.told.is_some() { write!(io::stderr(), "\r\x1b[K") } else { Ok(()) }
    }
}
