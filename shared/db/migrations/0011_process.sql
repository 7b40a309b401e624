-- min_compatible: 1
-- Which processes serve, so that each takes its share of a rate, and what rates an account is held to.

-- One row per process that serves, kept fresh by the process itself. Nothing of a tenant's is in it.
CREATE TABLE record.process (
    process_id text COLLATE "C" PRIMARY KEY,
    target text COLLATE "C" NOT NULL CHECK (target IN ('license', 'entitlement', 'machine', 'webhook', 'all')),
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, DELETE ON record.process TO lictor_license, lictor_entitlement, lictor_machine, lictor_webhook;
GRANT UPDATE (seen_at) ON record.process TO lictor_license, lictor_entitlement, lictor_machine, lictor_webhook;

-- By the name of the limit: a whole number, 0 for none. What is not named has its default.
ALTER TABLE license.account ADD COLUMN limits jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(limits) = 'object');

-- The columns of a function's rows cannot be changed in place. Processes of before go on: they name the columns they read.
DROP FUNCTION license.account_facts(text);
CREATE FUNCTION license.account_facts(p_account_id text)
RETURNS TABLE (account_id text, status text, limits jsonb) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT a.account_id, a.status, a.limits FROM license.account AS a WHERE a.account_id = p_account_id;
END;
REVOKE EXECUTE ON FUNCTION license.account_facts(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license.account_facts(text) TO lictor_facts;
