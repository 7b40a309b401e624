-- min_compatible: 1
-- The license files that were issued: which, until when, and signed with what. The files themselves are kept nowhere.

CREATE TABLE license.license_file (
    account_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    license_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL CHECK (seq >= 0),
    license_file_id text COLLATE "C" NOT NULL,
    signing_key_id text COLLATE "C" NOT NULL,
    issued_at timestamptz NOT NULL,
    not_before timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    encrypted boolean NOT NULL,
    bound boolean NOT NULL,
    PRIMARY KEY (account_id, mode, license_id, seq),
    CONSTRAINT license_file_license FOREIGN KEY (account_id, mode, license_id)
        REFERENCES license.license ON DELETE CASCADE
);
CALL record.isolate('license.license_file', 'lictor_license');
GRANT SELECT, INSERT ON license.license_file TO lictor_license;
