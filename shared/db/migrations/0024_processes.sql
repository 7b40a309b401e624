-- min_compatible: 1
-- Processes of machines: each has a row for as long as it has a place. The row goes when the process ends or is found dead, and with
-- the seat of its machine.

-- `user_id` is the machine's when the process began. `last_heartbeat_at` changes with every heartbeat, and is in no index; `due_at`
-- is when the worker looks whether it is dead, and heartbeats leave it alone.
CREATE TABLE machine.process (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    machine_id text COLLATE "C" NOT NULL,
    process_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL CHECK (name <> ''),
    license_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C",
    started_at timestamptz NOT NULL,
    last_heartbeat_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mode, machine_id, process_id),
    CONSTRAINT process_name UNIQUE (account_id, mode, machine_id, name),
    CONSTRAINT process_machine FOREIGN KEY (account_id, mode, machine_id) REFERENCES machine.machine ON DELETE CASCADE
) WITH (fillfactor = 70);
CREATE INDEX process_by_license ON machine.process (account_id, mode, license_id, process_id);
CREATE INDEX process_due ON machine.process (due_at);

-- Keeps the number of a license's processes, so that it cannot differ from them. Whoever starts or ends processes holds the seat's
-- row; a statement that ends many changes it once.
CREATE FUNCTION machine.count_processes() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    UPDATE machine.seat AS s SET processes = s.processes + CASE TG_OP WHEN 'INSERT' THEN c.moved ELSE -c.moved END
      FROM (SELECT m.account_id, m.mode, m.license_id, count(*)::int AS moved FROM moved AS m GROUP BY 1, 2, 3) AS c
     WHERE s.account_id = c.account_id AND s.mode = c.mode AND s.license_id = c.license_id;
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION machine.count_processes() FROM PUBLIC;
CREATE TRIGGER seats_of_started AFTER INSERT ON machine.process REFERENCING NEW TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION machine.count_processes();
CREATE TRIGGER seats_of_ended AFTER DELETE ON machine.process REFERENCING OLD TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION machine.count_processes();

CALL record.isolate('machine.process', 'lictor_machine');
GRANT SELECT, INSERT, UPDATE, DELETE ON machine.process TO lictor_machine;
GRANT SELECT, UPDATE, DELETE ON machine.process TO lictor_machine_worker;
CREATE POLICY worker ON machine.process TO lictor_machine_worker USING (true);
