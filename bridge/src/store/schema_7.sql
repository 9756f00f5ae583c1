-- Version 7. The journal in the order of its rowid: a row more is written at the end of one page. With a key of two columns a row took
-- three, since such a tree is balanced anew as it grows.
CREATE TABLE journal_by_place (
    log INTEGER NOT NULL, no INTEGER NOT NULL, delta BLOB NOT NULL,
    place INTEGER PRIMARY KEY CHECK (place = (log << 48 | no))
);
INSERT INTO journal_by_place SELECT log, no, delta, log << 48 | no FROM journal ORDER BY log, no;
DROP TABLE journal;
ALTER TABLE journal_by_place RENAME TO journal;
