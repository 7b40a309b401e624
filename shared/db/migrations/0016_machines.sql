-- min_compatible: 1
-- Machines: what a policy says of them, the machines and what they are known by, and how many seats a license has taken.

ALTER TABLE license.policy
    ADD COLUMN strict boolean NOT NULL DEFAULT true,
    ADD COLUMN max_users int CHECK (max_users >= 1),
    ADD COLUMN max_cores int CHECK (max_cores >= 1),
    ADD COLUMN max_memory_bytes bigint CHECK (max_memory_bytes >= 1),
    ADD COLUMN max_disk_bytes bigint CHECK (max_disk_bytes >= 1),
    ADD COLUMN max_processes int CHECK (max_processes >= 1),
    ADD COLUMN machine_uniqueness text COLLATE "C" NOT NULL DEFAULT 'UNIQUE_PER_LICENSE'
        CHECK (machine_uniqueness IN ('UNIQUE_PER_LICENSE', 'UNIQUE_PER_POLICY', 'UNIQUE_PER_PRODUCT', 'UNIQUE_PER_ACCOUNT')),
    ADD COLUMN machine_matching text COLLATE "C" NOT NULL DEFAULT 'MATCH_ANY'
        CHECK (machine_matching IN ('MATCH_ANY', 'MATCH_TWO', 'MATCH_MOST', 'MATCH_ALL')),
    ADD COLUMN component_uniqueness text COLLATE "C" NOT NULL DEFAULT 'UNIQUE_PER_MACHINE'
        CHECK (component_uniqueness IN ('UNIQUE_PER_MACHINE', 'UNIQUE_PER_LICENSE', 'UNIQUE_PER_POLICY', 'UNIQUE_PER_PRODUCT',
                                        'UNIQUE_PER_ACCOUNT')),
    ADD COLUMN component_matching text COLLATE "C" NOT NULL DEFAULT 'MATCH_ANY'
        CHECK (component_matching IN ('MATCH_ANY', 'MATCH_TWO', 'MATCH_MOST', 'MATCH_ALL')),
    ADD COLUMN machine_leasing text COLLATE "C" NOT NULL DEFAULT 'PER_LICENSE'
        CHECK (machine_leasing IN ('PER_LICENSE', 'PER_USER')),
    ADD COLUMN process_leasing text COLLATE "C" NOT NULL DEFAULT 'PER_MACHINE'
        CHECK (process_leasing IN ('PER_MACHINE', 'PER_LICENSE', 'PER_USER')),
    ADD COLUMN seat_acquire text COLLATE "C" NOT NULL DEFAULT 'REJECT'
        CHECK (seat_acquire IN ('REJECT', 'QUEUE', 'EVICT_OLDEST', 'EVICT_DEAD_FIRST')),
    ADD COLUMN require_machine_scope boolean NOT NULL DEFAULT false,
    ADD COLUMN require_components_scope boolean NOT NULL DEFAULT false,
    ADD COLUMN heartbeat_basis text COLLATE "C" NOT NULL DEFAULT 'FROM_FIRST_PING'
        CHECK (heartbeat_basis IN ('FROM_FIRST_PING', 'FROM_CREATION')),
    ADD COLUMN heartbeat_cull text COLLATE "C" NOT NULL DEFAULT 'DEACTIVATE_DEAD'
        CHECK (heartbeat_cull IN ('DEACTIVATE_DEAD', 'KEEP_DEAD')),
    ADD COLUMN heartbeat_resurrection text COLLATE "C" NOT NULL DEFAULT 'NO_REVIVE'
        CHECK (heartbeat_resurrection IN ('NO_REVIVE', 'REVIVE_1_MINUTE', 'REVIVE_2_MINUTES', 'REVIVE_5_MINUTES',
                                          'REVIVE_10_MINUTES', 'REVIVE_15_MINUTES', 'ALWAYS_REVIVE')),
    ADD COLUMN max_transfers int CHECK (max_transfers >= 0),
    ADD COLUMN transfer_period interval NOT NULL DEFAULT '30 days' CHECK (transfer_period > '0'),
    ADD COLUMN allow_machine_transfer boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT policy_expiration_basis_check,
    ADD CONSTRAINT policy_expiration_basis_check CHECK (
        expiration_basis IN ('FROM_CREATION', 'FROM_FIRST_VALIDATION', 'FROM_FIRST_USE', 'FROM_FIRST_ACTIVATION')),
    DROP CONSTRAINT policy_overridable_check,
    ADD CONSTRAINT policy_overridable_check CHECK (
        overridable <@ ARRAY['MAX_MACHINES', 'MAX_USES', 'OFFLINE_MAX_TTL', 'MAX_USERS', 'MAX_CORES', 'MAX_MEMORY_BYTES',
                             'MAX_DISK_BYTES', 'MAX_PROCESSES']);
ALTER TABLE license.license
    ADD COLUMN max_users_override int CHECK (max_users_override >= 1),
    ADD COLUMN max_cores_override int CHECK (max_cores_override >= 1),
    ADD COLUMN max_memory_bytes_override bigint CHECK (max_memory_bytes_override >= 1),
    ADD COLUMN max_disk_bytes_override bigint CHECK (max_disk_bytes_override >= 1),
    ADD COLUMN max_processes_override int CHECK (max_processes_override >= 1);

-- A row per license that ever had a machine: who changes how many seats are taken holds it. `first_activated_at` is set once.
CREATE TABLE machine.seat (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('TEST', 'LIVE')),
    license_id text COLLATE "C" NOT NULL,
    machines int NOT NULL DEFAULT 0 CHECK (machines >= 0),
    users int NOT NULL DEFAULT 0 CHECK (users >= 0),
    cores bigint NOT NULL DEFAULT 0 CHECK (cores >= 0),
    memory_bytes numeric NOT NULL DEFAULT 0 CHECK (memory_bytes >= 0),
    disk_bytes numeric NOT NULL DEFAULT 0 CHECK (disk_bytes >= 0),
    processes int NOT NULL DEFAULT 0 CHECK (processes >= 0),
    first_activated_at timestamptz,
    PRIMARY KEY (account_id, mode, license_id)
) WITH (fillfactor = 70);

-- A machine holds a seat until it is deactivated; the row stays. `uniqueness_scope` is the id of what its identity is unique in.
-- `user_id` is the customer who uses it. `lease_epoch` is there where the seat is leased: it ends with `beat.lease_expires_at`.
CREATE TABLE machine.machine (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    machine_id text COLLATE "C" NOT NULL,
    external_id text COLLATE "C",
    license_id text COLLATE "C" NOT NULL,
    product_id text COLLATE "C" NOT NULL,
    policy_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C",
    identity_kind text COLLATE "C" NOT NULL CHECK (identity_kind IN ('FINGERPRINT', 'FINGERPRINT_SET', 'WORKLOAD')),
    identity_hash bytea NOT NULL,
    uniqueness_scope text COLLATE "C" NOT NULL,
    generation int NOT NULL CHECK (generation >= 1),
    display_name text NOT NULL,
    hostname text NOT NULL,
    platform text COLLATE "C" NOT NULL
        CHECK (platform IN ('', 'MACOS', 'WINDOWS', 'LINUX', 'DOCKER', 'KUBERNETES', 'OTHER')),
    ip text NOT NULL,
    cores int CHECK (cores >= 1),
    memory_bytes bigint CHECK (memory_bytes >= 1),
    disk_bytes bigint CHECK (disk_bytes >= 1),
    heartbeat_status text COLLATE "C" NOT NULL CHECK (heartbeat_status IN ('NOT_STARTED', 'ALIVE', 'DEAD')),
    heartbeat_from timestamptz,
    died_at timestamptz,
    offline_until timestamptz,
    lease_epoch bigint,
    activated_at timestamptz NOT NULL,
    deactivated_at timestamptz,
    deactivation_reason text COLLATE "C" CHECK (deactivation_reason IN (
        'SELF', 'CUSTOMER', 'ADMIN', 'EVICTED', 'TRANSFERRED', 'LICENSE_ENDED', 'CULLED', 'LEASE_EXPIRED', 'REPLACED')),
    labels jsonb NOT NULL,
    metadata jsonb NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mode, machine_id),
    CONSTRAINT machine_external_id UNIQUE (account_id, mode, external_id),
    CONSTRAINT machine_seat FOREIGN KEY (account_id, mode, license_id) REFERENCES machine.seat
);
CREATE UNIQUE INDEX machine_identity ON machine.machine (account_id, mode, uniqueness_scope, identity_hash)
    WHERE deactivated_at IS NULL;
CREATE INDEX machine_by_license ON machine.machine (account_id, mode, license_id, machine_id);
CREATE INDEX machine_live_by_license ON machine.machine (account_id, mode, license_id, user_id) WHERE deactivated_at IS NULL;
CREATE INDEX machine_given_up ON machine.machine (account_id, mode, license_id, deactivated_at)
    WHERE deactivation_reason IN ('SELF', 'CUSTOMER', 'TRANSFERRED');
CREATE INDEX machine_by_product ON machine.machine (account_id, mode, product_id, machine_id);
CREATE INDEX machine_by_policy ON machine.machine (account_id, mode, policy_id, machine_id);
CREATE INDEX machine_by_user ON machine.machine (account_id, mode, user_id, machine_id);

-- What the identity of a machine that is not deactivated is made of: one row where it is a single fingerprint, whose name is ''.
CREATE TABLE machine.fingerprint (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    machine_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    license_id text COLLATE "C" NOT NULL,
    uniqueness_scope text COLLATE "C" NOT NULL,
    fingerprint_hash bytea NOT NULL,
    PRIMARY KEY (account_id, mode, machine_id, name),
    CONSTRAINT fingerprint_machine FOREIGN KEY (account_id, mode, machine_id) REFERENCES machine.machine ON DELETE CASCADE
);
CREATE INDEX fingerprint_by_license ON machine.fingerprint (account_id, mode, license_id, fingerprint_hash);
CREATE INDEX fingerprint_by_scope ON machine.fingerprint (account_id, mode, uniqueness_scope, fingerprint_hash);

-- The parts that a machine that is not deactivated was said to have.
CREATE TABLE machine.component (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    machine_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    uniqueness_scope text COLLATE "C" NOT NULL,
    fingerprint_hash bytea NOT NULL,
    PRIMARY KEY (account_id, mode, machine_id, name),
    CONSTRAINT component_fingerprint UNIQUE (account_id, mode, uniqueness_scope, fingerprint_hash),
    CONSTRAINT component_machine FOREIGN KEY (account_id, mode, machine_id) REFERENCES machine.machine ON DELETE CASCADE
);

-- What changes with every heartbeat, and so is no part of a fact that a change could outdate: no trigger.
CREATE TABLE machine.beat (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    machine_id text COLLATE "C" NOT NULL,
    last_heartbeat_at timestamptz,
    lease_expires_at timestamptz,
    PRIMARY KEY (account_id, mode, machine_id),
    CONSTRAINT beat_machine FOREIGN KEY (account_id, mode, machine_id) REFERENCES machine.machine ON DELETE CASCADE
) WITH (fillfactor = 70);

-- Keeps the sums of a license by its machines, so that they can't differ from them. Whoever changes machines holds the seat's row.
CREATE FUNCTION machine.count_seats() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.deactivated_at IS NULL THEN
        UPDATE machine.seat AS s
           SET machines = s.machines - 1, cores = s.cores - coalesce(OLD.cores, 0),
               memory_bytes = s.memory_bytes - coalesce(OLD.memory_bytes, 0),
               disk_bytes = s.disk_bytes - coalesce(OLD.disk_bytes, 0),
               users = s.users - (OLD.user_id IS NOT NULL AND NOT EXISTS (
                   SELECT FROM machine.machine AS m
                    WHERE m.account_id = OLD.account_id AND m.mode = OLD.mode AND m.license_id = OLD.license_id
                      AND m.user_id = OLD.user_id AND m.deactivated_at IS NULL AND m.machine_id <> OLD.machine_id))::int
         WHERE s.account_id = OLD.account_id AND s.mode = OLD.mode AND s.license_id = OLD.license_id;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.deactivated_at IS NULL THEN
        UPDATE machine.seat AS s
           SET machines = s.machines + 1, cores = s.cores + coalesce(NEW.cores, 0),
               memory_bytes = s.memory_bytes + coalesce(NEW.memory_bytes, 0),
               disk_bytes = s.disk_bytes + coalesce(NEW.disk_bytes, 0),
               users = s.users + (NEW.user_id IS NOT NULL AND NOT EXISTS (
                   SELECT FROM machine.machine AS m
                    WHERE m.account_id = NEW.account_id AND m.mode = NEW.mode AND m.license_id = NEW.license_id
                      AND m.user_id = NEW.user_id AND m.deactivated_at IS NULL AND m.machine_id <> NEW.machine_id))::int,
               first_activated_at = coalesce(s.first_activated_at, NEW.activated_at)
         WHERE s.account_id = NEW.account_id AND s.mode = NEW.mode AND s.license_id = NEW.license_id;
    END IF;
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION machine.count_seats() FROM PUBLIC;
CREATE TRIGGER seats_of_new AFTER INSERT OR DELETE ON machine.machine FOR EACH ROW EXECUTE FUNCTION machine.count_seats();
CREATE TRIGGER seats_of_changed AFTER UPDATE ON machine.machine FOR EACH ROW
    WHEN ((OLD.deactivated_at, OLD.license_id, OLD.user_id, OLD.cores, OLD.memory_bytes, OLD.disk_bytes)
          IS DISTINCT FROM (NEW.deactivated_at, NEW.license_id, NEW.user_id, NEW.cores, NEW.memory_bytes, NEW.disk_bytes))
    EXECUTE FUNCTION machine.count_seats();

-- Walls.
CALL record.isolate('machine.seat', 'lictor_machine');
CALL record.isolate('machine.machine', 'lictor_machine');
CALL record.isolate('machine.fingerprint', 'lictor_machine');
CALL record.isolate('machine.component', 'lictor_machine');
CALL record.isolate('machine.beat', 'lictor_machine');
GRANT USAGE ON SCHEMA machine TO lictor_machine, lictor_machine_worker, lictor_facts, lictor_license;
GRANT SELECT, INSERT, UPDATE ON machine.seat, machine.machine TO lictor_machine, lictor_machine_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON machine.fingerprint, machine.component, machine.beat
    TO lictor_machine, lictor_machine_worker;
GRANT SELECT ON machine.seat, machine.machine, machine.fingerprint, machine.component, machine.beat TO lictor_facts;
CREATE POLICY worker ON machine.seat TO lictor_machine_worker USING (true);
CREATE POLICY worker ON machine.machine TO lictor_machine_worker USING (true);
CREATE POLICY worker ON machine.fingerprint TO lictor_machine_worker USING (true);
CREATE POLICY worker ON machine.component TO lictor_machine_worker USING (true);
CREATE POLICY worker ON machine.beat TO lictor_machine_worker USING (true);
CREATE POLICY facts ON machine.seat FOR SELECT TO lictor_facts USING (true);
CREATE POLICY facts ON machine.machine FOR SELECT TO lictor_facts USING (true);
CREATE POLICY facts ON machine.fingerprint FOR SELECT TO lictor_facts USING (true);
CREATE POLICY facts ON machine.component FOR SELECT TO lictor_facts USING (true);
CREATE POLICY facts ON machine.beat FOR SELECT TO lictor_facts USING (true);
GRANT USAGE ON SCHEMA record TO lictor_machine_worker;
GRANT SELECT ON record.migration TO lictor_machine_worker;
GRANT INSERT ON record.change_log TO lictor_machine_worker;
GRANT INSERT ON record.event, record.outbox TO lictor_machine_worker;
GRANT SELECT, INSERT, UPDATE ON record.subject TO lictor_machine_worker;
CREATE POLICY worker_machine ON record.event FOR INSERT TO lictor_machine_worker WITH CHECK (true);
CREATE POLICY worker_machine ON record.outbox FOR INSERT TO lictor_machine_worker WITH CHECK (true);
CREATE POLICY worker_machine ON record.subject TO lictor_machine_worker USING (true);

CALL record.watch('machine.seat', 'seats', 'account_id', 'mode', 'license_id');
CALL record.watch('machine.machine', 'machine', 'account_id', 'mode', 'machine_id');
CALL record.watch('machine.fingerprint', 'fingerprint', 'account_id', 'mode', 'license_id', 'fingerprint_hash');
CALL record.watch('machine.component', 'component', 'account_id', 'mode', 'machine_id');

-- Facts.
CREATE FUNCTION machine.seats_facts(p_account_id text, p_mode text, p_license_id text)
RETURNS TABLE (license_id text, machines int, users int, cores bigint, memory_bytes numeric, disk_bytes numeric, processes int,
    first_activated_at timestamptz)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT s.license_id, s.machines, s.users, s.cores, s.memory_bytes, s.disk_bytes, s.processes, s.first_activated_at
      FROM machine.seat AS s
     WHERE s.account_id = p_account_id AND s.mode = p_mode AND s.license_id = p_license_id;
END;

CREATE FUNCTION machine.fingerprint_facts(p_account_id text, p_mode text, p_license_id text, p_fingerprint_hashes bytea[])
RETURNS TABLE (fingerprint_hash bytea, machine_id text) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT f.fingerprint_hash, f.machine_id FROM machine.fingerprint AS f
     WHERE f.account_id = p_account_id AND f.mode = p_mode AND f.license_id = p_license_id
       AND f.fingerprint_hash = ANY (p_fingerprint_hashes);
END;

CREATE FUNCTION machine.machine_facts(p_account_id text, p_mode text, p_machine_id text)
RETURNS TABLE (machine_id text, license_id text, user_id text, deactivated boolean, heartbeat_status text,
    heartbeat_from timestamptz, died_at timestamptz, offline_until timestamptz, lease_epoch bigint)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT m.machine_id, m.license_id, m.user_id, m.deactivated_at IS NOT NULL, m.heartbeat_status, m.heartbeat_from, m.died_at,
           m.offline_until, m.lease_epoch
      FROM machine.machine AS m
     WHERE m.account_id = p_account_id AND m.mode = p_mode AND m.machine_id = p_machine_id;
END;

CREATE FUNCTION machine.component_facts(p_account_id text, p_mode text, p_machine_id text)
RETURNS TABLE (name text, fingerprint_hash bytea) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT c.name, c.fingerprint_hash FROM machine.component AS c
     WHERE c.account_id = p_account_id AND c.mode = p_mode AND c.machine_id = p_machine_id;
END;

-- No fact: what was read of it can only be later by now, but where the row of the machine has changed too.
CREATE FUNCTION machine.machine_beat(p_account_id text, p_mode text, p_machine_id text)
RETURNS TABLE (last_heartbeat_at timestamptz, lease_expires_at timestamptz) STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT b.last_heartbeat_at, b.lease_expires_at FROM machine.beat AS b
     WHERE b.account_id = p_account_id AND b.mode = p_mode AND b.machine_id = p_machine_id;
END;

-- The columns of a function's rows cannot be changed in place. Processes of before go on: they name the columns they read.
DROP FUNCTION license.policy_facts(text, text, text);
CREATE FUNCTION license.policy_facts(p_account_id text, p_mode text, p_policy_id text)
RETURNS TABLE (policy_id text, is_trial boolean, expiration_strategy text, grace_period interval, expiration_basis text,
    max_uses bigint, uses_counted_by text, require_check_in boolean, check_in_interval text, check_in_count int,
    check_in_since timestamptz, require_product_scope boolean, require_policy_scope boolean, require_user_scope boolean,
    authentication text, overridable text[], stale_ok_for interval, first_duration interval, strict boolean, max_machines int,
    max_users int, max_cores int, max_memory_bytes bigint, max_disk_bytes bigint, max_processes int, overage_strategy text,
    floating boolean, require_fingerprint boolean, require_machine_scope boolean, require_components_scope boolean,
    require_heartbeat boolean, heartbeat_interval interval, heartbeat_basis text, machine_matching text,
    component_matching text, machine_leasing text, process_leasing text)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT p.policy_id, p.is_trial, p.expiration_strategy, p.grace_period, p.expiration_basis, p.max_uses, p.uses_counted_by,
           p.require_check_in, p.check_in_interval, p.check_in_count, p.check_in_since, p.require_product_scope,
           p.require_policy_scope, p.require_user_scope, p.authentication, p.overridable, p.stale_ok_for,
           coalesce(p.trial_duration, p.duration), p.strict, p.max_machines, p.max_users, p.max_cores, p.max_memory_bytes,
           p.max_disk_bytes, p.max_processes, p.overage_strategy, p.floating, p.require_fingerprint, p.require_machine_scope,
           p.require_components_scope, p.require_heartbeat, p.heartbeat_interval, p.heartbeat_basis, p.machine_matching,
           p.component_matching, p.machine_leasing, p.process_leasing
      FROM license.policy AS p
     WHERE p.account_id = p_account_id AND p.mode = p_mode AND p.policy_id = p_policy_id;
END;

DROP FUNCTION license.license_facts(text, text, text);
CREATE FUNCTION license.license_facts(p_account_id text, p_mode text, p_license_id text)
RETURNS TABLE (license_id text, product_id text, policy_id text, status text, starts_at timestamptz, expires_at timestamptz,
    tier_id text, customer_id text, created_at timestamptz, expiry_anchored_at timestamptz, check_in_from timestamptz,
    max_uses_override bigint, max_machines_override int, max_users_override int, max_cores_override int,
    max_memory_bytes_override bigint, max_disk_bytes_override bigint, max_processes_override int)
STABLE SECURITY INVOKER LANGUAGE sql
BEGIN ATOMIC
    SELECT l.license_id, l.product_id, l.policy_id, l.status, l.starts_at, l.expires_at, l.tier_id, l.customer_id, l.created_at,
           l.expiry_anchored_at, l.check_in_from, l.max_uses_override, l.max_machines_override, l.max_users_override,
           l.max_cores_override, l.max_memory_bytes_override, l.max_disk_bytes_override, l.max_processes_override
      FROM license.license AS l
     WHERE l.account_id = p_account_id AND l.mode = p_mode AND l.license_id = p_license_id;
END;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA machine FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION license.policy_facts(text, text, text), license.license_facts(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION machine.seats_facts(text, text, text), machine.fingerprint_facts(text, text, text, bytea[]),
    machine.machine_facts(text, text, text), machine.component_facts(text, text, text), machine.machine_beat(text, text, text),
    license.policy_facts(text, text, text), license.license_facts(text, text, text) TO lictor_facts;

-- What one service shows the other: rows inside a tenant, by the policies of their owner, who sees no other.
CREATE VIEW license.activation_terms WITH (security_barrier) AS
    SELECT l.account_id, l.mode, l.license_id, l.product_id, d.slug AS product_slug, l.policy_id, l.customer_id,
           c.banned_at IS NOT NULL AS customer_banned, l.status, l.starts_at, l.expires_at, l.expiry_anchored_at,
           coalesce(p.trial_duration, p.duration) AS first_duration, p.expiration_basis, p.expiration_strategy, p.grace_period,
           p.max_machines, l.max_machines_override, p.max_users, l.max_users_override, p.max_cores, l.max_cores_override,
           p.max_memory_bytes, l.max_memory_bytes_override, p.max_disk_bytes, l.max_disk_bytes_override,
           p.max_processes, l.max_processes_override, p.offline_max_ttl, l.offline_max_ttl_override, p.overridable,
           p.strict, p.overage_strategy, p.floating, p.machine_uniqueness, p.machine_matching, p.component_uniqueness,
           p.component_matching, p.machine_leasing, p.process_leasing, p.seat_acquire, p.require_heartbeat,
           p.heartbeat_interval, p.heartbeat_basis, p.heartbeat_cull, p.heartbeat_resurrection, p.allow_machine_transfer,
           p.max_transfers, p.transfer_period, p.offline_allowed, p.protected, p.authentication
      FROM license.license AS l
      JOIN license.policy AS p ON p.account_id = l.account_id AND p.mode = l.mode AND p.policy_id = l.policy_id
      JOIN license.product AS d ON d.account_id = l.account_id AND d.mode = l.mode AND d.product_id = l.product_id
      LEFT JOIN license.customer AS c ON c.account_id = l.account_id AND c.mode = l.mode AND c.customer_id = l.customer_id;
CREATE VIEW license.holders WITH (security_barrier) AS
    SELECT c.account_id, c.mode, c.customer_id, c.banned_at IS NOT NULL AS banned FROM license.customer AS c;
CREATE VIEW machine.activations WITH (security_barrier) AS
    SELECT s.account_id, s.mode, s.license_id, s.machines, s.first_activated_at FROM machine.seat AS s;

GRANT USAGE ON SCHEMA license, machine TO lictor_views;
GRANT SELECT ON license.license, license.policy, license.product, license.customer, machine.seat TO lictor_views;
DO $$
DECLARE
    mine constant text := $q$account_id = nullif(current_setting('lictor.account_id', true), '') AND mode = current_setting('lictor.mode', true)$q$;
    shown text;
BEGIN
    FOREACH shown IN ARRAY ARRAY['license.license', 'license.policy', 'license.product', 'license.customer', 'machine.seat'] LOOP
        EXECUTE format('CREATE POLICY views ON %s FOR SELECT TO lictor_views USING (%s)', shown, mine);
    END LOOP;
END $$;
GRANT CREATE ON SCHEMA license, machine TO lictor_views;
ALTER VIEW license.activation_terms OWNER TO lictor_views;
ALTER VIEW license.holders OWNER TO lictor_views;
ALTER VIEW machine.activations OWNER TO lictor_views;
REVOKE CREATE ON SCHEMA license, machine FROM lictor_views;
GRANT USAGE ON SCHEMA license TO lictor_machine, lictor_machine_worker;
SET LOCAL ROLE lictor_views;
GRANT SELECT ON license.activation_terms TO lictor_machine, lictor_machine_worker;
GRANT SELECT ON license.holders TO lictor_machine;
GRANT SELECT ON machine.activations TO lictor_license, lictor_license_worker;
SET LOCAL ROLE lictor_migrate;
GRANT USAGE ON SCHEMA machine TO lictor_license_worker;
