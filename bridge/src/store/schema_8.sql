-- Version 8. Who has blocked whom, since which Unix second; and what members of conversations never had: `after < n <= upto`, as long as
-- the conversation, since no receipt may ever cover it.
CREATE TABLE blocks (
    user TEXT NOT NULL, other TEXT NOT NULL, since INTEGER NOT NULL,
    PRIMARY KEY (user, other)
) WITHOUT ROWID;
CREATE TABLE hidden (
    user TEXT NOT NULL, chat TEXT NOT NULL, after INTEGER NOT NULL, upto INTEGER NOT NULL,
    PRIMARY KEY (user, chat, after)
) WITHOUT ROWID;
CREATE INDEX hidden_chat ON hidden (chat);
