-- min_compatible: 1
-- License keys that end: a license has one key without an end, its current one, and those that it replaced.

ALTER TABLE license.license_key ADD COLUMN expires_at timestamptz;
CREATE UNIQUE INDEX license_key_current ON license.license_key (account_id, mode, license_id) WHERE expires_at IS NULL;

-- A key that has ended is left out here, so that a process of the version before, which reads no end, refuses it too.
DROP FUNCTION license.license_key_facts(text, text, bytea[]);
CREATE FUNCTION license.license_key_facts(p_account_id text, p_mode text, p_key_hashes bytea[])
RETURNS TABLE (license_id text, expires_at timestamptz) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT k.license_id, k.expires_at FROM license.license_key AS k
     WHERE k.account_id = p_account_id AND k.mode = p_mode AND k.key_hash = ANY (p_key_hashes)
       AND (k.expires_at IS NULL OR k.expires_at > statement_timestamp());
END;
REVOKE EXECUTE ON FUNCTION license.license_key_facts(text, text, bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license.license_key_facts(text, text, bytea[]) TO lictor_facts;
