-- Version 13. What was said anew of a message: by which later one of its conversation (an edit or a deletion), whether nothing of it goes
-- out any more, and until which server second that is known.
CREATE TABLE redacted (
    chat TEXT NOT NULL, n INTEGER NOT NULL, by INTEGER NOT NULL, gone INTEGER NOT NULL, until INTEGER NOT NULL,
    PRIMARY KEY (chat, n)
) WITHOUT ROWID;
CREATE INDEX redacted_until ON redacted (until);
