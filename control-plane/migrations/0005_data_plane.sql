-- What instances of the data plane share besides configuration.

-- Seals session and connection ids, which every instance must be able to open. Two random UUIDs have 244 random bits.
ALTER TABLE installation ADD COLUMN data_plane_secret bytea NOT NULL CHECK (length(data_plane_secret) = 32)
    DEFAULT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');

-- Session ids used within the last minute. Not worth a log record each: after a crash of Postgres all of them have expired.
CREATE UNLOGGED TABLE used_sessions (
    session_hash bytea PRIMARY KEY CHECK (length(session_hash) = 32), -- SHA-256 of the session id
    expires_at timestamptz NOT NULL
);
CREATE INDEX used_sessions_expiry ON used_sessions (expires_at);

-- Organizations that have reached a monthly limit without overage. No row: below it. Who changes a row notifies flagmint_limits.
CREATE TABLE organization_limits (
    organization_id uuid NOT NULL REFERENCES organizations,
    meter text NOT NULL CHECK (meter IN ('api_calls', 'connections', 'observed_contexts', 'track_events')),
    limited_until timestamptz NOT NULL, -- the end of the month
    plan_name text NOT NULL,
    PRIMARY KEY (organization_id, meter)
);
