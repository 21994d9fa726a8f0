-- What each evaluator instance admitted of each key in a minute, told once a second to the others. Worth nothing a minute later, so it
-- is not logged: after a crash of Postgres the instances tell it again.
CREATE UNLOGGED TABLE key_rates (
    minute bigint NOT NULL, -- since the epoch
    key_id uuid NOT NULL,
    instance_id uuid NOT NULL,
    requests bigint NOT NULL,
    PRIMARY KEY (minute, key_id, instance_id)
);
