-- min_compatible: 1
-- Customer sessions: short-lived credentials of one customer. A process of before knows no `cs_` tokens and refuses them all.

CREATE TABLE license.customer_session (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    customer_session_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    token_hash bytea NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mode, customer_session_id),
    -- A token finds its account, so it is of the whole deployment.
    CONSTRAINT customer_session_token UNIQUE (token_hash),
    CONSTRAINT customer_session_customer FOREIGN KEY (account_id, mode, customer_id)
        REFERENCES license.customer ON DELETE CASCADE
);
CREATE INDEX customer_session_by_customer ON license.customer_session (account_id, mode, customer_id, customer_session_id);
CREATE INDEX customer_session_expires_at ON license.customer_session (expires_at);

-- A session that ends is deleted. The worker sees those of all tenants whose time is over, and no other.
CALL record.isolate('license.customer_session', 'lictor_license');
CREATE POLICY sweep ON license.customer_session TO lictor_license_worker USING (expires_at < now());
CREATE POLICY facts ON license.customer_session FOR SELECT TO lictor_facts USING (true);
GRANT SELECT, INSERT, DELETE ON license.customer_session TO lictor_license;
GRANT SELECT, UPDATE, DELETE ON license.customer_session TO lictor_license_worker;
GRANT SELECT ON license.customer_session TO lictor_facts;
GRANT USAGE ON SCHEMA license TO lictor_license_worker;
GRANT INSERT ON record.change_log TO lictor_license_worker;

CALL record.watch('license.customer_session', 'customer_session', 'token_hash');

CREATE FUNCTION license.customer_session_facts(p_token_hashes bytea[])
RETURNS TABLE (account_id text, mode text, customer_session_id text, customer_id text, expires_at timestamptz)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT s.account_id, s.mode, s.customer_session_id, s.customer_id, s.expires_at
      FROM license.customer_session AS s WHERE s.token_hash = ANY (p_token_hashes);
END;
REVOKE EXECUTE ON FUNCTION license.customer_session_facts(bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license.customer_session_facts(bytea[]) TO lictor_facts;
