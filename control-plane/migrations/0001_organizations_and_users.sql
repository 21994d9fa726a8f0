-- Who may do what: the installation's secret, plans, organizations, users and their sessions.

CREATE TABLE installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    access_token_secret bytea NOT NULL CHECK (length(access_token_secret) = 32), -- HS256
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Null in a max_ column is unlimited.
CREATE TABLE plans (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    most_popular boolean NOT NULL DEFAULT false,
    max_projects bigint,
    max_flags bigint, -- per project
    max_environments bigint,
    max_api_calls bigint, -- per calendar month in UTC
    max_connections bigint,
    max_observed_contexts bigint,
    max_track_events bigint,
    max_flag_creations_per_hour bigint, -- per organization, sliding
    audit_retention_days bigint,
    trial_days bigint,
    overage_rate_eur_cents bigint,
    overage_block_size bigint,
    grace_buffer_pct bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX plans_name_taken ON plans (name) WHERE deleted_at IS NULL;

INSERT INTO plans (name, most_popular, max_projects, max_flags, max_environments, max_api_calls,
                   max_flag_creations_per_hour, audit_retention_days, overage_rate_eur_cents, overage_block_size) VALUES
    ('Free',   false, 1,    5,    2,    500,    20, 7,    NULL, NULL),
    ('Pro',    true,  3,    25,   5,    50000,  20, 30,   400,  1000000),
    ('Growth', false, 10,   NULL, 10,   500000, 20, 90,   350,  1000000),
    ('Custom', false, NULL, NULL, NULL, NULL,   20, NULL, NULL, NULL);

CREATE TABLE organizations (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    plan_id uuid NOT NULL REFERENCES plans,
    subscription_status text NOT NULL DEFAULT 'active',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);

CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL CHECK (email = lower(email)),
    name text NOT NULL,
    password_hash text, -- PHC string of Argon2id; null until a password was set
    last_login_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX users_email_taken ON users (email) WHERE deleted_at IS NULL;

-- A user is a member of one organization at a time.
CREATE TABLE memberships (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    user_id uuid NOT NULL REFERENCES users,
    role text NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX memberships_user_taken ON memberships (user_id) WHERE deleted_at IS NULL;
CREATE INDEX memberships_organization ON memberships (organization_id);

CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE INDEX sessions_user ON sessions (user_id);

-- Used tokens stay until they expire: only so can a replay be told from an unknown token.
CREATE TABLE refresh_tokens (
    token_hash bytea PRIMARY KEY, -- SHA-256 of the token's text
    session_id uuid NOT NULL REFERENCES sessions,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);
