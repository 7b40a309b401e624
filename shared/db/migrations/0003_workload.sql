-- min_compatible: 1
-- Workload bindings: callers without a key, known by the SPIFFE ID in their certificate.

-- The pattern is 'spiffe://' || trust_domain || path. A path that ends in '/*' covers all that goes on from there.
CREATE TABLE license.workload_binding (
    account_id text COLLATE "C" NOT NULL REFERENCES license.account,
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('TEST', 'LIVE')),
    workload_binding_id text COLLATE "C" NOT NULL,
    external_id text COLLATE "C",
    display_name text NOT NULL,
    trust_domain text COLLATE "C" NOT NULL CHECK (trust_domain ~ '^[a-z0-9._-]{1,255}$'),
    path text COLLATE "C" NOT NULL CHECK (path ~ '^(/[a-zA-Z0-9._-]+)*/([a-zA-Z0-9._-]+|[*])$'),
    scopes text[] NOT NULL CHECK (cardinality(scopes) > 0),
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mode, workload_binding_id),
    -- These three are of the whole deployment: the operator names a binding without its account, and a certificate
    -- finds the account in the first place.
    CONSTRAINT workload_binding_id UNIQUE (workload_binding_id),
    CONSTRAINT workload_binding_external_id UNIQUE (external_id),
    CONSTRAINT workload_binding_pattern UNIQUE (trust_domain, path)
);
CREATE INDEX workload_binding_by_account ON license.workload_binding (account_id, workload_binding_id);

-- Refuses a pattern that overlaps with one of another account, whoever writes it. Writers in one trust domain go one by
-- one until they end, and each looks after it has waited, which takes a snapshot of that moment and not an older one.
-- It looks as the operator, who sees the rows of every account.
CREATE FUNCTION license.refuse_overlap() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    caller constant text := current_setting('lictor.account_id', true);
    taken boolean;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'workload bindings are written in read committed transactions alone'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('lictor.workload_binding/' || NEW.trust_domain, 0));
    PERFORM set_config('lictor.account_id', 'operator', true);
    taken := EXISTS (
        SELECT FROM license.workload_binding AS b
         WHERE b.trust_domain = NEW.trust_domain AND b.account_id <> NEW.account_id
           AND b.workload_binding_id <> NEW.workload_binding_id
           AND (b.path = NEW.path
                OR right(b.path, 1) = '*' AND starts_with(NEW.path, left(b.path, -1))
                OR right(NEW.path, 1) = '*' AND starts_with(b.path, left(NEW.path, -1))));
    PERFORM set_config('lictor.account_id', coalesce(caller, ''), true);
    IF taken THEN
        RAISE EXCEPTION 'the pattern overlaps with one of another account'
            USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'workload_binding_overlap';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse_overlap BEFORE INSERT OR UPDATE OF account_id, trust_domain, path ON license.workload_binding
    FOR EACH ROW EXECUTE FUNCTION license.refuse_overlap();

-- Bindings are written inside their account and mode; an operator's transaction reads them all. The planner takes
-- coalesce(...) for half of the rows, and so reads a page in the order of its index; a bare `=` it takes for a few rows.
CALL record.isolate('license.workload_binding', 'lictor_license');
CREATE POLICY operator ON license.workload_binding FOR SELECT TO lictor_license
    USING (coalesce(current_setting('lictor.account_id', true) = 'operator', false));
CREATE POLICY facts ON license.workload_binding FOR SELECT TO lictor_facts USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON license.workload_binding TO lictor_license;
GRANT SELECT ON license.workload_binding TO lictor_facts;

CALL record.watch('license.workload_binding', 'workload', 'trust_domain');

CREATE FUNCTION license.workload_facts(p_trust_domain text)
RETURNS TABLE (account_id text, mode text, workload_binding_id text, path text, scopes text[])
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT b.account_id, b.mode, b.workload_binding_id, b.path, b.scopes FROM license.workload_binding AS b
     WHERE b.trust_domain = p_trust_domain;
END;

REVOKE EXECUTE ON FUNCTION license.refuse_overlap(), license.workload_facts(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license.workload_facts(text) TO lictor_facts;
