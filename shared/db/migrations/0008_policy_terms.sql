-- min_compatible: 1
-- The whole terms of a policy: expiry and grace, renewal, check-ins, uses, scopes, and what a license may override.

ALTER TABLE license.policy
    ADD COLUMN expiration_strategy text COLLATE "C" NOT NULL DEFAULT 'RESTRICT_ACCESS'
        CHECK (expiration_strategy IN ('RESTRICT_ACCESS', 'REVOKE', 'MAINTAIN_ACCESS', 'ALLOW_ACCESS')),
    ADD COLUMN grace_period interval NOT NULL DEFAULT '0' CHECK (grace_period >= '0'),
    ADD COLUMN expiration_basis text COLLATE "C" NOT NULL DEFAULT 'FROM_CREATION'
        CHECK (expiration_basis IN ('FROM_CREATION', 'FROM_FIRST_VALIDATION', 'FROM_FIRST_USE')),
    ADD COLUMN renewal_basis text COLLATE "C" NOT NULL DEFAULT 'FROM_EXPIRY'
        CHECK (renewal_basis IN ('FROM_EXPIRY', 'FROM_NOW', 'FROM_NOW_IF_EXPIRED')),
    ADD COLUMN transfer_strategy text COLLATE "C" NOT NULL DEFAULT 'KEEP_EXPIRY'
        CHECK (transfer_strategy IN ('KEEP_EXPIRY', 'RESET_EXPIRY')),
    ADD COLUMN trial_duration interval CHECK (trial_duration > '0'),
    ADD COLUMN max_uses bigint CHECK (max_uses >= 1),
    ADD COLUMN uses_counted_by text COLLATE "C" NOT NULL DEFAULT 'EXPLICIT'
        CHECK (uses_counted_by IN ('EXPLICIT', 'VALIDATION')),
    ADD COLUMN overage_strategy text COLLATE "C" NOT NULL DEFAULT 'NO_OVERAGE'
        CHECK (overage_strategy IN ('NO_OVERAGE', 'ALLOW_1_25X', 'ALLOW_1_5X', 'ALLOW_2X', 'ALWAYS_ALLOW')),
    ADD COLUMN require_check_in boolean NOT NULL DEFAULT false,
    ADD COLUMN check_in_interval text COLLATE "C" CHECK (check_in_interval IN ('DAY', 'WEEK', 'MONTH', 'YEAR')),
    ADD COLUMN check_in_count int NOT NULL DEFAULT 1 CHECK (check_in_count BETWEEN 1 AND 365),
    -- Licenses from before check-ins were required count from then.
    ADD COLUMN check_in_since timestamptz,
    ADD COLUMN require_product_scope boolean NOT NULL DEFAULT false,
    ADD COLUMN require_policy_scope boolean NOT NULL DEFAULT false,
    ADD COLUMN require_user_scope boolean NOT NULL DEFAULT false,
    ADD COLUMN protected boolean NOT NULL DEFAULT false,
    ADD COLUMN authentication text COLLATE "C" NOT NULL DEFAULT 'LICENSE'
        CHECK (authentication IN ('LICENSE', 'TOKEN', 'MIXED', 'NONE')),
    ADD COLUMN overridable text[] NOT NULL DEFAULT '{}'
        CHECK (overridable <@ ARRAY['MAX_MACHINES', 'MAX_USES', 'OFFLINE_MAX_TTL']);

-- `expiry_anchored_at` is when a license's duration began to count; without it the license waits for a first validation or
-- use. `check_in_from` is what its next check-in counts from. A process of before makes licenses that are anchored.
ALTER TABLE license.license
    ADD COLUMN expiry_anchored_at timestamptz DEFAULT now(),
    ADD COLUMN check_in_from timestamptz,
    ADD COLUMN last_check_in_at timestamptz,
    ADD COLUMN max_machines_override int CHECK (max_machines_override >= 1),
    ADD COLUMN max_uses_override bigint CHECK (max_uses_override >= 1),
    ADD COLUMN offline_max_ttl_override interval CHECK (offline_max_ttl_override > '0');

-- What changes with every use and validation, and so is no part of any cached fact: read at the record, with no trigger.
CREATE TABLE license.license_usage (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    license_id text COLLATE "C" NOT NULL,
    uses bigint NOT NULL DEFAULT 0 CHECK (uses >= 0),
    first_validated_at timestamptz,
    last_validated_at timestamptz,
    PRIMARY KEY (account_id, mode, license_id),
    CONSTRAINT license_usage_license FOREIGN KEY (account_id, mode, license_id) REFERENCES license.license ON DELETE CASCADE
) WITH (fillfactor = 70);
CALL record.isolate('license.license_usage', 'lictor_license');
GRANT SELECT, INSERT, UPDATE ON license.license_usage TO lictor_license;
CREATE POLICY uses ON license.license_usage FOR SELECT TO lictor_facts USING (true);
GRANT SELECT ON license.license_usage TO lictor_facts;

CREATE FUNCTION license.license_uses(p_account_id text, p_mode text, p_license_id text)
RETURNS TABLE (uses bigint) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT u.uses FROM license.license_usage AS u
     WHERE u.account_id = p_account_id AND u.mode = p_mode AND u.license_id = p_license_id;
END;

CREATE POLICY facts ON license.product FOR SELECT TO lictor_facts USING (true);
GRANT SELECT ON license.product TO lictor_facts;
CALL record.watch('license.product', 'product', 'account_id', 'mode', 'product_id');

CREATE FUNCTION license.product_facts(p_account_id text, p_mode text, p_product_id text)
RETURNS TABLE (product_id text, code text) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT p.product_id, p.code FROM license.product AS p
     WHERE p.account_id = p_account_id AND p.mode = p_mode AND p.product_id = p_product_id;
END;

-- The columns of a function's rows cannot be changed in place. Processes of before go on: they name the columns they read.
DROP FUNCTION license.license_facts(text, text, text);
CREATE FUNCTION license.license_facts(p_account_id text, p_mode text, p_license_id text)
RETURNS TABLE (license_id text, product_id text, policy_id text, status text, starts_at timestamptz, expires_at timestamptz,
    tier_id text, customer_id text, created_at timestamptz, expiry_anchored_at timestamptz, check_in_from timestamptz,
    max_uses_override bigint)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT l.license_id, l.product_id, l.policy_id, l.status, l.starts_at, l.expires_at, l.tier_id, l.customer_id, l.created_at,
           l.expiry_anchored_at, l.check_in_from, l.max_uses_override
      FROM license.license AS l
     WHERE l.account_id = p_account_id AND l.mode = p_mode AND l.license_id = p_license_id;
END;

DROP FUNCTION license.policy_facts(text, text, text);
CREATE FUNCTION license.policy_facts(p_account_id text, p_mode text, p_policy_id text)
RETURNS TABLE (policy_id text, is_trial boolean, expiration_strategy text, grace_period interval, expiration_basis text,
    max_uses bigint, uses_counted_by text, require_check_in boolean, check_in_interval text, check_in_count int,
    check_in_since timestamptz, require_product_scope boolean, require_policy_scope boolean, require_user_scope boolean,
    authentication text, overridable text[])
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT p.policy_id, p.is_trial, p.expiration_strategy, p.grace_period, p.expiration_basis, p.max_uses, p.uses_counted_by,
           p.require_check_in, p.check_in_interval, p.check_in_count, p.check_in_since, p.require_product_scope,
           p.require_policy_scope, p.require_user_scope, p.authentication, p.overridable
      FROM license.policy AS p
     WHERE p.account_id = p_account_id AND p.mode = p_mode AND p.policy_id = p_policy_id;
END;

-- The email is compared, never shown: its hash is enough.
DROP FUNCTION license.customer_facts(text, text, text);
CREATE FUNCTION license.customer_facts(p_account_id text, p_mode text, p_customer_id text)
RETURNS TABLE (customer_id text, banned boolean, subject_ref text, email_hash bytea)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT c.customer_id, c.banned_at IS NOT NULL, c.subject_ref, sha256(convert_to(c.email, 'UTF8'))
      FROM license.customer AS c
     WHERE c.account_id = p_account_id AND c.mode = p_mode AND c.customer_id = p_customer_id;
END;

REVOKE EXECUTE ON FUNCTION license.license_uses(text, text, text), license.product_facts(text, text, text),
    license.license_facts(text, text, text), license.policy_facts(text, text, text), license.customer_facts(text, text, text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license.license_uses(text, text, text), license.product_facts(text, text, text),
    license.license_facts(text, text, text), license.policy_facts(text, text, text), license.customer_facts(text, text, text)
    TO lictor_facts;
