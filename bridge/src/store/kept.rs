//! Messages that stay readable beyond the inbox, in SQLite's tables.

use std::sync::Arc;

use natter_protocol::UserId;
use rusqlite::{Transaction, params};

use super::sqlite::{drop_body, number};
use super::{KEPT_MAX, StoreError};
use crate::change::Message;

pub(super) fn settle(t: &Transaction<'_>, kept: &[(UserId, Arc<Message>, u64)]) -> Result<(), StoreError> {
    let mut users = std::collections::BTreeSet::new();
    for (user, message, until) in kept {
        users.insert(user.as_str());
        t.prepare_cached("INSERT OR REPLACE INTO kept VALUES (?1, ?2, ?3, ?4)")?.execute(params![
            user.as_str(),
            message.chat.as_str(),
            number(message.n),
            number(*until)
        ])?;
    }
    for user in users {
        forget(
            t,
            "DELETE FROM kept WHERE (user, chat, n) IN
             (SELECT user, chat, n FROM kept WHERE user = ?1 ORDER BY until DESC, chat, n LIMIT -1 OFFSET ?2) RETURNING chat, n",
            params![user, number(KEPT_MAX as u64)],
        )?;
    }
    Ok(())
}

pub(super) fn forget(t: &Transaction<'_>, sql: &str, params: impl rusqlite::Params) -> Result<(), StoreError> {
    let mut statement = t.prepare_cached(sql)?;
    let rows = statement.query_map(params, |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
    for (chat, n) in rows.collect::<Result<Vec<_>, _>>()? {
        drop_body(t, &chat, n)?;
    }
    Ok(())
}
