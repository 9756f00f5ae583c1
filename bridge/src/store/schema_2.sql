-- Version 2. Positions in bytes beside those in entries, so that what a device lags behind is a difference; what a device skipped;
-- and messages that stay readable for a user beyond the inbox, until a server second.
ALTER TABLE users ADD COLUMN last_offset INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN offset INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN offset INTEGER NOT NULL DEFAULT 0;
CREATE TABLE kept (
    user TEXT NOT NULL, chat TEXT NOT NULL, n INTEGER NOT NULL, until INTEGER NOT NULL,
    PRIMARY KEY (user, chat, n)
) WITHOUT ROWID;
CREATE INDEX kept_until ON kept (until);
CREATE INDEX kept_message ON kept (chat, n);
