-- The rights that Flagmint needs, no more. Run this as an administrator, with other passwords; `flagmint` is the database.
-- dev/servers/clickhouse-users gives the users of the tests these very rights.

-- Whoever runs `flagmint migrate`.
CREATE USER flagmint_owner IDENTIFIED BY 'choose a password';
GRANT CREATE DATABASE, CREATE TABLE, DROP TABLE, ALTER TABLE, SELECT, INSERT ON flagmint.* TO flagmint_owner;
GRANT TABLE ENGINE ON * TO flagmint_owner;

-- Aggregators: they store cells and rewrite closed hours and days.
CREATE USER flagmint_writer IDENTIFIED BY 'choose a password';
GRANT SELECT, INSERT, ALTER DELETE ON flagmint.* TO flagmint_writer;
-- To know which generations and pages there are to delete.
GRANT SELECT ON system.parts TO flagmint_writer;

-- Query APIs.
CREATE USER flagmint_reader IDENTIFIED BY 'choose a password';
GRANT SELECT ON flagmint.* TO flagmint_reader;
