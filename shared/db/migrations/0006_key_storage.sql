-- min_compatible: 1
-- License keys that can be shown again: sealed beside their hash, under a key that is not in the database.

-- Products from before, and those that a process of the version before makes, keep hashes alone.
ALTER TABLE license.product
    ADD COLUMN key_storage text COLLATE "C" NOT NULL DEFAULT 'HASH_ONLY' CHECK (key_storage IN ('SEALED', 'HASH_ONLY'));

ALTER TABLE license.license_key
    ADD COLUMN kek_version int CHECK (kek_version >= 1),
    ADD COLUMN nonce bytea,
    ADD COLUMN ciphertext bytea,
    ADD CONSTRAINT license_key_sealed CHECK (num_nulls(kek_version, nonce, ciphertext) IN (0, 3));
