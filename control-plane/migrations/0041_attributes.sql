-- The schema of contexts: what attributes there are, for the rule builder, and which of them are private. It holds no user data, and
-- evaluation never asks it.
CREATE TABLE attributes (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_id uuid REFERENCES organizations, -- null: a system attribute, the same for all organizations
    key text NOT NULL,
    label text NOT NULL,
    type text NOT NULL CHECK (type IN ('string', 'number', 'boolean', 'date', 'array')),
    category text NOT NULL CHECK (category IN ('user', 'organization', 'device', 'custom')),
    operators json NOT NULL,
    private boolean NOT NULL DEFAULT false,
    suggestions json,
    placeholder text,
    description text,
    created_by uuid REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX attributes_key_taken ON attributes (organization_id, key) WHERE deleted_at IS NULL;

-- Which attributes an organization does not want to be offered: system ones belong to all, so this cannot stand in their rows.
CREATE TABLE inactive_attributes (
    organization_id uuid NOT NULL REFERENCES organizations,
    attribute_id uuid NOT NULL REFERENCES attributes,
    PRIMARY KEY (organization_id, attribute_id)
);

-- Keys of the organization's private attributes, sorted: what evaluators must not log, beside what is private by name.
ALTER TABLE environment_snapshots ADD COLUMN private_attributes text[] NOT NULL DEFAULT '{}';

-- Those marked private are so by name already (data plane 11); the mark says it to whoever reads the list.
INSERT INTO attributes (key, label, type, category, operators, private)
SELECT category || '.' || name, label, type, category,
       CASE type WHEN 'string' THEN '["exists","not_exists","eq","neq","in","nin","contains","not_contains","startsWith","endsWith"]'
                 WHEN 'number' THEN '["exists","not_exists","eq","neq","in","nin","gt","lt"]'
                 ELSE '["exists","not_exists","eq","neq"]' END::json,
       private
FROM (VALUES
    ('user', 'key', 'User key', 'string', false),
    ('user', 'country', 'Country', 'string', false),
    ('user', 'language', 'Language', 'string', false),
    ('user', 'age', 'Age', 'number', false),
    ('user', 'role', 'Role', 'string', false),
    ('user', 'email', 'E-mail address', 'string', true),
    ('user', 'name', 'Name', 'string', true),
    ('user', 'phone', 'Telephone number', 'string', true),
    ('organization', 'key', 'Organization key', 'string', false),
    ('organization', 'name', 'Organization name', 'string', true),
    ('organization', 'plan', 'Plan', 'string', false),
    ('organization', 'employeeCount', 'Number of employees', 'number', false),
    ('device', 'platform', 'Platform', 'string', false),
    ('device', 'browser', 'Browser', 'string', false),
    ('device', 'os', 'Operating system', 'string', false),
    ('device', 'mobile', 'Is mobile', 'boolean', false)
) AS system (category, name, label, type, private);
