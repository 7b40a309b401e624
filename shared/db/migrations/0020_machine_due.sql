-- min_compatible: 1
-- When the worker looks at a machine next: not later than it is dead, to be deactivated, or at the end of its lease.

-- Heartbeats only put off when a machine is dead, so they leave `due_at` as it is, and with it the index: the worker finds a later
-- time when it comes. Null where the machine has no seat. Machines of before are looked at once.
ALTER TABLE machine.beat ADD COLUMN due_at timestamptz DEFAULT now();
CREATE INDEX beat_due ON machine.beat (due_at) WHERE due_at IS NOT NULL;

-- Whatever else can bring a time forward changes the machine: then it is due at once.
CREATE FUNCTION machine.look_again() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    UPDATE machine.beat AS b SET due_at = CASE WHEN NEW.deactivated_at IS NULL THEN now() END
     WHERE b.account_id = NEW.account_id AND b.mode = NEW.mode AND b.machine_id = NEW.machine_id;
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION machine.look_again() FROM PUBLIC;
CREATE TRIGGER due_again AFTER UPDATE ON machine.machine FOR EACH ROW
    WHEN ((OLD.heartbeat_status, OLD.heartbeat_from, OLD.died_at, OLD.offline_until, OLD.lease_epoch, OLD.deactivated_at)
          IS DISTINCT FROM
          (NEW.heartbeat_status, NEW.heartbeat_from, NEW.died_at, NEW.offline_until, NEW.lease_epoch, NEW.deactivated_at))
    EXECUTE FUNCTION machine.look_again();
