-- Version 3. What an account is beside its inbox: the hash of its password (a PHC string), and whether its user may not come in.
CREATE TABLE accounts (user TEXT PRIMARY KEY, password TEXT, disabled INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX accounts_disabled ON accounts (user) WHERE disabled = 1;

-- Devices whose entries are posted to a URL.
CREATE TABLE webhooks (
    user TEXT NOT NULL, device TEXT NOT NULL, url TEXT NOT NULL, verify_token TEXT NOT NULL, secret TEXT NOT NULL,
    PRIMARY KEY (user, device)
) WITHOUT ROWID;
