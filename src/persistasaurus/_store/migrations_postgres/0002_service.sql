-- What a promotion leaves in its two stores. While the state is none of those that let everybody in, the triggers
-- on all tables are enabled. They refuse every write, also of processes that have opened the store before; but for
-- the promotion that fills it, which tells its token.
CREATE TABLE {schema}.service (
    id smallint PRIMARY KEY CHECK (id = 1),
    state text NOT NULL,
    place text NOT NULL,
    token text NOT NULL,
    message text NOT NULL
);

CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    mark {schema}.service;
BEGIN
    SELECT * INTO mark FROM {schema}.service;
    IF mark.state <> 'arriving' OR mark.token IS DISTINCT FROM current_setting('persistasaurus.promotion', true) THEN
        RAISE EXCEPTION '%', mark.message USING ERRCODE = 'PS003';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER out_of_service BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {schema}.name
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse();
ALTER TABLE {schema}.name DISABLE TRIGGER out_of_service;

CREATE TRIGGER out_of_service BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {schema}.flow
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse();
ALTER TABLE {schema}.flow DISABLE TRIGGER out_of_service;

CREATE TRIGGER out_of_service BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {schema}.step
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse();
ALTER TABLE {schema}.step DISABLE TRIGGER out_of_service;

CREATE TRIGGER out_of_service BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {schema}.signal
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse();
ALTER TABLE {schema}.signal DISABLE TRIGGER out_of_service;

CREATE TRIGGER out_of_service BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {schema}.worker
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse();
ALTER TABLE {schema}.worker DISABLE TRIGGER out_of_service;

INSERT INTO {schema}.migration (version, needs_library) VALUES (2, '0.1.0');
