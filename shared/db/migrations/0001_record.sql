-- min_compatible: 1
-- The record: what every service appends to.

-- A random id that vanishes on a crash and on promotion, exactly when transaction ids may be used again.
CREATE UNLOGGED TABLE record.epoch (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO record.epoch DEFAULT VALUES;

-- Which facts changed, in the transaction that changed them.
CREATE TABLE record.change_log (
    revision bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX change_log_xid ON record.change_log (xid);

-- Logs one row per row changed: TG_ARGV is the kind, then the columns that make the key. An update that moves a row
-- from one key to another logs both. Hashes in keys are hex, whatever the session or the database is set to.
CREATE FUNCTION record.log_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog SET bytea_output = hex AS $$
DECLARE
    old_key text;
    new_key text;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        SELECT string_agg(to_jsonb(OLD) ->> c, '/' ORDER BY n) INTO old_key
          FROM unnest(TG_ARGV[1:]) WITH ORDINALITY AS a(c, n);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        SELECT string_agg(to_jsonb(NEW) ->> c, '/' ORDER BY n) INTO new_key
          FROM unnest(TG_ARGV[1:]) WITH ORDINALITY AS a(c, n);
    END IF;
    INSERT INTO record.change_log (kind, key)
    SELECT TG_ARGV[0], k FROM (SELECT old_key AS k UNION SELECT new_key) AS keys WHERE k IS NOT NULL;
    RETURN NULL;
END $$;

-- A TRUNCATE cannot be followed by key: everything is dropped.
CREATE FUNCTION record.log_truncate() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO record.change_log (kind, key) VALUES ('drop_all', TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME);
    RETURN NULL;
END $$;

-- Puts both triggers on a table that a fact function reads.
CREATE PROCEDURE record.watch(target regclass, kind text, VARIADIC columns text[]) LANGUAGE plpgsql AS $$
DECLARE
    arguments text := (SELECT string_agg(quote_literal(a), ', ') FROM unnest(kind || columns) AS a);
BEGIN
    EXECUTE format('CREATE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION record.log_change(%s)',
                   'log_change_' || kind, target, arguments);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', target, 'log_change_' || kind);
    EXECUTE format('CREATE TRIGGER %I AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION record.log_truncate()',
                   'log_truncate_' || kind, target);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', target, 'log_truncate_' || kind);
END $$;

-- Locks a tenant table: no row without the account and mode that the transaction has set.
CREATE PROCEDURE record.isolate(target regclass, VARIADIC roles text[]) LANGUAGE plpgsql AS $$
DECLARE
    who text := (SELECT string_agg(quote_ident(r), ', ') FROM unnest(roles) AS r);
    -- A setting that was local to a transaction is empty after it, not unset: empty is nobody.
    mine constant text := $q$account_id = nullif(current_setting('lictor.account_id', true), '') AND mode = current_setting('lictor.mode', true)$q$;
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
    EXECUTE format('CREATE POLICY tenant ON %s TO %s USING (%s) WITH CHECK (%s)', target, who, mine, mine);
END $$;

-- What happened: one row per event, in the transaction of the change.
CREATE TABLE record.event (
    account_id text COLLATE "C" NOT NULL CHECK (account_id <> ''),
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('TEST', 'LIVE')),
    event_id text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    subject_seq bigint NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    schema_version int NOT NULL,
    actor text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    data json NOT NULL,
    PRIMARY KEY (account_id, mode, event_id),
    UNIQUE (account_id, mode, subject, subject_seq)
);

-- The last sequence number of each subject: numbering is gapless since the row is locked until the event commits.
CREATE TABLE record.subject (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (account_id, mode, subject)
);

-- Events that nobody has fanned out yet.
CREATE TABLE record.outbox (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (account_id, mode, event_id)
);

-- Stored results of mutations, for 24 hours. Only a hash of the request id is kept; results with secrets are sealed under it.
CREATE TABLE record.request (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    method text COLLATE "C" NOT NULL,
    request_id_hash bytea NOT NULL,
    body_hash bytea NOT NULL,
    result bytea,
    sealed boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, mode, method, request_id_hash)
);
CREATE INDEX request_created_at ON record.request (created_at);

CALL record.isolate('record.event', 'lictor_license', 'lictor_entitlement', 'lictor_machine', 'lictor_webhook');
CALL record.isolate('record.subject', 'lictor_license', 'lictor_entitlement', 'lictor_machine');
CALL record.isolate('record.outbox', 'lictor_license', 'lictor_entitlement', 'lictor_machine', 'lictor_webhook');
CALL record.isolate('record.request', 'lictor_license', 'lictor_entitlement', 'lictor_machine', 'lictor_webhook');
CREATE POLICY sweep ON record.request TO lictor_license_worker USING (true);

GRANT USAGE ON SCHEMA record TO lictor_license, lictor_entitlement, lictor_machine, lictor_webhook, lictor_facts, lictor_license_worker;
GRANT SELECT ON record.migration, record.epoch TO lictor_license, lictor_entitlement, lictor_machine, lictor_webhook, lictor_facts,
    lictor_license_worker;
GRANT INSERT ON record.epoch TO lictor_facts;
GRANT INSERT ON record.change_log TO lictor_license, lictor_entitlement, lictor_machine, lictor_webhook;
GRANT SELECT ON record.change_log TO lictor_facts;
GRANT INSERT ON record.event, record.outbox TO lictor_license, lictor_entitlement, lictor_machine;
GRANT SELECT, INSERT, UPDATE ON record.subject TO lictor_license, lictor_entitlement, lictor_machine;
GRANT SELECT ON record.event TO lictor_webhook;
GRANT SELECT, DELETE ON record.outbox TO lictor_webhook;
GRANT SELECT, INSERT, UPDATE ON record.request TO lictor_license, lictor_entitlement, lictor_machine, lictor_webhook;
GRANT SELECT, UPDATE, DELETE ON record.request TO lictor_license_worker;
