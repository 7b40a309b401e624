-- min_compatible: 1
-- Leases of seats: each lease of a license has a number, greater than those before it.

ALTER TABLE machine.seat ADD COLUMN lease_epochs bigint NOT NULL DEFAULT 0 CHECK (lease_epochs >= 0);
