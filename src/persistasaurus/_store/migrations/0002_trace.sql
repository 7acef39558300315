-- Where the start of a flow came from, so that a flow which goes on next week still links to it.
ALTER TABLE flow ADD COLUMN trace TEXT;

INSERT INTO migration (version, needs_library) VALUES (2, '0.1.0');
