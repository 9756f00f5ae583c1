-- Version 6. Statuses, for as long as they are shown: the body lies in messages, and stays as long as its status. The audience is who was
-- given a place in his inbox, and which: sorted by name, the poster's own devices under his.
CREATE TABLE statuses (
    chat TEXT NOT NULL, n INTEGER NOT NULL, until INTEGER NOT NULL, media TEXT, audience BLOB NOT NULL,
    PRIMARY KEY (chat, n)
) WITHOUT ROWID;
CREATE INDEX statuses_until ON statuses (until);
CREATE INDEX statuses_media ON statuses (media) WHERE media IS NOT NULL;
