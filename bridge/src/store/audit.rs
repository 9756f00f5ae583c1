//! Is a store whole? SQLite's own check, and then what the rules rely on (ARCHITECTURE.md, "The store"). Reads only, also beside a server
//! that runs: each rule is one statement, or one read transaction, and so sees one state.

use std::collections::HashMap;
use std::path::Path;

use natter_protocol::{DeviceId, Seq, UserId};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior};

use super::mark::{self, Found, MARKED_LOG};
use super::sqlite::{newest_row, number};
use super::{StoreError, loss, migrate};
use crate::change::{self, Change, Item};

/// Findings a rule that are listed; of more only the number is said.
pub const LISTED_MAX: usize = 20;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, a line each; empty: nothing.
    pub findings: Vec<String>,
    /// How much was looked at.
    pub counts: Counts,
}

/// Rows of the tables, and bytes of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Users.
    pub users: u64,
    /// Devices.
    pub devices: u64,
    /// Inbox rows.
    pub entries: u64,
    /// Bodies.
    pub messages: u64,
    /// Dedupe rows.
    pub accepted: u64,
    /// Journal rows that are not settled.
    pub journal: u64,
    /// Bytes of the database and its WAL.
    pub bytes: u64,
}

/// A rule of the tables: its name, and a statement that yields the keys of rows that break it.
struct Rule {
    name: &'static str,
    since_version: i64,
    breaks: &'static str,
}

const RULES: [Rule; 29] = [
    Rule {
        name: "an inbox row points to a message or carries an item",
        since_version: 1,
        breaks: "SELECT user || '/' || seq FROM inbox WHERE (chat IS NULL) != (n IS NULL) OR (chat IS NULL) = (item IS NULL)",
    },
    Rule {
        name: "an inbox row's message is there",
        since_version: 1,
        breaks: "SELECT user || '/' || seq FROM inbox i WHERE chat IS NOT NULL AND n IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.chat = i.chat AND m.n = i.n)",
    },
    Rule {
        name: "somebody waits for a message, or may read it",
        since_version: 2,
        breaks: "SELECT chat || '/' || n FROM messages m
                 WHERE NOT EXISTS (SELECT 1 FROM inbox i WHERE i.chat = m.chat AND i.n = m.n)
                 AND NOT EXISTS (SELECT 1 FROM kept k WHERE k.chat = m.chat AND k.n = m.n)",
    },
    Rule {
        name: "a kept message is there",
        since_version: 2,
        breaks: "SELECT user || ' ' || chat || '/' || n FROM kept k
                 WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.chat = k.chat AND m.n = k.n)",
    },
    Rule {
        name: "an inbox row's position was given",
        since_version: 1,
        breaks: "SELECT user || '/' || seq FROM inbox i WHERE seq < 1
                 OR NOT EXISTS (SELECT 1 FROM users u WHERE u.name = i.user AND u.last_seq >= i.seq)",
    },
    Rule {
        name: "an inbox row's place in bytes was given",
        since_version: 2,
        breaks: "SELECT user || '/' || seq FROM inbox i WHERE offset < 0
                 OR EXISTS (SELECT 1 FROM users u WHERE u.name = i.user AND u.last_offset < i.offset)",
    },
    Rule {
        name: "what is settled of an inbox was given",
        since_version: 1,
        breaks: "SELECT name FROM users WHERE settled_seq > last_seq OR settled_seq < 0",
    },
    Rule {
        name: "a message's number was given",
        since_version: 1,
        breaks: "SELECT chat || '/' || n FROM messages m WHERE n < 1
                 OR NOT EXISTS (SELECT 1 FROM chats c WHERE c.chat = m.chat AND c.last_n >= m.n)",
    },
    Rule {
        name: "the number of a dedupe row was given",
        since_version: 1,
        breaks: "SELECT sender || '/' || id FROM accepted a WHERE n < 1
                 OR NOT EXISTS (SELECT 1 FROM chats c WHERE c.chat = a.chat AND c.last_n >= a.n)",
    },
    Rule {
        name: "a number is given once",
        since_version: 1,
        breaks: "SELECT chat || '/' || n FROM accepted GROUP BY chat, n HAVING count(*) > 1",
    },
    Rule {
        name: "a dedupe row has a hash of 16 bytes",
        since_version: 1,
        breaks: "SELECT sender || '/' || id FROM accepted WHERE length(hash) != 16 OR typeof(hash) != 'blob'",
    },
    Rule {
        name: "a member's marks lie within the chat",
        since_version: 1,
        breaks: "SELECT chat || ' ' || user FROM members m WHERE delivered_n < 0 OR read_n < 0
                 OR NOT EXISTS (SELECT 1 FROM chats c WHERE c.chat = m.chat AND c.last_n >= max(m.delivered_n, m.read_n))",
    },
    Rule {
        name: "what a member has read was delivered",
        since_version: 1,
        breaks: "SELECT chat || ' ' || user FROM members WHERE read_n > delivered_n",
    },
    Rule {
        name: "an account has its user and a password of a known form",
        since_version: 3,
        breaks: "SELECT user FROM accounts a WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.name = a.user)
                 OR password NOT GLOB '$argon2*$*$*$*' OR (password IS NULL AND disabled = 0)",
    },
    Rule {
        name: "a webhook has its user",
        since_version: 3,
        breaks: "SELECT user || '/' || device FROM webhooks w WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.name = w.user)",
    },
    Rule {
        name: "the file of a grant is there",
        since_version: 4,
        breaks: "SELECT g.media || ' ' || g.user FROM grants g WHERE NOT EXISTS (SELECT 1 FROM media m WHERE m.id = g.media)",
    },
    Rule {
        name: "the owner of a file may read it",
        since_version: 4,
        breaks: "SELECT m.id FROM media m WHERE NOT EXISTS (SELECT 1 FROM grants g WHERE g.media = m.id AND g.user = m.owner)",
    },
    Rule {
        name: "a file has a kind, a size and a sum of 32 bytes",
        since_version: 4,
        breaks: "SELECT id FROM media WHERE kind NOT BETWEEN 0 AND 4 OR size < 1 OR length(sha256) != 32 OR typeof(sha256) != 'blob'",
    },
    Rule {
        name: "a contact and who has him are users",
        since_version: 5,
        breaks: "SELECT user || ' ' || contact FROM contacts c WHERE user = contact
                 OR NOT EXISTS (SELECT 1 FROM users u WHERE u.name = c.user)
                 OR NOT EXISTS (SELECT 1 FROM users u WHERE u.name = c.contact)",
    },
    Rule {
        name: "somebody waits for a message, or may read it",
        since_version: 6,
        breaks: "SELECT chat || '/' || n FROM messages m
                 WHERE NOT EXISTS (SELECT 1 FROM inbox i WHERE i.chat = m.chat AND i.n = m.n)
                 AND NOT EXISTS (SELECT 1 FROM kept k WHERE k.chat = m.chat AND k.n = m.n)
                 AND NOT EXISTS (SELECT 1 FROM statuses s WHERE s.chat = m.chat AND s.n = m.n)",
    },
    Rule {
        name: "a status is its poster's and has its body",
        since_version: 6,
        breaks: "SELECT chat || '/' || n FROM statuses s WHERE typeof(audience) != 'blob'
                 OR NOT EXISTS (SELECT 1 FROM messages m WHERE m.chat = s.chat AND m.n = s.n AND s.chat = 's:' || m.sender)",
    },
    Rule {
        name: "a block and who is blocked are users",
        since_version: 8,
        breaks: "SELECT user || ' ' || other FROM blocks b WHERE user = other
                 OR NOT EXISTS (SELECT 1 FROM users u WHERE u.name = b.user)
                 OR NOT EXISTS (SELECT 1 FROM users u WHERE u.name = b.other)",
    },
    Rule {
        name: "what is hidden lies within the chat, no part of it twice",
        since_version: 8,
        breaks: "SELECT user || ' ' || chat || '/' || after FROM hidden h WHERE after < 0 OR after >= upto
                 OR NOT EXISTS (SELECT 1 FROM chats c WHERE c.chat = h.chat AND c.last_n >= h.upto)
                 OR EXISTS (SELECT 1 FROM hidden o WHERE o.user = h.user AND o.chat = h.chat
                            AND o.after > h.after AND o.after <= h.upto)",
    },
    Rule {
        name: "who was there last is a user",
        since_version: 9,
        breaks: "SELECT user FROM last_seen l WHERE typeof(at) != 'integer'
                 OR NOT EXISTS (SELECT 1 FROM users u WHERE u.name = l.user)",
    },
    Rule {
        name: "a rule of privacy is a user's and says something",
        since_version: 9,
        breaks: "SELECT user || ' ' || aspect FROM privacy p WHERE aspect NOT IN ('last_seen', 'online', 'status')
                 OR who NOT IN ('everyone', 'contacts', 'except', 'only', 'nobody')
                 OR NOT EXISTS (SELECT 1 FROM users u WHERE u.name = p.user)",
    },
    Rule {
        name: "a list of privacy has its rule",
        since_version: 9,
        breaks: "SELECT user || ' ' || aspect || ' ' || other FROM privacy_lists l
                 WHERE NOT EXISTS (SELECT 1 FROM privacy p WHERE p.user = l.user AND p.aspect = l.aspect
                                   AND p.who IN ('except', 'only'))",
    },
    Rule {
        name: "what is to fail unheard is hidden",
        since_version: 10,
        breaks: "SELECT user || ' ' || chat || '/' || n FROM unheard u WHERE at < 0 OR chat LIKE 's:%'
                 OR NOT EXISTS (SELECT 1 FROM hidden h WHERE h.user = u.user AND h.chat = u.chat AND h.after < u.n AND h.upto >= u.n)",
    },
    Rule {
        name: "what was said anew of a message came behind it, within the chat",
        since_version: 13,
        breaks: "SELECT chat || '/' || n FROM redacted r WHERE n < 1 OR by <= n OR until < 0 OR gone NOT IN (0, 1) OR chat LIKE 's:%'
                 OR NOT EXISTS (SELECT 1 FROM chats c WHERE c.chat = r.chat AND c.last_n >= r.by)",
    },
    Rule {
        name: "a device began and was there at a time, and has a short label",
        since_version: 11,
        breaks: "SELECT user || '/' || device FROM devices WHERE linked_at < 0 OR seen_at < 0 OR length(label) > 64",
    },
];

/// Checks the store at `path`. `quick` leaves out whether every index agrees with its table. `progress` is told what comes next.
///
/// # Errors
/// When there is nothing that can be checked: no file, no database, or one of a newer program.
pub fn audit(path: &Path, quick: bool, progress: &mut dyn FnMut(&str)) -> Result<Report, StoreError> {
    // The mark first: the journal only grows.
    let mark = mark::read(&mark::path_of(path));
    let mut connection = open_to_read(path)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    migrate::known(version)?;
    let mut audit = Audit { report: Report::default(), listed: 0, rule: "" };

    progress("the database's pages");
    audit.rule("the database's pages are sound");
    let pragma = format!("PRAGMA {}({LISTED_MAX})", if quick { "quick_check" } else { "integrity_check" });
    let sound = audit.each(&connection, &pragma, |text| text != "ok");
    audit.done(sound);

    audit.rule("the journal ends where the mark says");
    let ends = newest_row(&connection, MARKED_LOG).map(|newest| match mark {
        Ok(Found::Row(marked)) if marked > newest => {
            audit.found(&StoreError::Missing { newest, marked }.to_string());
        }
        Ok(Found::Row(_)) => {}
        Ok(Found::Missing) if newest == 0 => {}
        Ok(Found::Missing) => audit.found("there is no natter.mark: the next start makes one"),
        Ok(Found::Unreadable) => audit.found("natter.mark does not read: the next start makes a new one"),
        Err(error) => audit.found(&format!("natter.mark: {error}")),
    });
    audit.done(ends);

    progress("the database's indexes");
    audit.rule("the database's indexes can be read");
    let indexes = audit.indexes(&connection);
    audit.done(indexes);

    if version > 0 {
        for rule in RULES.iter().filter(|rule| is_in_force(rule, version)) {
            progress(rule.name);
            audit.rule(rule.name);
            let kept = audit.each(&connection, rule.breaks, |_| true);
            audit.done(kept);
        }
        progress("an inbox row's item reads");
        audit.rule("an inbox row's item reads");
        let items = audit.items(&connection);
        audit.done(items);
        progress("names and the journal");
        audit.rule("names, cursors and journal rows");
        let journal = audit.journal(&mut connection);
        audit.done(journal);
        progress("counting");
        audit.rule("rows can be counted");
        let counted = count(&connection, path).map(|counts| audit.report.counts = counts);
        audit.done(counted);
    }
    Ok(audit.report)
}

/// Whether a schema of that version keeps the rule: a newer rule of the same name stands in its place.
fn is_in_force(rule: &Rule, version: i64) -> bool {
    let is_known = |rule: &Rule| rule.since_version <= version;
    let is_replaced = RULES
        .iter()
        .any(|newer| newer.name == rule.name && newer.since_version > rule.since_version && is_known(newer));
    is_known(rule) && !is_replaced
}

/// A connection that changes nothing, not even by its end.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

struct Audit {
    report: Report,
    rule: &'static str,
    /// Findings of this rule.
    listed: usize,
}

impl Audit {
    fn rule(&mut self, name: &'static str) {
        (self.rule, self.listed) = (name, 0);
    }

    fn found(&mut self, what: &str) {
        self.listed += 1;
        if self.listed <= LISTED_MAX {
            self.report.findings.push(format!("{}: {what}", self.rule));
        }
    }

    /// The end of a rule; one that could not be looked at is a finding too.
    fn done(&mut self, outcome: Result<(), StoreError>) {
        if let Err(error) = outcome {
            self.report.findings.push(format!("{}: cannot be read: {error}", self.rule));
        }
        if self.listed > LISTED_MAX {
            self.report.findings.push(format!("{}: {} more", self.rule, self.listed - LISTED_MAX));
        }
    }

    /// Every text that the statement yields and `is_wrong` picks is a finding.
    fn each(&mut self, connection: &Connection, sql: &str, is_wrong: fn(&str) -> bool) -> Result<(), StoreError> {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text: Option<String> = row.get(0)?;
            let text = text.unwrap_or_else(|| "a row with an empty key".into());
            if is_wrong(&text) {
                self.found(&text);
            }
        }
        Ok(())
    }

    /// Reads the first of each index: SQLite's own check takes an empty one for sound whose root says that it has pages below.
    fn indexes(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection
            .prepare("SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        for row in rows {
            let (index, table, sql): (String, String, String) = row?;
            let only = sql.rsplit_once(" WHERE ").map_or(String::new(), |(_, only)| format!(" WHERE {only}"));
            let first = format!("SELECT 1 FROM \"{table}\" INDEXED BY \"{index}\"{only} LIMIT 1");
            if let Err(error) = connection.query_row(&first, [], |_| Ok(())).optional() {
                self.found(&format!("{index}: {error}"));
            }
        }
        Ok(())
    }

    fn items(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare("SELECT user, seq, item FROM inbox WHERE item IS NOT NULL")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Err(error) = postcard::from_bytes::<Item>(row.get_ref(2)?.as_blob().unwrap_or_default()) {
                self.found(&format!("{}/{}: {error}", row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
            }
        }
        Ok(())
    }

    /// The journal is dense and reads; and no cursor is beyond what tables and journal together have given.
    fn journal(&mut self, connection: &mut Connection) -> Result<(), StoreError> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        let mut newest: HashMap<UserId, Seq> = HashMap::new();
        let mut rows = transaction.prepare(
            "SELECT no, delta, coalesce((SELECT value FROM meta WHERE key = 'settled:' || ?1), 0) FROM journal
             WHERE log = ?1 ORDER BY place",
        )?;
        let mut rows = rows.query([MARKED_LOG])?;
        let mut before = None;
        while let Some(row) = rows.next()? {
            let no: i64 = row.get(0)?;
            let expected = before.map_or(row.get::<_, i64>(2)?, |no: i64| no) + 1;
            if no != expected {
                self.found(&format!("journal: expected row {expected}, got row {no}"));
            }
            before = Some(no);
            match change::decode(row.get_ref(1)?.as_blob().unwrap_or_default()) {
                Ok(changes) => changes.iter().for_each(|change| note_positions(change, &mut newest)),
                Err(error) => self.found(&format!("journal row {no}: {error}")),
            }
        }
        drop(rows);
        let first_seq = loss::first_seq(&transaction)?;
        let mut devices = transaction.prepare(
            "SELECT d.user, d.device, d.cursor, u.last_seq FROM devices d LEFT JOIN users u ON u.name = d.user",
        )?;
        let mut devices = devices.query([])?;
        while let Some(row) = devices.next()? {
            let (user, device): (String, String) = (row.get(0)?, row.get(1)?);
            let (cursor, last_seq): (i64, Option<i64>) = (row.get(2)?, row.get(3)?);
            let (Ok(user), Ok(device)) = (UserId::parse(&user), DeviceId::parse(&device)) else {
                self.found(&format!("device {user:?}/{device:?}: not a name"));
                continue;
            };
            let in_journal = newest.get(&user).copied().unwrap_or(first_seq);
            match last_seq {
                None => self.found(&format!("device {user}/{device}: its user is not there")),
                Some(last_seq) if cursor > last_seq.max(number(in_journal)) => {
                    self.found(&format!("device {user}/{device}: expected a cursor up to {last_seq}, got {cursor}"));
                }
                Some(_) if cursor < 0 => self.found(&format!("device {user}/{device}: a cursor of {cursor}")),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

fn note_positions(change: &Change, newest: &mut HashMap<UserId, Seq>) {
    let mut note = |user: &UserId, seq: Seq| {
        let known = newest.entry(user.clone()).or_default();
        *known = (*known).max(seq);
    };
    match change {
        Change::Message { places, .. } => places.iter().for_each(|place| note(&place.user, place.seq)),
        Change::Notice { user, seq, .. } => note(user, *seq),
        _ => {}
    }
}

fn count(connection: &Connection, path: &Path) -> Result<Counts, StoreError> {
    let count = |table: &str| -> Result<u64, StoreError> {
        let rows: i64 = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        Ok(u64::try_from(rows).unwrap_or(0))
    };
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    Ok(Counts {
        users: count("users")?,
        devices: count("devices")?,
        entries: count("inbox")?,
        messages: count("messages")?,
        accepted: count("accepted")?,
        journal: count("journal")?,
        bytes: bytes(path) + bytes(&super::sqlite::wal_of(path)),
    })
}
