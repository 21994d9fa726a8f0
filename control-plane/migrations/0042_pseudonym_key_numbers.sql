-- The keys of an environment's pseudonyms are numbered from 1: records of the log name theirs by its number, which takes them no more bytes.
ALTER TABLE environment_snapshots ADD COLUMN pseudonym_key_number integer NOT NULL DEFAULT 1
    CHECK (pseudonym_key_number BETWEEN 1 AND 16777215); -- 24 bits
