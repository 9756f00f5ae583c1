-- Version 10. Hidden messages that fail one day as those do that nobody takes: of each member's chat the oldest of them, and the server
-- second since which it counts.
CREATE TABLE unheard (
    user TEXT NOT NULL, chat TEXT NOT NULL, n INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (user, chat)
) WITHOUT ROWID;
CREATE INDEX unheard_at ON unheard (at);
