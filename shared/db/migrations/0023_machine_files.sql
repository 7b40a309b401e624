-- min_compatible: 1
-- The machine files that were issued: which, until when, and signed with what. The files themselves are kept nowhere.

CREATE TABLE machine.machine_file (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    machine_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL CHECK (seq >= 1),
    machine_file_id text COLLATE "C" NOT NULL,
    signing_key_id text COLLATE "C" NOT NULL,
    issued_at timestamptz NOT NULL,
    not_before timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    encrypted boolean NOT NULL,
    PRIMARY KEY (account_id, mode, machine_id, seq),
    CONSTRAINT machine_file_machine FOREIGN KEY (account_id, mode, machine_id)
        REFERENCES machine.machine ON DELETE CASCADE
);
CALL record.isolate('machine.machine_file', 'lictor_machine');
GRANT SELECT, INSERT ON machine.machine_file TO lictor_machine;
