-- What a promotion leaves in its two stores. While the state is none of those that let everybody in, triggers on
-- all tables refuse every write, also of processes that have opened the file before.
CREATE TABLE service (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    state TEXT NOT NULL,
    place TEXT NOT NULL,
    token TEXT NOT NULL
);

INSERT INTO migration (version, needs_library) VALUES (3, '0.1.0');
