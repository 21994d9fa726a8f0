//! FLG-1: `POST /projects/{projectId}/flags`.

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Flag, select};
use crate::ControlPlane;
use crate::caller::{Caller, Editor};
use crate::db::{Tx, query, query_as, query_scalar};
use crate::error::{ApiError, ErrorBody, Problems};
use crate::limits::MAX_METADATA_BYTES;
use crate::publish::publish;
use crate::reply::{Envelope, Reply, created};
use crate::request::{Body, Ids};
use crate::scope::{self, Write};
use crate::text::{check_description, check_name, is_key, kebab, unique};
use crate::values::{FlagType, new_part_id, new_salt};

/// Keys that clients would take for members of an envelope.
const RESERVED_KEYS: &[&str] = &["statusCode", "message", "data"];

/// A flag to be.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewFlag {
    name: String,
    /// Made from the name if left out.
    key: Option<String>,
    /// `boolean`, `string`, `number` or `json`; required unless template or flavor implies it.
    r#type: Option<String>,
    description: Option<String>,
    is_active: Option<bool>,
    client_side_enabled: Option<bool>,
    analytics_enabled: Option<bool>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    /// The environment whose state the reply shows first.
    #[serde(rename = "envId")]
    env_id: Option<Uuid>,
    /// `gradual_rollout`, `kill_switch` or `ab_test`.
    template: Option<String>,
    /// Of an `ab_test`: `string`, `number` or `json`.
    flavor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Template {
    GradualRollout,
    KillSwitch,
    AbTest,
}

impl Template {
    const NAMES: &[(&str, Self)] =
        &[("gradual_rollout", Self::GradualRollout), ("kill_switch", Self::KillSwitch), ("ab_test", Self::AbTest)];
}

/// What a request asks for, once it is known to be sound.
struct Plan {
    flag_type: FlagType,
    template: Option<Template>,
    metadata: Map<String, Value>,
}

/// Creates a flag with two variations, and a value in every environment.
#[utoipa::path(post, path = "/projects/{projectId}/flags", tag = "Flags", request_body = NewFlag,
    params(("projectId" = Uuid, Path)), responses(
    (status = 201, body = Envelope<Flag>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, description = "Role, or the plan's flags per project", body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 409, description = "Key taken", body = ErrorBody),
    (status = 429, description = "20 per organization and hour", body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn create(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    Ids(ids): Ids<1>,
    Body(request): Body<NewFlag>,
) -> Reply<Flag> {
    let [project] = ids;
    let plan = check(&request)?;
    let mut write = Write::begin(&plane, caller, project).await?;
    if let Some(environment) = request.env_id {
        scope::environment(&mut write.tx, &caller, project, environment).await?;
    }
    check_limits(&mut write.tx, &caller, project).await?;
    let key = key(&mut write.tx, &caller, project, &request).await?;
    let flag = insert(&mut write, &request, &plan, &key).await?;
    let variations = seed_variations(&mut write, flag, plan.flag_type).await?;
    let environments = write.environments().await?;
    for environment in &environments {
        seed_environment(&mut write.tx, &caller, flag, *environment, plan.template, &variations).await?;
    }
    let payload = json!({"flag_id": flag, "key": key, "name": request.name, "type": plan.flag_type.name()});
    write.audit("flag.created", payload).await?;
    publish(&mut write, &environments).await?;
    let mut row: Flag = query_as(&format!("{} WHERE f.id = $1 AND f.organization_id = $2", select()))
        .bind(flag)
        .bind(caller.organization)
        .fetch_one(&mut *write.tx)
        .await?;
    write.tx.commit().await?;
    plane.meter(caller.organization, project, None);
    row.environments.sort_by_key(|environment| Some(environment.id) != request.env_id);
    created(row)
}

fn check(request: &NewFlag) -> Result<Plan, ApiError> {
    let mut problems = Problems::default();
    check_name(&mut problems, "name", &request.name);
    check_description(&mut problems, "description", request.description.as_deref());
    if let Some(key) = &request.key {
        let rule = "must be 1 to 128 letters, digits, dots, underscores or dashes, the first a letter or digit";
        problems.check(is_key(key), "key", rule);
        problems.check(!RESERVED_KEYS.contains(&key.as_str()), "key", "is reserved");
    }
    let mut metadata = request.metadata.clone().unwrap_or_default();
    let template = request.template.as_deref().and_then(|name| {
        let found = Template::NAMES.iter().find(|(other, _)| *other == name).map(|(_, template)| *template);
        problems.check(found.is_some(), "template", "must be gradual_rollout, kill_switch or ab_test");
        metadata.insert("flag_template".to_owned(), name.into());
        found
    });
    let bytes = Value::Object(metadata.clone()).to_string().len();
    problems.check(bytes <= MAX_METADATA_BYTES, "metadata", "must be at most 16 KiB");
    let active = !(template == Some(Template::KillSwitch) && request.is_active == Some(false));
    problems.check(active, "is_active", "a kill switch is created active");
    let flag_type = flag_type(request, template, &mut problems);
    problems.finish()?;
    let flag_type = flag_type.ok_or_else(|| ApiError::invalid("type", "is required"))?;
    Ok(Plan { flag_type, template, metadata })
}

/// The type, as given or as implied.
fn flag_type(request: &NewFlag, template: Option<Template>, problems: &mut Problems) -> Option<FlagType> {
    let mut read = |path: &str, text: &Option<String>| {
        let text = text.as_deref()?;
        let flag_type = FlagType::parse(text);
        problems.check(flag_type.is_some(), path, "must be boolean, string, number or json");
        flag_type
    };
    let stated = read("type", &request.r#type);
    let flavor = read("flavor", &request.flavor);
    let implied = match template {
        Some(Template::GradualRollout | Template::KillSwitch) => Some(FlagType::Boolean),
        Some(Template::AbTest) => {
            let known = matches!(flavor, Some(FlagType::String | FlagType::Number | FlagType::Json));
            problems.check(known, "flavor", "must be string, number or json for an ab_test");
            flavor
        }
        None => flavor,
    };
    let agree = implied.is_none() || stated.is_none() || implied == stated;
    problems.check(agree, "type", "is not the one that template or flavor imply");
    problems.check(request.r#type.is_some() || implied.is_some(), "type", "is required");
    implied.or(stated)
}

/// The hourly limit (exact, over all instances: the flags themselves are counted), then the plan's flags per project.
async fn check_limits(tx: &mut Tx, caller: &Caller, project: Uuid) -> Result<(), ApiError> {
    let (hourly, max_flags): (Option<i64>, Option<i64>) = query_as(
        "SELECT l.max_flag_creations_per_hour, l.max_flags
         FROM organizations o JOIN plans l ON l.id = o.plan_id WHERE o.id = $1 FOR NO KEY UPDATE OF o",
    )
    .bind(caller.organization)
    .fetch_one(&mut **tx)
    .await?;
    if let Some(hourly) = hourly {
        // When the flag that is `hourly` flags back leaves the window, another one may enter.
        let wait_s: Option<f64> = query_scalar(
            "SELECT extract(epoch FROM created_at + interval '1 hour' - clock_timestamp())::float8 FROM flags
             WHERE organization_id = $1 AND created_at > clock_timestamp() - interval '1 hour'
             ORDER BY created_at DESC OFFSET greatest($2 - 1, 0) LIMIT 1",
        )
        .bind(caller.organization)
        .bind(hourly)
        .fetch_optional(&mut **tx)
        .await?;
        if let Some(wait_s) = wait_s {
            return Err(ApiError::RateLimited(wait_s.ceil().max(1.0) as u64));
        }
    }
    let used: i64 = query_scalar(
        "SELECT count(*) FROM flags
         WHERE project_id = $1 AND organization_id = $2 AND archived_at IS NULL AND deleted_at IS NULL",
    )
    .bind(project)
    .bind(caller.organization)
    .fetch_one(&mut **tx)
    .await?;
    match max_flags {
        Some(limit) if used >= limit => Err(ApiError::PlanLimit { what: "flags", limit, used }),
        _ => Ok(()),
    }
}

/// The key asked for, or one made from the name that is free.
async fn key(tx: &mut Tx, caller: &Caller, project: Uuid, request: &NewFlag) -> Result<String, ApiError> {
    if let Some(key) = &request.key {
        return Ok(key.clone());
    }
    let key = kebab(&request.name, "flag");
    let taken: Vec<String> = query_scalar(
        "SELECT key FROM flags WHERE project_id = $1 AND organization_id = $2 AND deleted_at IS NULL
           AND (key = $3 OR starts_with(key, $3 || '-'))",
    )
    .bind(project)
    .bind(caller.organization)
    .bind(&key)
    .fetch_all(&mut **tx)
    .await?;
    Ok(unique(key, |key| RESERVED_KEYS.contains(&key) || taken.iter().any(|other| other == key)))
}

async fn insert(write: &mut Write, request: &NewFlag, plan: &Plan, key: &str) -> Result<Uuid, ApiError> {
    let flag = Uuid::now_v7();
    query(
        "INSERT INTO flags (id, project_id, organization_id, key, name, type, description, is_active,
                            client_side_enabled, analytics_enabled, metadata)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::json)",
    )
    .bind(flag)
    .bind(write.project)
    .bind(write.caller.organization)
    .bind(key)
    .bind(&request.name)
    .bind(plan.flag_type.name())
    .bind(&request.description)
    .bind(request.is_active.unwrap_or(true))
    .bind(request.client_side_enabled.unwrap_or(false))
    .bind(request.analytics_enabled.unwrap_or(false))
    .bind(Value::Object(plan.metadata.clone()).to_string())
    .execute(&mut *write.tx)
    .await?;
    Ok(flag)
}

/// The two variations every flag begins with; their ids in order.
async fn seed_variations(write: &mut Write, flag: Uuid, flag_type: FlagType) -> Result<[Uuid; 2], ApiError> {
    let seeds = match flag_type {
        FlagType::Boolean => [("on", "On", json!(true), false), ("off", "Off", json!(false), true)],
        FlagType::String => pair(&json!("")),
        FlagType::Number => pair(&json!(0)),
        FlagType::Json => pair(&json!({})),
    };
    let ids = [new_part_id(flag), new_part_id(flag)];
    for (index, (key, name, value, is_default)) in (0_i32..).zip(seeds) {
        query(
            "INSERT INTO variations (id, flag_id, project_id, organization_id, key, name, value, is_default, order_index)
             VALUES ($1, $2, $3, $4, $5, $6, $7::json, $8, $9)",
        )
        .bind(ids[usize::from(index != 0)])
        .bind(flag)
        .bind(write.project)
        .bind(write.caller.organization)
        .bind(key)
        .bind(name)
        .bind(value.to_string())
        .bind(is_default)
        .bind(index)
        .execute(&mut *write.tx)
        .await?;
    }
    Ok(ids)
}

fn pair(empty: &Value) -> [(&'static str, &'static str, Value, bool); 2] {
    [("variation-a", "Variation A", empty.clone(), true), ("variation-b", "Variation B", empty.clone(), false)]
}

/// The flag's value in an environment, and the rollout its template brings.
async fn seed_environment(
    tx: &mut Tx,
    caller: &Caller,
    flag: Uuid,
    environment: Uuid,
    template: Option<Template>,
    variations: &[Uuid; 2],
) -> Result<(), ApiError> {
    query("INSERT INTO flag_values (id, flag_id, environment_id, organization_id) VALUES ($1, $2, $3, $4)")
        .bind(Uuid::now_v7())
        .bind(flag)
        .bind(environment)
        .bind(caller.organization)
        .execute(&mut **tx)
        .await?;
    let config = match template {
        Some(Template::GradualRollout) => json!({"strategy": "gradual", "target_percentage": 0, "increment": 10,
            "interval_hours": 24, "salt": new_salt(), "start_at": crate::values::now_text()}),
        Some(Template::AbTest) => {
            let variants = variations.map(|id| json!({"variation_id": id, "weight": 50}));
            json!({"strategy": "variant", "salt": new_salt(), "variants": variants})
        }
        Some(Template::KillSwitch) | None => return Ok(()),
    };
    crate::rollouts::insert(tx, caller, flag, environment, &config).await?;
    Ok(())
}
