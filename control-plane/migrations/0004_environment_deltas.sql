-- What each publish changed, for clients that hold the configuration and evaluate by themselves. Written with the snapshot; the oldest
-- rows of an environment are removed when it is published.
CREATE TABLE environment_deltas (
    environment_id uuid NOT NULL REFERENCES environments,
    organization_id uuid NOT NULL REFERENCES organizations,
    version bigint NOT NULL CHECK (version > 1), -- the one it leads to, from the one before
    delta text NOT NULL, -- {"upserts":[…],"deletes":[…],"segments":{…}}; text, since member order carries meaning
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment_id, version)
);
