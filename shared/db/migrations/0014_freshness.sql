-- min_compatible: 1
-- What the facts in a process's memory stand on: how long a lease is, and from which snapshots a new process may begin.

-- How long a process may answer from memory after it has asked for changes, in milliseconds. `UPDATE record.lease SET
-- l_ms = ...`, in a transaction of its own, changes it. For 60 seconds leases take the shorter of the two and waits the longer.
CREATE TABLE record.lease (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    l_ms int NOT NULL DEFAULT 250 CHECK (l_ms BETWEEN 10 AND 10000),
    previous_l_ms int NOT NULL DEFAULT 250 CHECK (previous_l_ms BETWEEN 10 AND 10000),
    changed_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO record.lease DEFAULT VALUES;

CREATE FUNCTION record.lease_changes() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF OLD.changed_at > clock_timestamp() - interval '60 s' THEN
        RAISE EXCEPTION 'the lease was changed less than 60 seconds ago; a process may not know yet'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    NEW.previous_l_ms := OLD.l_ms;
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER lease_changes BEFORE UPDATE ON record.lease FOR EACH ROW EXECUTE FUNCTION record.lease_changes();

-- A snapshot a minute. A process that starts takes one of some minutes ago as the base of its changes.
CREATE TABLE record.tail_base (
    base_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    epoch uuid NOT NULL,
    snapshot pg_snapshot NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX tail_base_at ON record.tail_base (at);

GRANT SELECT ON record.lease, record.tail_base TO lictor_facts;
GRANT SELECT, INSERT, DELETE ON record.tail_base TO lictor_license_worker;
GRANT SELECT, DELETE ON record.change_log TO lictor_license_worker;

-- Which of several hashes a key was found by. The columns of a function's rows cannot be changed in place. Processes of
-- before go on: they name the columns they read.
DROP FUNCTION license.license_key_facts(text, text, bytea[]);
CREATE FUNCTION license.license_key_facts(p_account_id text, p_mode text, p_key_hashes bytea[])
RETURNS TABLE (license_id text, expires_at timestamptz, key_hash bytea) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT k.license_id, k.expires_at, k.key_hash FROM license.license_key AS k
     WHERE k.account_id = p_account_id AND k.mode = p_mode AND k.key_hash = ANY (p_key_hashes)
       AND (k.expires_at IS NULL OR k.expires_at > statement_timestamp());
END;
REVOKE EXECUTE ON FUNCTION license.license_key_facts(text, text, bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license.license_key_facts(text, text, bytea[]) TO lictor_facts;

DROP FUNCTION license.api_key_facts(bytea[]);
CREATE FUNCTION license.api_key_facts(p_key_hashes bytea[])
RETURNS TABLE (account_id text, mode text, api_key_id text, scopes text[], expires_at timestamptz, revoked boolean, kind text,
    key_hash bytea)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT k.account_id, k.mode, k.api_key_id, k.scopes, k.expires_at, k.revoked_at IS NOT NULL, k.kind, k.key_hash
      FROM license.api_key AS k WHERE k.key_hash = ANY (p_key_hashes);
END;

DROP FUNCTION license.operator_key_facts(bytea[]);
CREATE FUNCTION license.operator_key_facts(p_key_hashes bytea[])
RETURNS TABLE (operator_key_id text, revoked boolean, key_hash bytea) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT k.operator_key_id, k.revoked_at IS NOT NULL, k.key_hash
      FROM license.operator_key AS k WHERE k.key_hash = ANY (p_key_hashes);
END;

DROP FUNCTION license.customer_session_facts(bytea[]);
CREATE FUNCTION license.customer_session_facts(p_token_hashes bytea[])
RETURNS TABLE (account_id text, mode text, customer_session_id text, customer_id text, expires_at timestamptz, token_hash bytea)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT s.account_id, s.mode, s.customer_session_id, s.customer_id, s.expires_at, s.token_hash
      FROM license.customer_session AS s WHERE s.token_hash = ANY (p_token_hashes);
END;
REVOKE EXECUTE ON FUNCTION license.api_key_facts(bytea[]), license.operator_key_facts(bytea[]),
    license.customer_session_facts(bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license.api_key_facts(bytea[]), license.operator_key_facts(bytea[]),
    license.customer_session_facts(bytea[]) TO lictor_facts;

-- A fact for each pattern: one binding that changes takes none of the others in its trust domain out of anybody's memory.
DROP TRIGGER log_change_workload ON license.workload_binding;
DROP TRIGGER log_truncate_workload ON license.workload_binding;
CALL record.watch('license.workload_binding', 'workload', 'trust_domain', 'path');
