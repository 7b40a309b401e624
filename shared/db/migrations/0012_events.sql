-- min_compatible: 1
-- Accounts read what happened to their licenses.

GRANT SELECT ON record.event TO lictor_license;
