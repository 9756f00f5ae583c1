-- Version 5. Whom a user has as contacts, by the name he gives them.
CREATE TABLE contacts (
    user TEXT NOT NULL, contact TEXT NOT NULL, name TEXT, since INTEGER NOT NULL,
    PRIMARY KEY (user, contact)
) WITHOUT ROWID;
