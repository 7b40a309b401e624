-- min_compatible: 1
-- Customers can be banned, and with them all their licenses. A process of before does not look at bans.

ALTER TABLE license.customer
    ADD COLUMN banned_at timestamptz,
    ADD COLUMN ban_reason text NOT NULL DEFAULT '',
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}';
CREATE INDEX customer_banned ON license.customer (account_id, mode, customer_id) WHERE banned_at IS NOT NULL;

CREATE POLICY facts ON license.customer FOR SELECT TO lictor_facts USING (true);
GRANT SELECT ON license.customer TO lictor_facts;
CALL record.watch('license.customer', 'customer', 'account_id', 'mode', 'customer_id');

CREATE FUNCTION license.customer_facts(p_account_id text, p_mode text, p_customer_id text)
RETURNS TABLE (customer_id text, banned boolean) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT c.customer_id, c.banned_at IS NOT NULL FROM license.customer AS c
     WHERE c.account_id = p_account_id AND c.mode = p_mode AND c.customer_id = p_customer_id;
END;

-- The columns of a function's rows cannot be changed in place. Processes of before go on: they name the columns they read.
DROP FUNCTION license.license_facts(text, text, text);
CREATE FUNCTION license.license_facts(p_account_id text, p_mode text, p_license_id text)
RETURNS TABLE (license_id text, product_id text, policy_id text, status text, starts_at timestamptz, expires_at timestamptz,
    tier_id text, customer_id text)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT l.license_id, l.product_id, l.policy_id, l.status, l.starts_at, l.expires_at, l.tier_id, l.customer_id
      FROM license.license AS l
     WHERE l.account_id = p_account_id AND l.mode = p_mode AND l.license_id = p_license_id;
END;

REVOKE EXECUTE ON FUNCTION license.customer_facts(text, text, text), license.license_facts(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license.customer_facts(text, text, text), license.license_facts(text, text, text) TO lictor_facts;
