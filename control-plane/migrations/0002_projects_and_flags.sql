-- What is configured. Every row carries its organization, so that every query can name it.
-- Things listed by age use clock_timestamp(): now() would give all rows of one transaction the same time.
-- JSON is stored as json, not jsonb: the order of members as written is served to applications.

CREATE TABLE projects (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    name text NOT NULL,
    project_key text NOT NULL,
    description text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    archived_at timestamptz,
    deleted_at timestamptz
);
CREATE UNIQUE INDEX projects_key_taken ON projects (organization_id, project_key) WHERE deleted_at IS NULL;

CREATE TABLE environments (
    id uuid PRIMARY KEY,
    project_id uuid NOT NULL REFERENCES projects,
    organization_id uuid NOT NULL REFERENCES organizations,
    name text NOT NULL,
    slug text NOT NULL,
    is_default boolean NOT NULL DEFAULT false,
    log_raw_context boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX environments_slug_taken ON environments (project_id, slug) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX environments_one_default ON environments (project_id) WHERE is_default AND deleted_at IS NULL;

CREATE TABLE flags (
    id uuid PRIMARY KEY,
    project_id uuid NOT NULL REFERENCES projects,
    organization_id uuid NOT NULL REFERENCES organizations,
    key text NOT NULL,
    name text NOT NULL,
    type text NOT NULL CHECK (type IN ('boolean', 'string', 'number', 'json')),
    description text,
    is_active boolean NOT NULL DEFAULT true,
    client_side_enabled boolean NOT NULL DEFAULT false,
    analytics_enabled boolean NOT NULL DEFAULT false,
    metadata json NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    archived_at timestamptz,
    deleted_at timestamptz
);
CREATE UNIQUE INDEX flags_key_taken ON flags (project_id, key) WHERE deleted_at IS NULL;
CREATE INDEX flags_created ON flags (organization_id, created_at); -- the hourly limit counts here

-- Both may be set by one bulk update in any order, so they hold at commit and not per statement.
CREATE TABLE variations (
    id uuid PRIMARY KEY,
    flag_id uuid NOT NULL REFERENCES flags,
    project_id uuid NOT NULL REFERENCES projects,
    organization_id uuid NOT NULL REFERENCES organizations,
    key text NOT NULL,
    name text NOT NULL,
    description text,
    value json NOT NULL,
    is_default boolean NOT NULL DEFAULT false,
    order_index integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    CONSTRAINT variations_key_taken EXCLUDE USING btree (flag_id WITH =, key WITH =)
        WHERE (deleted_at IS NULL) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT variations_one_default EXCLUDE USING btree (flag_id WITH =)
        WHERE (is_default AND deleted_at IS NULL) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX variations_flag ON variations (flag_id);
CREATE INDEX variations_project ON variations (project_id);

CREATE TABLE flag_values (
    id uuid PRIMARY KEY,
    flag_id uuid NOT NULL REFERENCES flags,
    environment_id uuid NOT NULL REFERENCES environments,
    organization_id uuid NOT NULL REFERENCES organizations,
    default_value json, -- null: the flag's default variation is served
    off_variation_id uuid REFERENCES variations,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX flag_values_taken ON flag_values (flag_id, environment_id) WHERE deleted_at IS NULL;
CREATE INDEX flag_values_environment ON flag_values (environment_id);

CREATE TABLE segments (
    id uuid PRIMARY KEY,
    project_id uuid NOT NULL REFERENCES projects,
    organization_id uuid NOT NULL REFERENCES organizations,
    key text NOT NULL,
    name text NOT NULL,
    description text,
    rules json NOT NULL DEFAULT '[]',
    logical_op text NOT NULL CHECK (logical_op IN ('AND', 'OR', 'NOT')),
    force boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX segments_key_taken ON segments (project_id, key) WHERE deleted_at IS NULL;

CREATE TABLE rollouts (
    id uuid PRIMARY KEY,
    flag_id uuid NOT NULL REFERENCES flags,
    environment_id uuid NOT NULL REFERENCES environments,
    organization_id uuid NOT NULL REFERENCES organizations,
    strategy text NOT NULL CHECK (strategy IN ('off', 'percentage', 'variant', 'gradual')),
    config json NOT NULL, -- with the strategy, as it is compiled
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE INDEX rollouts_environment ON rollouts (environment_id, flag_id);

CREATE TABLE targeting_rules (
    id uuid PRIMARY KEY,
    flag_id uuid NOT NULL REFERENCES flags,
    environment_id uuid NOT NULL REFERENCES environments,
    project_id uuid NOT NULL REFERENCES projects,
    organization_id uuid NOT NULL REFERENCES organizations,
    kind text NOT NULL CHECK (kind IN ('segment', 'custom')),
    name text,
    conditions json NOT NULL DEFAULT '[]',
    order_index integer NOT NULL DEFAULT 0,
    segment_id uuid REFERENCES segments,
    variation_id uuid REFERENCES variations,
    rollout_id uuid REFERENCES rollouts,
    logical_op text NOT NULL DEFAULT 'AND' CHECK (logical_op IN ('AND', 'OR', 'NOT')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    CONSTRAINT targeting_rules_one_subject CHECK ((kind = 'segment') = (segment_id IS NOT NULL)),
    CONSTRAINT targeting_rules_one_result CHECK ((variation_id IS NULL) <> (rollout_id IS NULL))
);
CREATE INDEX targeting_rules_environment ON targeting_rules (environment_id, flag_id);
