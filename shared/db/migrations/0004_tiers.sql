-- min_compatible: 1
-- Tiers: editions of a product, in an order. A license has at most one, of its own product.

CREATE TABLE license.tier (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    tier_id text COLLATE "C" NOT NULL,
    external_id text COLLATE "C",
    product_id text COLLATE "C" NOT NULL,
    slug text COLLATE "C" NOT NULL CHECK (slug ~ '^[a-z0-9_]{1,63}$'),
    display_name text NOT NULL,
    position int NOT NULL CHECK (position >= 0),
    labels jsonb NOT NULL,
    metadata jsonb NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mode, tier_id),
    CONSTRAINT tier_external_id UNIQUE (account_id, mode, external_id),
    CONSTRAINT tier_slug UNIQUE (account_id, mode, product_id, slug),
    -- What a license names, so that no license has a tier of another product; and the order of a product's tiers in lists.
    CONSTRAINT tier_of_product UNIQUE (account_id, mode, product_id, tier_id),
    CONSTRAINT tier_product FOREIGN KEY (account_id, mode, product_id) REFERENCES license.product
);

ALTER TABLE license.license ADD COLUMN tier_id text COLLATE "C";
ALTER TABLE license.license ADD CONSTRAINT license_tier FOREIGN KEY (account_id, mode, product_id, tier_id)
    REFERENCES license.tier (account_id, mode, product_id, tier_id);
CREATE INDEX license_by_tier ON license.license (account_id, mode, tier_id, license_id);

CALL record.isolate('license.tier', 'lictor_license');
GRANT SELECT, INSERT, UPDATE, DELETE ON license.tier TO lictor_license;
CREATE POLICY facts ON license.tier FOR SELECT TO lictor_facts USING (true);
GRANT SELECT ON license.tier TO lictor_facts;
CALL record.watch('license.tier', 'tier', 'account_id', 'mode', 'product_id');

-- All tiers of a product: a validation may ask for one that the license does not have.
CREATE FUNCTION license.tier_facts(p_account_id text, p_mode text, p_product_id text)
RETURNS TABLE (tier_id text, slug text, "position" int) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT t.tier_id, t.slug, t.position FROM license.tier AS t
     WHERE t.account_id = p_account_id AND t.mode = p_mode AND t.product_id = p_product_id;
END;

-- The columns of a function's rows cannot be changed in place. Processes of before go on: they name the columns they read.
DROP FUNCTION license.license_facts(text, text, text);
CREATE FUNCTION license.license_facts(p_account_id text, p_mode text, p_license_id text)
RETURNS TABLE (license_id text, product_id text, policy_id text, status text, starts_at timestamptz, expires_at timestamptz,
    tier_id text)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT l.license_id, l.product_id, l.policy_id, l.status, l.starts_at, l.expires_at, l.tier_id FROM license.license AS l
     WHERE l.account_id = p_account_id AND l.mode = p_mode AND l.license_id = p_license_id;
END;

REVOKE EXECUTE ON FUNCTION license.tier_facts(text, text, text), license.license_facts(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION license.tier_facts(text, text, text), license.license_facts(text, text, text) TO lictor_facts;
