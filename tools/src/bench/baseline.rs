//! What SQLite alone can read here: the entries of a backlog, user by user, each with its message, by one statement that does nothing else.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use rusqlite::{Connection, OpenFlags};

use super::target::Target;

/// Reads the `entries` that are stored in the target's database; how many a second. The first reading warms the cache of the disk, as the
/// server's own writes have.
pub(crate) fn read(target: &Target, entries: u64) -> Result<f64> {
    let path = target.data.join("natter.db");
    let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| path.display().to_string())?;
    let mut statement = db.prepare(
        "SELECT i.seq, m.sender, m.id, m.timestamp, m.body FROM inbox i JOIN messages m ON m.chat = i.chat AND m.n = i.n ORDER BY i.user, i.seq",
    )?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let (start, mut read, mut bytes) = (Instant::now(), 0_u64, 0);
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            bytes += row.get_ref(4)?.as_bytes()?.len() + row.get_ref(2)?.as_bytes()?.len();
            read += 1;
        }
        if read < entries || bytes == 0 {
            bail!("{}: expected {entries} settled entries, got {read}", path.display());
        }
        best = best.min(start.elapsed().as_secs_f64() / read as f64);
    }
    Ok((1.0 / best.max(1e-12)).round())
}
