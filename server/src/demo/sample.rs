//! Makes the sample organization's project through the management API, or finds it from an earlier run.

use serde_json::{Value, json};

use super::flags::{SampleFlag, flags, segment};
use super::management::{Management, text};
use crate::exit::Failure;

const PROJECT_KEY: &str = "sample-shop";
const KEY_NAME: &str = "demo";

/// What the demo works with.
pub struct Sample {
    /// The project.
    pub project_id: String,
    /// Receives the load.
    pub live: Place,
    /// Receives the marker requests, so that each can be told from the load.
    pub staging: Place,
    /// Key and id of each flag.
    pub flags: Vec<(String, String)>,
}

/// An environment with a key of its own.
pub struct Place {
    /// The environment.
    pub environment_id: String,
    /// An SDK key without a limit per minute.
    pub sdk_key: String,
}

/// Makes what is missing of the sample project, and new keys in place of an earlier run's.
///
/// # Errors
/// If the management API refuses.
pub async fn prepare(api: &mut Management, flag_count: u32) -> Result<Sample, Failure> {
    let found = api.get(&format!("/projects?q={PROJECT_KEY}")).await?;
    let project = match found["data"]["data"].as_array().and_then(|list| list.first()) {
        Some(project) => project.clone(),
        None => {
            let ask =
                json!({ "name": "Sample shop", "projectKey": PROJECT_KEY, "description": "Made by flagmint demo" });
            api.post("/projects", &ask).await?
        }
    };
    let project_id = text(&project, "id")?;
    let environments = api.get(&format!("/projects/{project_id}/environments")).await?;
    let environment = |slug: &str| {
        let list = environments["data"].as_array().into_iter().flatten();
        list.clone().find(|environment| environment["slug"] == slug).map_or_else(
            || Err(Failure::DoesNotHold(format!("the sample project has no environment {slug}"))),
            |environment| text(environment, "id"),
        )
    };
    let (live, staging) = (environment("live")?, environment("staging")?);
    let flags = make_flags(api, &project_id, &live, flag_count).await?;
    revoke_keys(api, &project_id).await?;
    Ok(Sample {
        live: place(api, &project_id, live).await?,
        staging: place(api, &project_id, staging).await?,
        flags,
        project_id,
    })
}

async fn place(api: &Management, project_id: &str, environment_id: String) -> Result<Place, Failure> {
    let ask = json!({ "name": KEY_NAME, "environment_id": environment_id, "rate_limit_per_minute": 0 });
    let key = api.post(&format!("/api-keys/{project_id}"), &ask).await?;
    Ok(Place { environment_id, sdk_key: text(&key, "key")? })
}

/// Only hashes of keys are kept, so an earlier run's keys cannot be used again.
async fn revoke_keys(api: &mut Management, project_id: &str) -> Result<(), Failure> {
    let keys = api.get(&format!("/api-keys/{project_id}?limit=100")).await?;
    for key in keys["data"]["data"].as_array().into_iter().flatten() {
        if key["name"] == KEY_NAME && key["revoked_at"].is_null() {
            api.delete(&format!("/api-keys/{project_id}/{}", text(key, "id")?)).await?;
        }
    }
    Ok(())
}

async fn make_flags(
    api: &mut Management,
    project_id: &str,
    environment_id: &str,
    count: u32,
) -> Result<Vec<(String, String)>, Failure> {
    let mut made = existing_flags(api, project_id).await?;
    let mut segment_id = None;
    for flag in flags(count) {
        if made.iter().any(|(key, _)| *key == flag.key) {
            continue;
        }
        if flag.rule.as_ref().is_some_and(|rule| rule["kind"] == "segment") && segment_id.is_none() {
            segment_id = Some(text(&api.post(&format!("/projects/{project_id}/segments"), &segment()).await?, "id")?);
        }
        let id = make_flag(api, project_id, environment_id, &flag, segment_id.as_deref()).await?;
        made.push((flag.key, id));
    }
    Ok(made)
}

async fn existing_flags(api: &mut Management, project_id: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut found = Vec::new();
    for page in 1.. {
        let path = format!("/projects/{project_id}/flags?limit=100&page={page}&sortBy=created_at&sortDirection=asc");
        let list = api.get(&path).await?;
        let rows = list["data"]["data"].as_array().cloned().unwrap_or_default();
        for row in &rows {
            found.push((text(row, "key")?, text(row, "id")?));
        }
        if rows.len() < 100 {
            break;
        }
    }
    Ok(found)
}

async fn make_flag(
    api: &mut Management,
    project_id: &str,
    environment_id: &str,
    flag: &SampleFlag,
    segment_id: Option<&str>,
) -> Result<String, Failure> {
    let id = text(&api.post(&format!("/projects/{project_id}/flags"), &flag.creation).await?, "id")?;
    let variations_path = format!("/projects/{project_id}/flags/{id}/variations");
    let variations = api.get(&variations_path).await?["data"].take();
    if let Some(values) = &flag.values {
        api.put(&variations_path, &json!({ "updates": updates(&variations, values) })).await?;
    }
    let mut names = vec![("A", text(&variations[0], "id")?), ("B", text(&variations[1], "id")?)];
    names.extend(segment_id.map(|id| ("segment", id.to_owned())));
    if let Some(rollout) = &flag.rollout {
        let path = format!("/projects/{project_id}/flags/{id}/environments/{environment_id}/rollouts");
        names.push(("rollout", text(&api.post(&path, &with_ids(rollout, &names)).await?, "id")?));
    }
    if let Some(rule) = &flag.rule {
        let path = format!("/projects/{project_id}/envs/{environment_id}/flags/{id}/targeting-rules");
        api.post(&path, &with_ids(rule, &names)).await?;
    }
    Ok(id)
}

/// The two seeded variations with other values.
fn updates(variations: &Value, values: &[Value; 2]) -> Vec<Value> {
    let update = |(variation, value): (&Value, &Value)| {
        let mut update = variation.clone();
        update["value"] = value.clone();
        update
    };
    variations.as_array().into_iter().flatten().zip(values).map(update).collect()
}

/// Puts ids in the place of the names that stand for them, in members whose name ends in `_id`.
fn with_ids(value: &Value, names: &[(&str, String)]) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| with_ids(item, names)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(member, value)| {
                let id = value.as_str().and_then(|text| names.iter().find(|(name, _)| *name == text));
                match id {
                    Some((_, id)) if member.ends_with("_id") => (member.clone(), Value::from(id.clone())),
                    _ => (member.clone(), with_ids(value, names)),
                }
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}
