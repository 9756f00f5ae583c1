-- Version 9. When users were there last, in Unix seconds; and who sees what of them, where it is not the default, with the lists of
-- `except` and `only`.
CREATE TABLE last_seen (user TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE privacy (
    user TEXT NOT NULL, aspect TEXT NOT NULL, who TEXT NOT NULL,
    PRIMARY KEY (user, aspect)
) WITHOUT ROWID;
CREATE TABLE privacy_lists (
    user TEXT NOT NULL, aspect TEXT NOT NULL, other TEXT NOT NULL,
    PRIMARY KEY (user, aspect, other)
) WITHOUT ROWID;
