-- min_compatible: 1
-- API keys for applications that are shipped to customers. A process of before knows no `pk_` keys and refuses them all.

ALTER TABLE license.api_key
    ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'SECRET' CHECK (kind IN ('SECRET', 'PUBLISHABLE'));

-- The columns of a function's rows cannot be changed in place. Processes of before go on: they name the columns they read.
DROP FUNCTION license.api_key_facts(bytea[]);
CREATE FUNCTION license.api_key_facts(p_key_hashes bytea[])
RETURNS TABLE (account_id text, mode text, api_key_id text, scopes text[], expires_at timestamptz, revoked boolean, kind text)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT k.account_id, k.mode, k.api_key_id, k.scopes, k.expires_at, k.revoked_at IS NOT NULL, k.kind
      FROM license.api_key AS k WHERE k.key_hash = ANY (p_key_hashes);
END;
REVOKE EXECUTE ON FUNCTION license.api_key_facts(bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license.api_key_facts(bytea[]) TO lictor_facts;
