-- What evaluators read (keys, compiled snapshots) and what auditors read.

CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    key_hash bytea NOT NULL, -- SHA-256 of the key's text; the text itself is kept nowhere
    project_id uuid NOT NULL REFERENCES projects,
    environment_id uuid NOT NULL REFERENCES environments,
    organization_id uuid NOT NULL REFERENCES organizations,
    name text NOT NULL,
    masked text NOT NULL,
    permissions text NOT NULL DEFAULT 'read' CHECK (permissions IN ('read', 'write', 'admin')),
    rate_limit_per_minute integer CHECK (rate_limit_per_minute >= 0), -- null: the default of 6,000; 0: unlimited
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz -- written by evaluators, at most once a minute
);
CREATE UNIQUE INDEX api_keys_hash_taken ON api_keys (key_hash);
CREATE INDEX api_keys_project ON api_keys (project_id);

-- One row per environment: its current compiled configuration, replaced by each publish.
CREATE TABLE environment_snapshots (
    environment_id uuid PRIMARY KEY REFERENCES environments,
    project_id uuid NOT NULL REFERENCES projects,
    organization_id uuid NOT NULL REFERENCES organizations,
    version bigint NOT NULL DEFAULT 1 CHECK (version >= 1),
    compiled text NOT NULL, -- {"version":N,"flags":[…],"segments":{…}}; text, since member order carries meaning
    pseudonym_key_id uuid NOT NULL,
    pseudonym_key bytea NOT NULL CHECK (length(pseudonym_key) = 32),
    log_raw_context boolean NOT NULL DEFAULT false,
    subscription_active boolean NOT NULL DEFAULT true,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp() -- rises with every change of the row
);

CREATE TABLE audit_entries (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    project_id uuid REFERENCES projects,
    actor_id uuid REFERENCES users,
    event_type text NOT NULL,
    payload json NOT NULL DEFAULT '{}',
    act_source text NOT NULL DEFAULT 'api' CHECK (act_source IN ('api', 'dashboard', 'system')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX audit_entries_organization ON audit_entries (organization_id, created_at DESC);
