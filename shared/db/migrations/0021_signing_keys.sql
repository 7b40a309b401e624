-- min_compatible: 1
-- Keys that sign what software verifies by itself, and the sets of them that are published to everybody.

-- One for each product that has ever had a key. Its id finds its account, so it is random and of the whole deployment.
CREATE TABLE license.key_set (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    product_id text COLLATE "C" NOT NULL,
    key_set_id text COLLATE "C" NOT NULL,
    revocation_epoch bigint NOT NULL DEFAULT 0 CHECK (revocation_epoch >= 0),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mode, product_id),
    CONSTRAINT key_set_id UNIQUE (key_set_id),
    CONSTRAINT key_set_product FOREIGN KEY (account_id, mode, product_id) REFERENCES license.product ON DELETE CASCADE
);

CREATE TABLE license.signing_key (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    signing_key_id text COLLATE "C" NOT NULL,
    product_id text COLLATE "C" NOT NULL,
    purpose text COLLATE "C" NOT NULL CHECK (purpose IN ('FILE', 'TOKEN')),
    alg text COLLATE "C" NOT NULL CHECK (alg IN ('ED25519', 'ES256', 'RS256')),
    status text COLLATE "C" NOT NULL CHECK (status IN ('PENDING', 'ACTIVE', 'RETIRED', 'REVOKED')),
    public_jwk jsonb NOT NULL,
    kek_version int CHECK (kek_version >= 1),
    nonce bytea,
    ciphertext bytea,
    activates_at timestamptz NOT NULL,
    retired_at timestamptz,
    revoked_at timestamptz,
    revision bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mode, signing_key_id),
    -- What a signature names alone.
    CONSTRAINT signing_key_id UNIQUE (signing_key_id),
    CONSTRAINT signing_key_sealed CHECK (num_nulls(kek_version, nonce, ciphertext) IN (0, 3)),
    CONSTRAINT signing_key_set FOREIGN KEY (account_id, mode, product_id) REFERENCES license.key_set ON DELETE CASCADE
);
CREATE UNIQUE INDEX signing_key_active ON license.signing_key (account_id, mode, product_id, purpose) WHERE status = 'ACTIVE';
CREATE UNIQUE INDEX signing_key_pending ON license.signing_key (account_id, mode, product_id, purpose) WHERE status = 'PENDING';
CREATE INDEX signing_key_by_product ON license.signing_key (account_id, mode, product_id, signing_key_id);

CALL record.isolate('license.key_set', 'lictor_license');
CALL record.isolate('license.signing_key', 'lictor_license');
CREATE POLICY facts ON license.key_set FOR SELECT TO lictor_facts USING (true);
CREATE POLICY facts ON license.signing_key FOR SELECT TO lictor_facts USING (true);
GRANT SELECT, INSERT, UPDATE ON license.key_set, license.signing_key TO lictor_license;
GRANT SELECT ON license.key_set, license.signing_key TO lictor_facts;

CALL record.watch('license.key_set', 'key_set', 'key_set_id');
CALL record.watch('license.signing_key', 'signing_keys', 'account_id', 'mode', 'product_id');

CREATE FUNCTION license.key_set_facts(p_key_set_id text)
RETURNS TABLE (account_id text, mode text, product_id text) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT s.account_id, s.mode, s.product_id FROM license.key_set AS s WHERE s.key_set_id = p_key_set_id;
END;

CREATE FUNCTION license.signing_keys_facts(p_account_id text, p_mode text, p_product_id text)
RETURNS TABLE (signing_key_id text, purpose text, alg text, status text, public_jwk jsonb)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT k.signing_key_id, k.purpose, k.alg, k.status, k.public_jwk FROM license.signing_key AS k
     WHERE k.account_id = p_account_id AND k.mode = p_mode AND k.product_id = p_product_id;
END;

REVOKE EXECUTE ON FUNCTION license.key_set_facts(text), license.signing_keys_facts(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license.key_set_facts(text), license.signing_keys_facts(text, text, text) TO lictor_facts;
