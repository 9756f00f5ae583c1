-- Version 2. A body whose inbox row is gone and that stays readable until this server second: its entry went out as a stub.
CREATE TABLE kept (
    user TEXT NOT NULL, chat TEXT NOT NULL, n INTEGER NOT NULL, until INTEGER NOT NULL,
    PRIMARY KEY (user, chat, n)
) WITHOUT ROWID;
CREATE INDEX kept_message ON kept (chat, n);
