-- Version 2. Positions in bytes beside those in entries, so that what a device lags behind is a difference; what a device skipped.
ALTER TABLE users ADD COLUMN last_offset INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN offset INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN offset INTEGER NOT NULL DEFAULT 0;
