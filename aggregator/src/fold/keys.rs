//! What names a cell inside a chunk: the dimensions of the rollup tables, with what repeats (environments, texts, client
//! libraries) replaced by its number in the chunk.

use std::hash::{Hash, Hasher};

use flagmint_schemas::batch::{BatchHeader, Caller};
use flagmint_schemas::ids::{EnvironmentId, FlagId, KeyId, OrganizationId, ProjectId, RuleId, VariationId};
use indexmap::Equivalent;

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LatencyKey {
    pub environment: u32,
    pub counting: u8,
    pub flag: FlagId,
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

/// A flag of one day; `FlagId::NONE` for the whole environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlagDay {
    pub environment: u32,
    pub flag: FlagId,
    pub day_us: i64,
}

/// A variation of a flag of one day. The family is the number of its [`FlagDay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct VariationDay {
    pub family: u32,
    pub variation: VariationId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LedgerKey {
    pub environment: u32,
    pub hour_us: i64,
}

/// A context of one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContextKey {
    pub environment: u32,
    pub source: u32,
    pub kind: u32,
    pub day_us: i64,
    pub key: Box<str>,
}

/// The same, looked up without an allocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct ContextName<'a> {
    pub environment: u32,
    pub source: u32,
    pub kind: u32,
    pub day_us: i64,
    pub key: &'a str,
}

impl ContextKey {
    fn name(&self) -> ContextName<'_> {
        let Self { environment, source, kind, day_us, ref key } = *self;
        ContextName { environment, source, kind, day_us, key }
    }
}

impl ContextName<'_> {
    /// The key to be kept.
    pub fn to_key(self) -> ContextKey {
        let Self { environment, source, kind, day_us, key } = self;
        ContextKey { environment, source, kind, day_us, key: key.into() }
    }
}

impl Hash for ContextName<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.environment) << 32 | u64::from(self.source));
        state.write_u64(u64::from(self.kind));
        state.write_i64(self.day_us);
        state.write(self.key.as_bytes());
    }
}

impl Hash for ContextKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl Equivalent<ContextKey> for ContextName<'_> {
    fn equivalent(&self, key: &ContextKey) -> bool {
        let other = key.name();
        self.key == other.key
            && (self.environment, self.source, self.kind, self.day_us)
                == (other.environment, other.source, other.kind, other.day_us)
    }
}
