//! What names a cell inside a chunk: the dimensions of the rollup tables, with what repeats (environments, texts, client
//! libraries) replaced by its number in the chunk.

use std::hash::{Hash, Hasher};

use flagmint_schemas::batch::{BatchHeader, Caller};
use flagmint_schemas::ids::{EnvironmentId, FlagId, KeyId, OrganizationId, ProjectId, RuleId, VariationId};
use serde_json::json;

/// An environment with those it belongs to; all `NONE` for heartbeats and unreadable headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Environment {
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub environment: EnvironmentId,
}

impl Environment {
    /// The environment that a header names.
    pub fn of(header: &BatchHeader) -> Self {
        Self { organization: header.organization, project: header.project, environment: header.environment }
    }
}

/// What a profile says about the client library.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client {
    pub name: String,
    pub version: String,
    pub platform: String,
    pub wrapper: String,
}

impl Client {
    /// The client library of a caller.
    pub fn of(caller: &Caller) -> Self {
        Self {
            name: caller.sdk_name.clone(),
            version: caller.sdk_version.clone(),
            platform: caller.platform.clone(),
            wrapper: caller.wrapper.clone(),
        }
    }

    /// As a profile shows it: a JSON object.
    pub fn to_json(&self) -> String {
        let Self { name, version, platform, wrapper } = self;
        json!({ "name": name, "version": version, "platform": platform, "wrapper": wrapper }).to_string()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DecisionKey {
    pub environment: u32,
    pub source: u32,
    pub flag: FlagId,
    pub variation: VariationId,
    pub rule: RuleId,
    pub minute_us: i64,
    pub reason: u8,
    pub error_code: u8,
    pub measure: u8,
    pub counting: u8,
}

/// Looked up for each outcome of each batch, so half of each id must do: ids are made by the control plane, and that half differs in all of them.
impl Hash for DecisionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for id in [self.flag.0, self.variation.0, self.rule.0] {
            state.write_u64(id.as_u64_pair().1);
        }
        state.write_i64(self.minute_us);
        state.write_u64(u64::from(self.environment) << 32 | u64::from(self.source));
        state.write_u32(u32::from_be_bytes([self.reason, self.error_code, self.measure, self.counting]));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LatencyKey {
    pub environment: u32,
    pub counting: u8,
    pub flag: FlagId,
    pub minute_us: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlagKey {
    pub environment: u32,
    pub counting: u8,
    pub flag: FlagId,
    pub hour_us: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TotalKey {
    pub environment: u32,
    pub counting: u8,
    pub minute_us: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct UsageKey {
    pub environment: u32,
    pub transport: u8,
    pub key: KeyId,
    pub sdk_name: u32,
    pub sdk_version: u32,
    pub minute_us: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LedgerKey {
    pub environment: u32,
    pub hour_us: i64,
}

/// What calls have in common whose decisions go to the same cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClassKey {
    pub source: u32,
    pub measure: u8,
    pub is_counted: bool,
    pub minute_us: i64,
}

/// A context of one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContextKey {
    pub environment: u32,
    pub source: u32,
    pub kind: u32,
    pub day_us: i64,
    pub key: flagmint_schemas::context_key::ContextKey,
}

/// Looked up for nearly every call; of a pseudonym, which is a keyed hash itself, half is enough.
impl Hash for ContextKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        use flagmint_schemas::context_key::ContextKey as Key;

        state.write_u64(u64::from(self.environment) << 32 | u64::from(self.source));
        state.write_u64(self.day_us.cast_unsigned().rotate_left(16) ^ u64::from(self.kind));
        match &self.key {
            Key::Pseudonym(pseudonym) => state.write_u64(pseudonym.bits()),
            Key::Text(text) => state.write(text.as_bytes()),
            Key::None => {}
        }
    }
}
