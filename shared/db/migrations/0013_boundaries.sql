-- min_compatible: 1
-- Boundaries: which moments of a license were told, and when to look at it again.

-- A row per license. `due_at` is when the worker looks next, null for never; beside it the moment of each kind that was
-- told last. No change log: no fact reads it.
CREATE TABLE license.boundary (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    license_id text COLLATE "C" NOT NULL,
    due_at timestamptz,
    expiring_soon_at timestamptz,
    grace_started_at timestamptz,
    expired_at timestamptz,
    check_in_soon_at timestamptz,
    check_in_overdue_at timestamptz,
    PRIMARY KEY (account_id, mode, license_id),
    CONSTRAINT boundary_license FOREIGN KEY (account_id, mode, license_id) REFERENCES license.license ON DELETE CASCADE
);
CREATE INDEX boundary_due ON license.boundary (due_at) WHERE due_at IS NOT NULL;

-- Policies that have changed, with the license up to which the worker has looked at those under them. A row per change:
-- whoever changes a policy again waits for nobody.
CREATE TABLE license.boundary_recheck (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    recheck_id bigint GENERATED ALWAYS AS IDENTITY,
    policy_id text COLLATE "C" NOT NULL,
    after_license_id text COLLATE "C" NOT NULL DEFAULT '',
    PRIMARY KEY (account_id, mode, recheck_id)
);
CREATE INDEX boundary_recheck_order ON license.boundary_recheck (recheck_id);

CALL record.isolate('license.boundary', 'lictor_license');
CALL record.isolate('license.boundary_recheck', 'lictor_license');
GRANT SELECT, INSERT, UPDATE ON license.boundary TO lictor_license;
GRANT INSERT ON license.boundary_recheck TO lictor_license;

-- The worker, over all tenants.
GRANT SELECT ON license.license, license.policy TO lictor_license_worker;
GRANT UPDATE (status, status_reason, revision, updated_at) ON license.license TO lictor_license_worker;
GRANT SELECT, INSERT, UPDATE ON license.boundary, license.license_usage TO lictor_license_worker;
GRANT SELECT, UPDATE, DELETE ON license.boundary_recheck TO lictor_license_worker;
GRANT INSERT ON record.event, record.outbox TO lictor_license_worker;
GRANT SELECT, INSERT, UPDATE ON record.subject TO lictor_license_worker;
CREATE POLICY worker ON license.license TO lictor_license_worker USING (true);
CREATE POLICY worker ON license.policy FOR SELECT TO lictor_license_worker USING (true);
CREATE POLICY worker ON license.license_usage TO lictor_license_worker USING (true);
CREATE POLICY worker ON license.boundary TO lictor_license_worker USING (true);
CREATE POLICY worker ON license.boundary_recheck TO lictor_license_worker USING (true);
CREATE POLICY worker ON record.event FOR INSERT TO lictor_license_worker WITH CHECK (true);
CREATE POLICY worker ON record.outbox FOR INSERT TO lictor_license_worker WITH CHECK (true);
CREATE POLICY worker ON record.subject TO lictor_license_worker USING (true);

-- What moves a boundary makes the worker look at once: of a license by its row, of a policy by one row for all.
CREATE FUNCTION license.look_at_license() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO license.boundary (account_id, mode, license_id, due_at)
    VALUES (NEW.account_id, NEW.mode, NEW.license_id, now())
    ON CONFLICT (account_id, mode, license_id) DO UPDATE SET due_at = excluded.due_at;
    RETURN NULL;
END $$;
CREATE FUNCTION license.look_at_policy() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO license.boundary_recheck (account_id, mode, policy_id) VALUES (NEW.account_id, NEW.mode, NEW.policy_id);
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION license.look_at_license(), license.look_at_policy() FROM PUBLIC;

CREATE TRIGGER boundary_of_new AFTER INSERT ON license.license FOR EACH ROW EXECUTE FUNCTION license.look_at_license();
CREATE TRIGGER boundary_of_changed AFTER UPDATE ON license.license FOR EACH ROW
    WHEN ((OLD.status, OLD.policy_id, OLD.starts_at, OLD.expires_at, OLD.check_in_from)
          IS DISTINCT FROM (NEW.status, NEW.policy_id, NEW.starts_at, NEW.expires_at, NEW.check_in_from))
    EXECUTE FUNCTION license.look_at_license();
CREATE TRIGGER boundaries_of_changed AFTER UPDATE ON license.policy FOR EACH ROW
    WHEN ((OLD.grace_period, OLD.expiration_strategy, OLD.require_check_in, OLD.check_in_interval, OLD.check_in_count,
           OLD.check_in_since)
          IS DISTINCT FROM
          (NEW.grace_period, NEW.expiration_strategy, NEW.require_check_in, NEW.check_in_interval, NEW.check_in_count,
           NEW.check_in_since))
    EXECUTE FUNCTION license.look_at_policy();

-- Licenses of before. The owner sees no row of a table whose walls stand for it too.
ALTER TABLE license.license NO FORCE ROW LEVEL SECURITY;
ALTER TABLE license.boundary NO FORCE ROW LEVEL SECURITY;
INSERT INTO license.boundary (account_id, mode, license_id, due_at) SELECT account_id, mode, license_id, now() FROM license.license;
ALTER TABLE license.license FORCE ROW LEVEL SECURITY;
ALTER TABLE license.boundary FORCE ROW LEVEL SECURITY;
