-- min_compatible: 1
-- The license service: accounts, API keys, products, policies, customers, licenses.

CREATE TABLE license.account (
    account_id text COLLATE "C" PRIMARY KEY CHECK (account_id NOT IN ('', 'operator')),
    external_id text COLLATE "C",
    display_name text NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('active', 'suspended')),
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT account_external_id UNIQUE (external_id)
);

-- Operator keys are made by `lictor keys bootstrap` alone; no API role can see them.
CREATE TABLE license.operator_key (
    operator_key_id text COLLATE "C" PRIMARY KEY,
    key_hash bytea NOT NULL UNIQUE,
    display_name text NOT NULL,
    hint text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

CREATE TABLE license.api_key (
    account_id text COLLATE "C" NOT NULL REFERENCES license.account,
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('TEST', 'LIVE')),
    api_key_id text COLLATE "C" NOT NULL,
    key_hash bytea NOT NULL,
    external_id text COLLATE "C",
    display_name text NOT NULL,
    scopes text[] NOT NULL,
    hint text NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    replaced_by_id text COLLATE "C",
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mode, api_key_id),
    CONSTRAINT api_key_hash UNIQUE (key_hash),
    CONSTRAINT api_key_external_id UNIQUE (account_id, mode, external_id)
);

CREATE TABLE license.product (
    account_id text COLLATE "C" NOT NULL REFERENCES license.account,
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('TEST', 'LIVE')),
    product_id text COLLATE "C" NOT NULL,
    external_id text COLLATE "C",
    code text COLLATE "C" NOT NULL CHECK (code ~ '^[A-Z0-9]{2,16}$'),
    slug text COLLATE "C" NOT NULL CHECK (slug ~ '^[a-z0-9-]{1,63}$'),
    display_name text NOT NULL,
    url text NOT NULL,
    labels jsonb NOT NULL,
    metadata jsonb NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mode, product_id),
    CONSTRAINT product_external_id UNIQUE (account_id, mode, external_id),
    CONSTRAINT product_code UNIQUE (account_id, mode, code),
    CONSTRAINT product_slug UNIQUE (account_id, mode, slug)
);

CREATE TABLE license.policy (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    policy_id text COLLATE "C" NOT NULL,
    external_id text COLLATE "C",
    product_id text COLLATE "C" NOT NULL,
    display_name text NOT NULL,
    template text COLLATE "C" NOT NULL,
    duration interval CHECK (duration > '0'),
    is_trial boolean NOT NULL,
    max_machines int CHECK (max_machines >= 1),
    floating boolean NOT NULL,
    require_fingerprint boolean NOT NULL,
    require_heartbeat boolean NOT NULL,
    heartbeat_interval interval NOT NULL,
    offline_allowed boolean NOT NULL,
    offline_max_ttl interval NOT NULL,
    labels jsonb NOT NULL,
    metadata jsonb NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mode, policy_id),
    CONSTRAINT policy_external_id UNIQUE (account_id, mode, external_id),
    CONSTRAINT policy_product FOREIGN KEY (account_id, mode, product_id) REFERENCES license.product
);
CREATE INDEX policy_by_product ON license.policy (account_id, mode, product_id, policy_id);

CREATE TABLE license.customer (
    account_id text COLLATE "C" NOT NULL REFERENCES license.account,
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('TEST', 'LIVE')),
    customer_id text COLLATE "C" NOT NULL,
    email text COLLATE "C",
    subject_ref text COLLATE "C",
    display_name text NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mode, customer_id),
    CONSTRAINT customer_named CHECK (email IS NOT NULL OR subject_ref IS NOT NULL),
    CONSTRAINT customer_email UNIQUE (account_id, mode, email),
    CONSTRAINT customer_subject_ref UNIQUE (account_id, mode, subject_ref)
);

CREATE TABLE license.license (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    license_id text COLLATE "C" NOT NULL,
    external_id text COLLATE "C",
    product_id text COLLATE "C" NOT NULL,
    policy_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C",
    display_name text NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('active', 'suspended', 'revoked', 'banned')),
    status_reason text NOT NULL,
    key_hint text NOT NULL,
    starts_at timestamptz,
    expires_at timestamptz,
    labels jsonb NOT NULL,
    metadata jsonb NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mode, license_id),
    CONSTRAINT license_external_id UNIQUE (account_id, mode, external_id),
    CONSTRAINT license_period CHECK (expires_at > starts_at),
    CONSTRAINT license_product FOREIGN KEY (account_id, mode, product_id) REFERENCES license.product,
    CONSTRAINT license_policy FOREIGN KEY (account_id, mode, policy_id) REFERENCES license.policy,
    CONSTRAINT license_customer FOREIGN KEY (account_id, mode, customer_id) REFERENCES license.customer
);
CREATE INDEX license_by_product ON license.license (account_id, mode, product_id, license_id);
CREATE INDEX license_by_policy ON license.license (account_id, mode, policy_id, license_id);
CREATE INDEX license_by_status ON license.license (account_id, mode, status, license_id);
CREATE INDEX license_by_customer ON license.license (account_id, mode, customer_id, license_id);

-- Every key that a license has, or had: a row whose license is gone keeps the key from being given out again.
CREATE TABLE license.license_key (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    key_hash bytea NOT NULL,
    license_id text COLLATE "C",
    CONSTRAINT license_key_hash PRIMARY KEY (account_id, mode, key_hash),
    CONSTRAINT license_key_license FOREIGN KEY (account_id, mode, license_id)
        REFERENCES license.license ON DELETE SET NULL (license_id)
);
CREATE INDEX license_key_by_license ON license.license_key (account_id, mode, license_id);

-- Walls. An operator's transaction works on accounts as such, and inside one only while it makes its first keys.
ALTER TABLE license.account ENABLE ROW LEVEL SECURITY;
ALTER TABLE license.account FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON license.account TO lictor_license
    USING (current_setting('lictor.account_id', true) IN (account_id, 'operator'));
ALTER TABLE license.operator_key ENABLE ROW LEVEL SECURITY;
ALTER TABLE license.operator_key FORCE ROW LEVEL SECURITY;
CREATE POLICY bootstrap ON license.operator_key TO lictor_migrate USING (true);
CALL record.isolate('license.api_key', 'lictor_license');
CALL record.isolate('license.product', 'lictor_license');
CALL record.isolate('license.policy', 'lictor_license');
CALL record.isolate('license.customer', 'lictor_license');
CALL record.isolate('license.license', 'lictor_license');
CALL record.isolate('license.license_key', 'lictor_license');

GRANT USAGE ON SCHEMA license TO lictor_license, lictor_facts;
GRANT SELECT, INSERT, UPDATE ON license.account, license.api_key, license.license_key TO lictor_license;
GRANT SELECT, INSERT, UPDATE, DELETE ON license.product, license.policy, license.customer, license.license TO lictor_license;

CREATE POLICY facts ON license.account FOR SELECT TO lictor_facts USING (true);
CREATE POLICY facts ON license.operator_key FOR SELECT TO lictor_facts USING (true);
CREATE POLICY facts ON license.api_key FOR SELECT TO lictor_facts USING (true);
CREATE POLICY facts ON license.policy FOR SELECT TO lictor_facts USING (true);
CREATE POLICY facts ON license.license FOR SELECT TO lictor_facts USING (true);
CREATE POLICY facts ON license.license_key FOR SELECT TO lictor_facts USING (true);
GRANT SELECT ON license.account, license.operator_key, license.api_key, license.policy, license.license,
    license.license_key TO lictor_facts;

CALL record.watch('license.account', 'account', 'account_id');
CALL record.watch('license.operator_key', 'operator_key', 'key_hash');
CALL record.watch('license.api_key', 'api_key', 'key_hash');
CALL record.watch('license.policy', 'policy', 'account_id', 'mode', 'policy_id');
CALL record.watch('license.license', 'license', 'account_id', 'mode', 'license_id');
CALL record.watch('license.license_key', 'license_key', 'account_id', 'mode', 'key_hash');

-- Facts. One function per kind, keyed as its trigger logs; STABLE, so that all of one load see one snapshot.
CREATE FUNCTION license.account_facts(p_account_id text)
RETURNS TABLE (account_id text, status text) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT a.account_id, a.status FROM license.account AS a WHERE a.account_id = p_account_id;
END;

CREATE FUNCTION license.operator_key_facts(p_key_hashes bytea[])
RETURNS TABLE (operator_key_id text, revoked boolean) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT k.operator_key_id, k.revoked_at IS NOT NULL FROM license.operator_key AS k WHERE k.key_hash = ANY (p_key_hashes);
END;

CREATE FUNCTION license.api_key_facts(p_key_hashes bytea[])
RETURNS TABLE (account_id text, mode text, api_key_id text, scopes text[], expires_at timestamptz, revoked boolean)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT k.account_id, k.mode, k.api_key_id, k.scopes, k.expires_at, k.revoked_at IS NOT NULL
      FROM license.api_key AS k WHERE k.key_hash = ANY (p_key_hashes);
END;

CREATE FUNCTION license.license_key_facts(p_account_id text, p_mode text, p_key_hashes bytea[])
RETURNS TABLE (license_id text) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT k.license_id FROM license.license_key AS k
     WHERE k.account_id = p_account_id AND k.mode = p_mode AND k.key_hash = ANY (p_key_hashes);
END;

CREATE FUNCTION license.license_facts(p_account_id text, p_mode text, p_license_id text)
RETURNS TABLE (license_id text, product_id text, policy_id text, status text, starts_at timestamptz, expires_at timestamptz)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT l.license_id, l.product_id, l.policy_id, l.status, l.starts_at, l.expires_at FROM license.license AS l
     WHERE l.account_id = p_account_id AND l.mode = p_mode AND l.license_id = p_license_id;
END;

CREATE FUNCTION license.policy_facts(p_account_id text, p_mode text, p_policy_id text)
RETURNS TABLE (policy_id text, is_trial boolean) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT p.policy_id, p.is_trial FROM license.policy AS p
     WHERE p.account_id = p_account_id AND p.mode = p_mode AND p.policy_id = p_policy_id;
END;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA license FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA license TO lictor_facts;
