-- An older library that opens a newer file reads here which version it needs.
CREATE TABLE migration (
    version INTEGER PRIMARY KEY,
    needs_library TEXT NOT NULL
);

INSERT INTO migration (version, needs_library) VALUES (1, '0.1.0');

CREATE TABLE name (
    name_id INTEGER PRIMARY KEY,
    class_name TEXT NOT NULL,
    method_name TEXT NOT NULL,
    UNIQUE (class_name, method_name)
);

CREATE TABLE worker (
    worker_id INTEGER PRIMARY KEY AUTOINCREMENT,
    incarnation TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    process_started TEXT NOT NULL,
    lease_expires_at_ms INTEGER NOT NULL,
    names TEXT NOT NULL
);

CREATE TABLE flow (
    flow_key INTEGER PRIMARY KEY AUTOINCREMENT,
    flow_id TEXT NOT NULL UNIQUE,
    name_id INTEGER NOT NULL REFERENCES name (name_id),
    status INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    input TEXT NOT NULL,
    result TEXT,
    error TEXT,
    reason TEXT,
    owner INTEGER,
    idle INTEGER NOT NULL,
    due_at_ms INTEGER,
    pokes INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    lost_claims INTEGER NOT NULL,
    parent_key INTEGER,
    parent_step INTEGER,
    cancel_requested_at_ms INTEGER,
    cancel_event INTEGER,
    cancel_event_at_ms INTEGER,
    checksum INTEGER NOT NULL,
    outcome_checksum INTEGER
);

-- A worker claims free flows by name and due time; what waits for a signal, is owned or has ended is
-- not in it. Suspects of a crash loop are apart, so that many of them never hide the others.
CREATE INDEX flow_due ON flow (name_id, due_at_ms) WHERE due_at_ms IS NOT NULL AND owner IS NULL AND crashes < 2;
CREATE INDEX flow_suspect ON flow (owner, name_id, due_at_ms) WHERE crashes >= 2;
CREATE INDEX flow_owner ON flow (owner, due_at_ms) WHERE owner IS NOT NULL;
CREATE INDEX flow_parent ON flow (parent_key) WHERE parent_key IS NOT NULL;
-- Pages of flows are read backwards by key, which every index carries as its last column. Complete
-- flows are nearly all of them and need no entry of their own.
CREATE INDEX flow_status ON flow (status) WHERE status <> 1;
CREATE INDEX flow_name ON flow (name_id, status);

CREATE TABLE step (
    flow_key INTEGER NOT NULL,
    step INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    name_id INTEGER NOT NULL,
    status INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    asked INTEGER NOT NULL,
    started_at_ms INTEGER NOT NULL,
    ended_after_ms INTEGER,
    delay_ms INTEGER,
    due_at_ms INTEGER,
    event INTEGER,
    attempts_before INTEGER NOT NULL,
    parameters TEXT,
    return_value TEXT,
    error TEXT,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (flow_key, step)
) WITHOUT ROWID;

CREATE TABLE signal (
    signal_id INTEGER PRIMARY KEY AUTOINCREMENT,
    flow_id TEXT NOT NULL,
    name TEXT NOT NULL,
    payload TEXT NOT NULL,
    sent_at_ms INTEGER NOT NULL,
    rejected TEXT,
    checksum INTEGER NOT NULL
);

CREATE INDEX signal_flow ON signal (flow_id);

CREATE VIEW execution_log AS
SELECT
    flow.flow_id,
    0 AS step,
    flow.created_at_ms AS timestamp,
    name.class_name,
    name.method_name,
    NULL AS delay,
    CASE flow.status WHEN 1 THEN 'COMPLETE' WHEN 3 THEN 'FAILED' WHEN 4 THEN 'CANCELLED' ELSE 'PENDING' END AS status,
    1 AS attempts,
    flow.input AS parameters,
    flow.result AS return_value,
    flow.error
FROM flow
JOIN name USING (name_id)
UNION ALL
SELECT
    flow.flow_id,
    step.step,
    step.started_at_ms,
    name.class_name,
    name.method_name,
    step.delay_ms,
    CASE step.status WHEN 0 THEN 'PENDING' WHEN 1 THEN 'COMPLETE' WHEN 2 THEN 'WAITING_FOR_SIGNAL'
        WHEN 3 THEN 'FAILED' ELSE 'CANCELLED' END,
    step.attempts,
    step.parameters,
    step.return_value,
    step.error
FROM step
JOIN flow USING (flow_key)
JOIN name ON name.name_id = step.name_id;
