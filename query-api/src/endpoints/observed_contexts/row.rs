//! A merged row of `contexts`, and how it becomes what people read.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cmp::Ordering;
use std::collections::BTreeMap;

use flagmint_schemas::ids::EnvironmentId;
use flagmint_store::Rows;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{ObservedContext, Sdk};
use crate::error::ApiError;
use crate::period::iso;
use crate::rows::column;

/// Hexadecimal digits of the time that a profile begins with.
const PROFILE_TIME_DIGITS: usize = 16;

/// A context in an environment.
#[derive(Debug)]
pub(super) struct ContextRow {
    environment: EnvironmentId,
    kind: String,
    pub(super) key: String,
    pub(super) profile: Profile,
    first_seen_us: i64,
    last_seen_us: i64,
    evaluations: u64,
}

/// What a context was like when last seen.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Profile {
    pub(super) attributes: serde_json::Map<String, Value>,
    omitted: u64,
    sdk: Sdk,
}

/// What tells rows apart.
type Identity<'a> = (EnvironmentId, &'a str, &'a str);

impl ContextRow {
    pub(super) fn identity(&self) -> Identity<'_> {
        (self.environment, &self.kind, &self.key)
    }

    /// Order by a column of the store's.
    pub(super) fn compare(&self, other: &Self, column: &str) -> Ordering {
        match column {
            "first_seen_us" => self.first_seen_us.cmp(&other.first_seen_us),
            "evaluations" => self.evaluations.cmp(&other.evaluations),
            "key" => self.key.cmp(&other.key),
            "kind" => self.kind.cmp(&other.kind),
            _ => self.last_seen_us.cmp(&other.last_seen_us),
        }
    }

    /// A stable name: the first 128 bits of SHA-256 of what tells rows apart, as a UUID of version 8.
    fn id(&self) -> Uuid {
        let mut hash = Sha256::new();
        hash.update(self.environment.0.as_bytes());
        hash.update(self.kind.as_bytes());
        hash.update([0]);
        hash.update(self.key.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let (half, _) = digest.split_first_chunk().expect("32 bytes begin with 16");
        uuid::Builder::from_custom_bytes(*half).into_uuid()
    }

    pub(super) fn readable(self, sources: &Sources) -> ObservedContext {
        ObservedContext {
            id: self.id(),
            environment_id: self.environment.0,
            source: sources.of(&self),
            kind: self.kind,
            key: self.key,
            attributes: Value::Object(self.profile.attributes),
            attributes_omitted: self.profile.omitted,
            sdk: self.profile.sdk,
            first_seen_at: iso(self.first_seen_us),
            last_seen_at: iso(self.last_seen_us),
            evaluations: self.evaluations,
        }
    }
}

/// The rows of an answer.
pub(super) fn contexts(rows: &Rows) -> Result<Vec<ContextRow>, ApiError> {
    let names = column::<EnvironmentId>(rows, "environment")?.into_iter().zip(column::<String>(rows, "kind")?);
    let names = names.zip(column::<String>(rows, "key")?);
    let times = column::<i64>(rows, "first_seen_us")?.into_iter().zip(column::<i64>(rows, "last_seen_us")?);
    let values = times.zip(column::<u64>(rows, "evaluations")?).zip(column::<String>(rows, "profile")?);
    let row = |(((environment, kind), key), (((first_seen_us, last_seen_us), evaluations), text)): (_, (_, String))| {
        // A profile is only shown: one that cannot be read is left out, the context stays visible.
        let json = text.get(PROFILE_TIME_DIGITS..).unwrap_or_default();
        let profile = serde_json::from_str(json).unwrap_or_default();
        ContextRow { environment, kind, key, profile, first_seen_us, last_seen_us, evaluations }
    };
    Ok(names.zip(values).map(row).collect())
}

/// Which source each context was last seen with.
pub(super) enum Sources {
    /// The one asked for.
    Same(String),
    /// By context.
    Latest(BTreeMap<(EnvironmentId, String, String), (i64, String)>),
}

impl Sources {
    /// From an answer that keeps sources apart.
    pub(super) fn latest(rows: &Rows) -> Result<Self, ApiError> {
        let mut latest = BTreeMap::new();
        let sources = column::<String>(rows, "source")?;
        for (row, source) in contexts(rows)?.into_iter().zip(sources) {
            let seen = (row.last_seen_us, source);
            let entry = latest.entry((row.environment, row.kind, row.key)).or_insert_with(|| seen.clone());
            if seen > *entry {
                *entry = seen;
            }
        }
        Ok(Self::Latest(latest))
    }

    fn of(&self, row: &ContextRow) -> String {
        match self {
            Self::Same(source) => source.clone(),
            Self::Latest(latest) => latest
                .get(&(row.environment, row.kind.clone(), row.key.clone()))
                .map(|(_, source)| source.clone())
                .unwrap_or_default(),
        }
    }
}
