-- min_compatible: 1
-- For how long validations may be answered from memory while the record is away, where a policy opts in.

ALTER TABLE license.policy ADD COLUMN stale_ok_for interval NOT NULL DEFAULT '0'
    CHECK (stale_ok_for BETWEEN interval '0' AND interval '24 hours');
CREATE INDEX policy_stale_ok ON license.policy (account_id) WHERE stale_ok_for > interval '0';

-- What a policy allowed before it was lowered or deleted: a process that has been cut off since goes by it for as long.
CREATE TABLE license.stale_span (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    stale_span_id bigint GENERATED ALWAYS AS IDENTITY,
    stale_ok_for interval NOT NULL,
    ends_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mode, stale_span_id)
);
CALL record.isolate('license.stale_span', 'lictor_license');
GRANT SELECT, INSERT, DELETE ON license.stale_span TO lictor_license;

-- By trigger, so that it holds for what is written by hand as well. The minute is for the rest of the transaction.
CREATE FUNCTION license.keep_stale_span() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    DELETE FROM license.stale_span AS s
     WHERE s.account_id = OLD.account_id AND s.mode = OLD.mode AND s.ends_at < clock_timestamp();
    INSERT INTO license.stale_span (account_id, mode, stale_ok_for, ends_at)
    VALUES (OLD.account_id, OLD.mode, OLD.stale_ok_for, clock_timestamp() + OLD.stale_ok_for + interval '1 minute');
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION license.keep_stale_span() FROM PUBLIC;
CREATE TRIGGER stale_span_of_lowered AFTER UPDATE ON license.policy FOR EACH ROW
    WHEN (NEW.stale_ok_for < OLD.stale_ok_for) EXECUTE FUNCTION license.keep_stale_span();
CREATE TRIGGER stale_span_of_deleted AFTER DELETE ON license.policy FOR EACH ROW
    WHEN (OLD.stale_ok_for > interval '0') EXECUTE FUNCTION license.keep_stale_span();

-- The longest of an account; of all accounts (no id begins with ~) where none is named. No fact: it is read after a commit, and kept nowhere.
CREATE FUNCTION license.longest_stale(p_account_id text) RETURNS TABLE (span interval) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT coalesce(max(found.span), interval '0') FROM (
        SELECT p.stale_ok_for AS span FROM license.policy AS p
         WHERE p.stale_ok_for > interval '0'
           AND p.account_id BETWEEN p_account_id AND coalesce(nullif(p_account_id, ''), '~')
        UNION ALL
        SELECT s.stale_ok_for FROM license.stale_span AS s
         WHERE s.ends_at > statement_timestamp()
           AND s.account_id BETWEEN p_account_id AND coalesce(nullif(p_account_id, ''), '~')
    ) AS found;
END;
REVOKE EXECUTE ON FUNCTION license.longest_stale(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license.longest_stale(text) TO lictor_facts;
GRANT SELECT ON license.stale_span TO lictor_facts;
CREATE POLICY facts ON license.stale_span FOR SELECT TO lictor_facts USING (true);

-- The columns of a function's rows cannot be changed in place. Processes of before go on: they name the columns they read.
DROP FUNCTION license.policy_facts(text, text, text);
CREATE FUNCTION license.policy_facts(p_account_id text, p_mode text, p_policy_id text)
RETURNS TABLE (policy_id text, is_trial boolean, expiration_strategy text, grace_period interval, expiration_basis text,
    max_uses bigint, uses_counted_by text, require_check_in boolean, check_in_interval text, check_in_count int,
    check_in_since timestamptz, require_product_scope boolean, require_policy_scope boolean, require_user_scope boolean,
    authentication text, overridable text[], stale_ok_for interval)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT p.policy_id, p.is_trial, p.expiration_strategy, p.grace_period, p.expiration_basis, p.max_uses, p.uses_counted_by,
           p.require_check_in, p.check_in_interval, p.check_in_count, p.check_in_since, p.require_product_scope,
           p.require_policy_scope, p.require_user_scope, p.authentication, p.overridable, p.stale_ok_for
      FROM license.policy AS p
     WHERE p.account_id = p_account_id AND p.mode = p_mode AND p.policy_id = p_policy_id;
END;
REVOKE EXECUTE ON FUNCTION license.policy_facts(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license.policy_facts(text, text, text) TO lictor_facts;
