-- min_compatible: 1
-- A lease may be held by a stream: the latest stream alone renews it.

ALTER TABLE machine.beat ADD COLUMN lease_holder text COLLATE "C";
