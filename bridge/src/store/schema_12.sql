-- Version 12. Groups. Who is in one, and since which number, stands in `members`; what is sent with a file into a group may be fetched by whoever
-- is in it then and joined before that number.
ALTER TABLE members ADD COLUMN is_admin INTEGER NOT NULL DEFAULT 0;
CREATE INDEX members_in ON members (user, chat) WHERE chat > 'g:' AND chat < 'g;' AND left_n IS NULL;

CREATE TABLE groups (
    chat TEXT PRIMARY KEY, subject TEXT NOT NULL, description TEXT, created_by TEXT NOT NULL, created_at INTEGER NOT NULL, invite TEXT
) WITHOUT ROWID;
CREATE UNIQUE INDEX groups_invite ON groups (invite) WHERE invite IS NOT NULL;

CREATE TABLE media_groups (
    media TEXT NOT NULL, chat TEXT NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (media, chat, n)
) WITHOUT ROWID;
