//! What names a cell inside a chunk: the dimensions of the rollup tables, with what repeats (environments, texts, client
//! libraries) replaced by its number in the chunk.

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

/// A context of one day.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ContextKey {
    pub environment: u32,
    pub source: u32,
    pub kind: u32,
    pub day_us: i64,
    pub key: ContextText,
}

const PSEUDONYM: &[u8; 3] = b"p1_";
const PSEUDONYM_BYTES: usize = PSEUDONYM.len() + 32;

/// A context's key. Nearly all are pseudonyms (`p1_` and 32 hexadecimal digits), which are kept as the number they spell: no
/// allocation, and nothing else to fetch when it is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ContextText {
    Pseudonym(u128),
    Other(Box<str>),
}

impl ContextText {
    pub fn of(text: &str) -> Self {
        pseudonym(text.as_bytes()).map_or_else(|| Self::Other(text.into()), Self::Pseudonym)
    }
}

impl std::fmt::Display for ContextText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pseudonym(number) => write!(f, "p1_{number:032x}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// The number that a pseudonym in its one canonical spelling stands for.
fn pseudonym(text: &[u8]) -> Option<u128> {
    let text: &[u8; PSEUDONYM_BYTES] = text.try_into().ok()?;
    let digits = text.strip_prefix(PSEUDONYM)?;
    let (mut number, mut invalid) = (0_u128, 0);
    for &digit in digits {
        let value = DIGITS[usize::from(digit)];
        invalid |= value;
        number = number << 4 | u128::from(value & 0xf);
    }
    (invalid < NO_DIGIT).then_some(number)
}

const NO_DIGIT: u8 = 0x80;

/// The value of each lower-case hexadecimal digit.
const DIGITS: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spelled_as_they_came() {
        let pseudonym = "p1_00112233445566778899aabbccddeeff";
        assert_eq!(ContextText::of(pseudonym), ContextText::Pseudonym(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff));
        let others =
            ["", "p1_", "p1_00112233445566778899AABBCCDDEEFF", "p2_00112233445566778899aabbccddeeff", "user-7"];
        let others =
            others.into_iter().chain(["p1_00112233445566778899aabbccddeeff0", "p1_0g112233445566778899aabbccddeeff"]);
        for text in others {
            assert_eq!(ContextText::of(text), ContextText::Other(text.into()));
            assert_eq!(ContextText::of(text).to_string(), text);
        }
        assert_eq!(ContextText::of(pseudonym).to_string(), pseudonym);
    }
}
