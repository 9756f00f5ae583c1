-- Version 4. Uploaded files, and who may read them. Grants gain what a search by name goes by; those made before were for files that
-- nobody could upload.
CREATE TABLE media (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, kind INTEGER NOT NULL, mime TEXT NOT NULL, sha256 BLOB NOT NULL, size INTEGER NOT NULL,
    name TEXT, made_at INTEGER NOT NULL, until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX media_owner ON media (owner, size);
CREATE INDEX media_until ON media (until);

DROP TABLE grants;
CREATE TABLE grants (
    media TEXT NOT NULL, user TEXT NOT NULL, name TEXT, made_at INTEGER NOT NULL,
    PRIMARY KEY (media, user)
) WITHOUT ROWID;
CREATE INDEX grants_name ON grants (user, name, made_at, media) WHERE name IS NOT NULL;
