//! Messages on disk: tables of our own in the file of the client's store, so that what arrives is written in the client's transaction.

use std::path::Path;

use anyhow::{Context as _, Result};
use natter_client::groups::GroupChange;
use natter_client::media::{MediaKind, MediaRef};
use natter_client::{BoxError, Event, IncomingMessage, Receipt, ReceiptKind};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Map, Value};

use super::groups::{self, COUNTS_MAX, Counts};
use super::model::{Body, ChatModel, LINES_MAX, Line, Msg, Presence, Tick};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS chat_lines(key INTEGER PRIMARY KEY, chat TEXT NOT NULL, sender TEXT NOT NULL, id TEXT NOT NULL, n INTEGER,
  at INTEGER NOT NULL, content TEXT NOT NULL, tick INTEGER, why TEXT, UNIQUE(chat, sender, id));
CREATE INDEX IF NOT EXISTS chat_lines_by_chat ON chat_lines(chat, key);
CREATE TABLE IF NOT EXISTS chat_read(chat TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chat_groups(chat TEXT PRIMARY KEY, subject TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chat_counts(key INTEGER PRIMARY KEY, chat TEXT NOT NULL, after INTEGER NOT NULL, n INTEGER NOT NULL,
  delivered_to INTEGER NOT NULL, read_by INTEGER NOT NULL, members INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS chat_counts_by_chat ON chat_counts(chat, key);";
/// Chats that are shown, the ones with the newest messages.
const CHATS_MAX: u32 = 500;

/// Opens the file and makes what is missing in it.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let open = || -> rusqlite::Result<Connection> {
        let db = Connection::open(path)?;
        db.busy_timeout(std::time::Duration::from_secs(10))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.execute_batch(SCHEMA)?;
        Ok(db)
    };
    open().with_context(|| path.display().to_string())
}

/// Everything that is shown.
pub(super) fn load(db: &Connection, user: &str) -> rusqlite::Result<Vec<ChatModel>> {
    let mut names = db.prepare("SELECT chat FROM chat_lines GROUP BY chat ORDER BY max(key) DESC LIMIT ?1")?;
    let names: Vec<String> = names.query_map([CHATS_MAX], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut query =
        db.prepare("SELECT sender,id,n,at,content,tick,why FROM chat_lines WHERE chat=?1 ORDER BY key DESC LIMIT ?2")?;
    let mut unread = db.prepare(
        "SELECT count(*) FROM chat_lines WHERE chat=?1 AND sender<>?2 AND json_extract(content,'$.type')<>'system'
           AND n > (SELECT ifnull(max(n),0) FROM chat_read WHERE chat=?1)",
    )?;
    let mut subject = db.prepare("SELECT subject FROM chat_groups WHERE chat=?1")?;
    let mut counts = db.prepare(
        "SELECT after,n,delivered_to,read_by,members FROM (SELECT * FROM chat_counts WHERE chat=?1 ORDER BY key DESC LIMIT ?2) ORDER BY key",
    )?;
    let mut chats = Vec::new();
    for name in names {
        let mut lines: Vec<Line> = query.query_map(params![name, LINES_MAX as i64], row)?.collect::<Result<_, _>>()?;
        lines.reverse();
        let unread: i64 = unread.query_row([&name, user], |row| row.get(0))?;
        let subject = subject.query_row([&name], |row| row.get(0)).optional()?;
        let counts = counts.query_map(params![name, COUNTS_MAX as i64], counts_row)?.collect::<Result<_, _>>()?;
        chats.push(ChatModel { name, lines, unread: unread.unsigned_abs(), subject, counts, ..ChatModel::default() });
    }
    Ok(chats)
}

fn counts_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(u64, u64, Counts)> {
    let number = |at| row.get(at).map(i64::unsigned_abs);
    Ok((number(0)?, number(1)?, Counts { delivered_to: number(2)?, read_by: number(3)?, of: number(4)? }))
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Line> {
    let content: String = row.get(4)?;
    let content: Map<String, Value> = serde_json::from_str(&content).unwrap_or_default();
    let tick: Option<i64> = row.get(5)?;
    let why: Option<String> = row.get(6)?;
    let tick = tick.map(|tick| match tick {
        0 => Tick::Waiting,
        1 => Tick::Sent,
        2 => Tick::Delivered,
        3 => Tick::Read,
        _ => Tick::Failed(why.unwrap_or_default()),
    });
    let (n, at): (Option<i64>, i64) = (row.get(2)?, row.get(3)?);
    let (n, at) = (n.map(i64::unsigned_abs), at.unsigned_abs());
    Ok(Line { from: row.get(0)?, id: row.get(1)?, n, at, body: body(&content), tick })
}

fn number(tick: &Tick) -> i64 {
    match tick {
        Tick::Waiting => 0,
        Tick::Sent => 1,
        Tick::Delivered => 2,
        Tick::Read => 3,
        Tick::Failed(_) => 4,
    }
}

/// What a message object, with its `type`, shows.
pub(super) fn body(content: &Map<String, Value>) -> Body {
    let kind = content.get("type").and_then(Value::as_str).unwrap_or("unsupported");
    if kind == "system" {
        return Body::System(content.get("words").and_then(Value::as_str).unwrap_or_default().to_owned());
    }
    let object = content.get(kind).unwrap_or(&Value::Null);
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind == "text" {
        return Body::Text(text("body"));
    }
    if let Some(file) = MediaKind::parse(kind).and_then(|kind| MediaRef::of_object(kind, object)) {
        let what = file.filename.clone().unwrap_or_else(|| kind.to_owned());
        return Body::File { what, caption: text("caption"), file };
    }
    Body::Other(match kind {
        "location" => format!("location {}, {} {}", object["latitude"], object["longitude"], text("name")),
        "reaction" if text("emoji").is_empty() => "took a reaction back".to_owned(),
        "reaction" => format!("reacted {}", text("emoji")),
        "contacts" => {
            let names = object.as_array().into_iter().flatten();
            let names = names.filter_map(|contact| contact["name"]["formatted_name"].as_str());
            format!("contacts: {}", names.collect::<Vec<_>>().join(", "))
        }
        other => format!("{other}: this terminal cannot show it"),
    })
}

/// Keeps what an event says, within the client's transaction; what there is to show of it.
///
/// # Errors
/// Of SQLite: the event comes again.
pub(super) fn keep(db: &Connection, user: &str, event: &Event) -> Result<Vec<Msg>, BoxError> {
    Ok(match event {
        Event::Message(message) => vec![keep_message(db, user, message)?],
        Event::Receipt(receipt) if receipt.recipient.as_deref() == Some(user) => {
            keep_read(db, &receipt.chat, receipt.n)?;
            vec![Msg::ReadElsewhere { chat: receipt.chat.clone(), n: receipt.n }]
        }
        Event::Receipt(receipt) if receipt.counts.is_some() => keep_counts(db, user, receipt)?,
        Event::Group(change) => keep_change(db, change)?,
        Event::Receipt(receipt) => {
            let tick = if receipt.kind == ReceiptKind::Read { Tick::Read } else { Tick::Delivered };
            vec![keep_upto(db, user, receipt, tick)?]
        }
        Event::Deleted(deleted) => {
            let from = deleted.from.as_deref().unwrap_or(user);
            db.execute(
                r#"UPDATE chat_lines SET content='{"type":"deleted"}' WHERE chat=?1 AND sender=?2 AND id=?3"#,
                [&deleted.chat, from, &deleted.id],
            )?;
            vec![Msg::Gone { chat: deleted.chat.clone(), id: deleted.id.clone() }]
        }
        Event::Failed(failed) => match &failed.id {
            Some(id) => {
                let tick = Tick::Failed(failed.error.to_string());
                keep_tick(db, id, None, &tick)?;
                vec![Msg::Tick { id: id.clone(), n: None, tick }]
            }
            None => vec![Msg::Notice(failed.error.to_string())],
        },
        Event::Gap(gap) => vec![Msg::Notice(format!("{} entries are gone ({})", gap.to - gap.from + 1, gap.reason))],
        // The same numbers come again for other messages.
        Event::BegunAnew => {
            db.execute_batch("UPDATE chat_lines SET n=NULL; DELETE FROM chat_read; DELETE FROM chat_counts")?;
            vec![Msg::Notice("the server's store is another one than before: its chats begin anew".into())]
        }
        Event::Typing(typing) => vec![Msg::Typing { chat: typing.chat.clone(), who: typing.from.clone() }],
        Event::Presence(presence) => {
            let how = if presence.available { Presence::Here } else { Presence::Away(presence.last_seen) };
            vec![Msg::Presence { who: presence.from.clone(), presence: how }]
        }
        _ => Vec::new(),
    })
}

/// Ticks of the own messages in a range.
fn keep_upto(db: &Connection, user: &str, receipt: &Receipt, tick: Tick) -> rusqlite::Result<Msg> {
    db.execute(
        "UPDATE chat_lines SET tick=?5 WHERE chat=?1 AND sender=?2 AND n>?3 AND n<=?4 AND tick<?5",
        params![receipt.chat, user, signed(receipt.after), signed(receipt.n), number(&tick)],
    )?;
    Ok(Msg::Upto { chat: receipt.chat.clone(), after: receipt.after, n: receipt.n, tick })
}

/// How many members of a group have the own messages in a range, and the ticks that follow from it.
fn keep_counts(db: &Connection, user: &str, receipt: &Receipt) -> rusqlite::Result<Vec<Msg>> {
    let Receipt { chat, after, n, counts: Some(told), .. } = receipt else { return Ok(Vec::new()) };
    let counts = Counts::from(*told);
    let (first, last) = (signed(*after), signed(*n));
    db.execute("DELETE FROM chat_counts WHERE chat=?1 AND after>=?2 AND n<=?3", params![chat, first, last])?;
    db.execute(
        "INSERT INTO chat_counts(chat,after,n,delivered_to,read_by,members) VALUES(?1,?2,?3,?4,?5,?6)",
        params![chat, first, last, signed(counts.delivered_to), signed(counts.read_by), signed(counts.of)],
    )?;
    let mut msgs = vec![Msg::Counts { chat: chat.clone(), after: *after, n: *n, counts }];
    let tick = match (told.is_read(), told.is_delivered()) {
        (true, _) => Some(Tick::Read),
        (false, true) => Some(Tick::Delivered),
        (false, false) => None,
    };
    if let Some(tick) = tick {
        msgs.push(keep_upto(db, user, receipt, tick)?);
    }
    Ok(msgs)
}

/// A change of a group is a line of its chat.
fn keep_change(db: &Connection, change: &GroupChange) -> rusqlite::Result<Vec<Msg>> {
    let words = groups::words(&change.by, &change.what);
    let (chat, id) = (change.chat.clone(), change.id.clone().unwrap_or_else(|| format!("n{}", change.n)));
    let (from, n, at) = (change.by.clone(), Some(change.n), change.timestamp);
    let line = Line { id, from, n, at, body: Body::System(words.clone()), tick: None };
    insert(db, &chat, &line, &serde_json::json!({"type": "system", "words": words}))?;
    let mut msgs = vec![Msg::Line { chat: chat.clone(), line: Box::new(line) }];
    if let Some(subject) = change.what.subject() {
        let query = "INSERT INTO chat_groups VALUES(?1,?2) ON CONFLICT(chat) DO UPDATE SET subject=excluded.subject";
        db.execute(query, [&chat, subject])?;
        msgs.push(Msg::Subject { chat, subject: subject.to_owned() });
    }
    Ok(msgs)
}

fn keep_message(db: &Connection, user: &str, message: &IncomingMessage) -> rusqlite::Result<Msg> {
    let mut content = message.content.clone();
    content.insert("type".into(), message.kind.clone().into());
    // Sent from another device of this user: the server has it.
    let tick = (message.from == user).then_some(Tick::Sent);
    let line = Line {
        id: message.id.clone(),
        from: message.from.clone(),
        n: Some(message.n),
        at: message.timestamp,
        body: body(&content),
        tick,
    };
    insert(db, &message.chat, &line, &Value::Object(content))?;
    Ok(Msg::Line { chat: message.chat.clone(), line: Box::new(line) })
}

/// Keeps a message; one that is there stays as it is.
pub(super) fn insert(db: &Connection, chat: &str, line: &Line, content: &Value) -> rusqlite::Result<()> {
    let Line { id, from, n, at, tick, body: _ } = line;
    db.execute(
        "INSERT INTO chat_lines(chat,sender,id,n,at,content,tick) VALUES(?1,?2,?3,?4,?5,?6,?7) ON CONFLICT DO NOTHING",
        params![chat, from, id, n.map(signed), signed(*at), content.to_string(), tick.as_ref().map(number)],
    )?;
    Ok(())
}

/// Keeps how far an own message is; ticks only rise.
pub(super) fn keep_tick(db: &Connection, id: &str, n: Option<u64>, tick: &Tick) -> rusqlite::Result<()> {
    let why = if let Tick::Failed(why) = tick { Some(why) } else { None };
    db.execute(
        "UPDATE chat_lines SET n=ifnull(n,?2), tick=max(tick,?3), why=ifnull(?4,why) WHERE id=?1 AND tick IS NOT NULL",
        params![id, n.map(signed), number(tick), why],
    )?;
    Ok(())
}

/// Keeps how far a chat is read.
pub(super) fn keep_read(db: &Connection, chat: &str, n: u64) -> rusqlite::Result<()> {
    let query = "INSERT INTO chat_read VALUES(?1,?2) ON CONFLICT(chat) DO UPDATE SET n=max(n,excluded.n)";
    db.execute(query, params![chat, signed(n)]).map(|_| ())
}

/// The own messages that are not read yet, oldest first: id, chat, content, and whether no server has them as far as is known.
pub(super) fn open_ones(db: &Connection) -> rusqlite::Result<Vec<(String, String, Value, bool)>> {
    let query = "SELECT id,chat,content,tick FROM (SELECT * FROM chat_lines WHERE tick<3 ORDER BY key DESC LIMIT ?1) ORDER BY key";
    let mut query = db.prepare(query)?;
    let rows = query.query_map([LINES_MAX as i64], |row| {
        let (content, tick): (String, i64) = (row.get(2)?, row.get(3)?);
        Ok((row.get(0)?, row.get(1)?, serde_json::from_str(&content).unwrap_or(Value::Null), tick == 0))
    })?;
    rows.collect()
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(id: &str, n: Option<u64>, tick: Option<Tick>) -> Line {
        let from = if tick.is_some() { "alice" } else { "bob" };
        Line { id: id.into(), from: from.into(), n, at: 5, body: Body::Text("hi".into()), tick }
    }

    #[test]
    fn what_is_kept_is_loaded_and_ticks_only_rise() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(&dir.path().join("chat.db")).unwrap();
        let text = json!({"type": "text", "text": {"body": "hi"}});
        insert(&db, "bob", &line("a1", None, Some(Tick::Waiting)), &text).unwrap();
        insert(&db, "bob", &line("b1", Some(2), None), &text).unwrap();
        insert(&db, "bob", &line("b1", Some(2), None), &text).unwrap();
        insert(&db, "bob", &line("b2", Some(3), None), &text).unwrap();
        assert_eq!(open_ones(&db).unwrap(), [("a1".into(), "bob".into(), text, true)]);
        keep_tick(&db, "a1", Some(1), &Tick::Delivered).unwrap();
        keep_tick(&db, "a1", None, &Tick::Sent).unwrap();
        keep_tick(&db, "b1", None, &Tick::Read).unwrap();
        keep_read(&db, "bob", 2).unwrap();
        keep_read(&db, "bob", 1).unwrap();
        drop(db);
        let db = open(&dir.path().join("chat.db")).unwrap();
        let chats = load(&db, "alice").unwrap();
        assert_eq!((chats.len(), chats[0].name.as_str(), chats[0].unread), (1, "bob", 1));
        let expected =
            [line("a1", Some(1), Some(Tick::Delivered)), line("b1", Some(2), None), line("b2", Some(3), None)];
        assert_eq!(chats[0].lines, expected);
        assert_eq!(open_ones(&db).unwrap().len(), 1);
        keep_tick(&db, "a1", None, &Tick::Failed("late".into())).unwrap();
        assert_eq!(load(&db, "alice").unwrap()[0].lines[0].tick, Some(Tick::Failed("late".into())));
    }

    #[test]
    fn every_type_shows_something() {
        let shown = |content: Value| body(content.as_object().unwrap());
        let file = shown(
            json!({"type": "document", "document": {"id": "1234567890123456", "filename": "a.txt", "file_size": 5}}),
        );
        assert!(matches!(file, Body::File { what, file, .. } if what == "a.txt" && file.file_size == Some(5)));
        assert_eq!(shown(json!({"type": "reaction", "reaction": {"emoji": "👍"}})), Body::Other("reacted 👍".into()));
        let contacts = json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "Ann"}}]});
        assert_eq!(shown(contacts), Body::Other("contacts: Ann".into()));
        assert!(matches!(shown(json!({"type": "image", "image": {}})), Body::Other(_)));
        assert!(matches!(shown(json!({})), Body::Other(_)));
    }
}
