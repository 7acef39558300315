-- What ended longest ago is found without a look at anything else. A flow that another one has called goes with
-- that one, and has no entry of its own.
CREATE INDEX flow_ended ON {schema}.flow (updated_at_ms, flow_key)
    WHERE status IN (1, 3, 4) AND parent_key IS NULL;

INSERT INTO {schema}.migration (version, needs_library) VALUES (3, '0.1.0');
