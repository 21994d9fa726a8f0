//! One publish: the environment's configuration compiled (evaluation.md 2), its version raised by one, evaluators told.

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use uuid::Uuid;

use indexmap::IndexMap;

use crate::db::{FromRow, Json, PgConnection, Tx, query, query_as};
use crate::delta::delta;
use crate::error::ApiError;
use crate::limits::{DELTA_DAYS, DELTA_VERSIONS};
use crate::scope::Write;

/// The compiled form of an environment without flags, at its first version.
pub(crate) const FIRST_SNAPSHOT: &str = r#"{"version":1,"flags":[],"segments":{}}"#;

/// Publishes the environments in which `write` changed what is evaluated: version + 1, snapshot, delta, NOTIFY. Where the
/// compiled form is what it was, nothing happens.
///
/// The snapshot's row is locked before the configuration is read, so the last of two concurrent publishes sees the
/// changes of both. Readers that poll take `updated_at` for a revision: it rises with every publish, whichever of two
/// transactions began first.
pub(crate) async fn publish(write: &mut Write, environments: &[Uuid]) -> Result<(), ApiError> {
    let organization = write.caller.organization;
    let mut environments = environments.to_vec();
    environments.sort_unstable(); // One order for all writers: no deadlocks.
    for environment in environments {
        let (version, compiled): (i64, String) = query_as(
            "SELECT version, compiled FROM environment_snapshots
             WHERE environment_id = $1 AND organization_id = $2 FOR UPDATE",
        )
        .bind(environment)
        .bind(organization)
        .fetch_one(&mut *write.tx)
        .await?;
        let body = compile(&mut write.tx, organization, environment).await?;
        if compiled.strip_prefix(&head(version)) == Some(body.as_str()) {
            continue;
        }
        let after = head(version + 1) + &body;
        let changed = delta(&compiled, &after).map_err(|error| ApiError::Internal(error.to_string()))?;
        query(
            "UPDATE environment_snapshots SET version = $3, compiled = $4,
                    updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
             WHERE environment_id = $1 AND organization_id = $2",
        )
        .bind(environment)
        .bind(organization)
        .bind(version + 1)
        .bind(&after)
        .execute(&mut *write.tx)
        .await?;
        keep_delta(&mut write.tx, organization, environment, version + 1, &changed).await?;
        notify(&mut write.tx, "flagmint_config", environment).await?;
    }
    Ok(())
}

/// Keeps what a publish changed, and removes what has been kept long enough.
async fn keep_delta(
    tx: &mut Tx,
    organization: Uuid,
    environment: Uuid,
    version: i64,
    delta: &str,
) -> Result<(), ApiError> {
    query("INSERT INTO environment_deltas (environment_id, organization_id, version, delta) VALUES ($1, $2, $3, $4)")
        .bind(environment)
        .bind(organization)
        .bind(version)
        .bind(delta)
        .execute(&mut **tx)
        .await?;
    query(
        "DELETE FROM environment_deltas WHERE environment_id = $1 AND organization_id = $2
           AND (version <= $3 OR created_at < now() - make_interval(days => $4))",
    )
    .bind(environment)
    .bind(organization)
    .bind(version - DELTA_VERSIONS)
    .bind(DELTA_DAYS)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Tells who listens on `channel`, once the transaction has committed.
pub(crate) async fn notify(connection: &mut PgConnection, channel: &str, id: Uuid) -> Result<(), ApiError> {
    query("SELECT pg_notify($1, $2)").bind(channel).bind(id.to_string()).execute(connection).await?;
    Ok(())
}

fn head(version: i64) -> String {
    format!("{{\"version\":{version},")
}

#[derive(Serialize)]
struct Flag {
    id: Uuid,
    key: String,
    r#type: String,
    is_active: bool,
    default_value: Value,
    off_variation_id: Option<Uuid>,
    targeting_rules: Vec<Rule>,
    variations: Vec<Variation>,
    rollouts: IndexMap<Uuid, Value>,
    analytics_enabled: bool,
}

#[derive(FromRow)]
struct FlagRow {
    id: Uuid,
    key: String,
    r#type: String,
    is_active: bool,
    analytics_enabled: bool,
    off_variation_id: Option<Uuid>,
    default_value: Option<Value>,
    metadata: Json<Map<String, Value>>,
}

#[derive(FromRow, Serialize)]
struct Rule {
    #[serde(skip)]
    flag_id: Uuid,
    id: Uuid,
    kind: String,
    order_index: i32,
    segment_id: Option<Uuid>,
    conditions: Json<Vec<Value>>,
    logical_op: String,
    variation_id: Option<Uuid>,
    rollout_id: Option<Uuid>,
}

#[derive(FromRow, Serialize)]
struct Variation {
    #[serde(skip)]
    flag_id: Uuid,
    id: Uuid,
    value: Value,
    key: String,
    name: String,
}

#[derive(FromRow, Serialize)]
struct Segment {
    id: Uuid,
    rules: Json<Vec<Value>>,
    logical_op: String,
    force: bool,
}

/// Everything after the version: `"flags":[…],"segments":{…}}`, and `"metadata":{…}` if any flag has some that OFREP can
/// carry. Segments that no rule here uses are left out: they decide nothing, and are nobody's business who may only evaluate.
async fn compile(connection: &mut PgConnection, organization: Uuid, environment: Uuid) -> Result<String, ApiError> {
    let rows = flags(connection, organization, environment).await?;
    let metadata: IndexMap<&str, Map<String, Value>> = rows
        .iter()
        .map(|row| (row.key.as_str(), scalars(&row.metadata)))
        .filter(|(_, scalars)| !scalars.is_empty())
        .collect();
    let text = |error: serde_json::Error| ApiError::Internal(error.to_string());
    let metadata = match metadata.len() {
        0 => String::new(),
        _ => format!(",\"metadata\":{}", serde_json::to_string(&metadata).map_err(text)?),
    };
    let mut variations = by_flag(variations(connection, organization, environment).await?, |row| row.flag_id);
    let mut rules = by_flag(rules(connection, organization, environment).await?, |row| row.flag_id);
    let mut rollouts = rollouts(connection, organization, environment).await?;
    let segments = segments(connection, organization, environment).await?;
    let flags: Vec<Flag> = rows
        .into_iter()
        .map(|row| Flag {
            targeting_rules: rules.remove(&row.id).unwrap_or_default(),
            variations: variations.remove(&row.id).unwrap_or_default(),
            rollouts: rollouts.remove(&row.id).unwrap_or_default(),
            id: row.id,
            key: row.key,
            r#type: row.r#type,
            is_active: row.is_active,
            default_value: row.default_value.unwrap_or(Value::Null),
            off_variation_id: row.off_variation_id,
            analytics_enabled: row.analytics_enabled,
        })
        .collect();
    let segments: IndexMap<Uuid, Segment> = segments.into_iter().map(|segment| (segment.id, segment)).collect();
    let flags = serde_json::to_string(&flags).map_err(text)?;
    let segments = serde_json::to_string(&segments).map_err(text)?;
    Ok(format!("\"flags\":{flags},\"segments\":{segments}{metadata}}}"))
}

/// What of a flag's metadata OpenFeature has types for.
fn scalars(metadata: &Map<String, Value>) -> Map<String, Value> {
    let is_scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    metadata.iter().filter(|(_, value)| is_scalar(value)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn by_flag<T>(rows: Vec<T>, flag: impl Fn(&T) -> Uuid) -> HashMap<Uuid, Vec<T>> {
    let mut map: HashMap<Uuid, Vec<T>> = HashMap::new();
    for row in rows {
        map.entry(flag(&row)).or_default().push(row);
    }
    map
}

/// Leaves in each condition what the compiled form has: attribute, operator, value.
fn strip(conditions: &mut [Value]) {
    for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
        condition.retain(|name, _| matches!(name.as_str(), "attribute" | "operator" | "value"));
    }
}

async fn flags(connection: &mut PgConnection, organization: Uuid, environment: Uuid) -> Result<Vec<FlagRow>, ApiError> {
    Ok(query_as(
        "SELECT f.id, f.key, f.type, f.is_active, f.analytics_enabled, f.metadata, v.off_variation_id,
                COALESCE(v.default_value, d.value) AS default_value
         FROM environments e
         JOIN flags f ON f.project_id = e.project_id AND f.organization_id = e.organization_id
         LEFT JOIN flag_values v ON v.flag_id = f.id AND v.environment_id = e.id AND v.deleted_at IS NULL
         LEFT JOIN variations d ON d.flag_id = f.id AND d.is_default AND d.deleted_at IS NULL
         WHERE e.id = $1 AND e.organization_id = $2 AND f.archived_at IS NULL AND f.deleted_at IS NULL
         ORDER BY f.created_at, f.id",
    )
    .bind(environment)
    .bind(organization)
    .fetch_all(connection)
    .await?)
}

async fn variations(
    connection: &mut PgConnection,
    organization: Uuid,
    environment: Uuid,
) -> Result<Vec<Variation>, ApiError> {
    Ok(query_as(
        "SELECT v.flag_id, v.id, v.value, v.key, v.name
         FROM environments e
         JOIN variations v ON v.project_id = e.project_id AND v.organization_id = e.organization_id
         WHERE e.id = $1 AND e.organization_id = $2 AND v.deleted_at IS NULL
         ORDER BY v.order_index, v.created_at, v.id",
    )
    .bind(environment)
    .bind(organization)
    .fetch_all(connection)
    .await?)
}

async fn rules(connection: &mut PgConnection, organization: Uuid, environment: Uuid) -> Result<Vec<Rule>, ApiError> {
    let mut rules: Vec<Rule> = query_as(
        "SELECT flag_id, id, kind, order_index, segment_id, conditions, logical_op, variation_id, rollout_id
         FROM targeting_rules
         WHERE environment_id = $1 AND organization_id = $2 AND deleted_at IS NULL
         ORDER BY order_index, created_at, id",
    )
    .bind(environment)
    .bind(organization)
    .fetch_all(connection)
    .await?;
    rules.iter_mut().for_each(|rule| strip(&mut rule.conditions));
    Ok(rules)
}

async fn rollouts(
    connection: &mut PgConnection,
    organization: Uuid,
    environment: Uuid,
) -> Result<HashMap<Uuid, IndexMap<Uuid, Value>>, ApiError> {
    let rows: Vec<(Uuid, Uuid, Value)> = query_as(
        "SELECT flag_id, id, config FROM rollouts
         WHERE environment_id = $1 AND organization_id = $2 AND deleted_at IS NULL
         ORDER BY created_at, id",
    )
    .bind(environment)
    .bind(organization)
    .fetch_all(connection)
    .await?;
    let mut map: HashMap<Uuid, IndexMap<Uuid, Value>> = HashMap::new();
    for (flag, id, config) in rows {
        map.entry(flag).or_default().insert(id, config);
    }
    Ok(map)
}

async fn segments(
    connection: &mut PgConnection,
    organization: Uuid,
    environment: Uuid,
) -> Result<Vec<Segment>, ApiError> {
    let mut segments: Vec<Segment> = query_as(
        "SELECT s.id, s.rules, s.logical_op, s.force FROM segments s
         WHERE s.organization_id = $2 AND s.deleted_at IS NULL
           AND s.id IN (SELECT r.segment_id FROM targeting_rules r JOIN flags f ON f.id = r.flag_id
                        WHERE r.environment_id = $1 AND r.organization_id = $2 AND r.deleted_at IS NULL
                          AND f.archived_at IS NULL AND f.deleted_at IS NULL)
         ORDER BY s.created_at, s.id",
    )
    .bind(environment)
    .bind(organization)
    .fetch_all(connection)
    .await?;
    segments.iter_mut().for_each(|segment| strip(&mut segment.rules));
    Ok(segments)
}
