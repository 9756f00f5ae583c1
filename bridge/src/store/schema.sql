-- Version 1. Names are keys: a user, a device or a conversation is its own name, so a row can be read without joins.
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- What is committed and not settled: one row a batch. The key is a compare-and-swap: who cannot write it does not own the log.
CREATE TABLE journal (log INTEGER NOT NULL, no INTEGER NOT NULL, delta BLOB NOT NULL, PRIMARY KEY (log, no)) WITHOUT ROWID;

CREATE TABLE users (name TEXT PRIMARY KEY, last_seq INTEGER NOT NULL, settled_seq INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE devices (
    user TEXT NOT NULL, device TEXT NOT NULL, cursor INTEGER NOT NULL, active_at INTEGER NOT NULL,
    PRIMARY KEY (user, device)
) WITHOUT ROWID;

CREATE TABLE chats (chat TEXT PRIMARY KEY, last_n INTEGER NOT NULL) WITHOUT ROWID;

-- A member joined behind joined_n and left at left_n; the two watermarks are the receipts.
CREATE TABLE members (
    chat TEXT NOT NULL, user TEXT NOT NULL, joined_n INTEGER NOT NULL, left_n INTEGER,
    delivered_n INTEGER NOT NULL, read_n INTEGER NOT NULL,
    PRIMARY KEY (chat, user)
) WITHOUT ROWID;

-- A body, once, as long as an inbox row points to it.
CREATE TABLE messages (
    chat TEXT NOT NULL, n INTEGER NOT NULL, sender TEXT NOT NULL, id TEXT NOT NULL, timestamp INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (chat, n)
) WITHOUT ROWID;

-- A row points to a message by (chat, n), or carries its own item.
CREATE TABLE inbox (
    user TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, only_device TEXT, except_device TEXT,
    chat TEXT, n INTEGER, item BLOB,
    PRIMARY KEY (user, seq)
) WITHOUT ROWID;
CREATE INDEX inbox_message ON inbox (chat, n) WHERE chat IS NOT NULL;

-- The first answer to (id, sender). The id comes first: an id alone can be looked up too, and ids made in order lie side by side.
CREATE TABLE accepted (
    id TEXT NOT NULL, sender TEXT NOT NULL, chat TEXT NOT NULL, n INTEGER NOT NULL, timestamp INTEGER NOT NULL, hash BLOB NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (id, sender)
) WITHOUT ROWID;
CREATE INDEX accepted_place ON accepted (chat, n);

CREATE TABLE sessions (
    user TEXT NOT NULL, client_id TEXT NOT NULL, device TEXT, expiry_secs INTEGER NOT NULL, gone_at INTEGER, held BLOB NOT NULL,
    PRIMARY KEY (user, client_id)
) WITHOUT ROWID;

CREATE TABLE grants (media TEXT NOT NULL, user TEXT NOT NULL, PRIMARY KEY (media, user)) WITHOUT ROWID;

-- kind: 0 a token by its jti, 1 a device's tokens issued before a time, 2 a user's.
CREATE TABLE revoked (
    user TEXT NOT NULL, kind INTEGER NOT NULL, subject TEXT NOT NULL, before INTEGER NOT NULL,
    PRIMARY KEY (user, kind, subject)
) WITHOUT ROWID;
