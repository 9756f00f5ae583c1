-- Version 11. What is known of a device beside its inbox: when it began and was last there, in Unix seconds (0: before that was kept), and
-- what its user calls it.
ALTER TABLE devices ADD COLUMN linked_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN seen_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN label TEXT;
