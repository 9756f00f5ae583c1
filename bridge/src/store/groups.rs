//! What groups ask of SQLite.

use natter_protocol::{MessageId, N, UserId};
use rusqlite::{Connection, params};

use super::StoreError;
use super::sqlite::{named, number, unsigned};
use crate::chat_key::ChatKey;

/// As [`Store::sent`](super::Store::sent).
pub(super) fn sent(
    connection: &Connection,
    chat: &ChatKey,
    (after, upto): (N, N),
    limit: usize,
) -> Result<Vec<(N, UserId, MessageId)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT n, sender, id FROM accepted WHERE chat = ?1 AND n > ?2 AND n <= ?3 ORDER BY n DESC LIMIT ?4",
    )?;
    let parameters = params![chat.as_str(), number(after), number(upto), number(limit as u64)];
    let mut rows = statement.query(parameters)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push((unsigned(row, 0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?));
    }
    all.into_iter()
        .rev()
        .map(|(n, sender, id)| Ok((n, named(&sender, UserId::parse)?, named(&id, MessageId::parse)?)))
        .collect()
}
