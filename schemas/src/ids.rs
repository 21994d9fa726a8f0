//! Identifiers as types, so that an environment is never passed where a project is meant.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Declares a UUID newtype. The nil UUID stands for "none" in logs and rollups.
macro_rules! id {
    ($($(#[$doc:meta])* $name:ident,)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Stands for "none" in logs and rollups.
            pub const NONE: Self = Self(Uuid::nil());

            /// Whether this stands for "none".
            #[must_use]
            pub const fn is_none(self) -> bool {
                self.0.is_nil()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )+};
}

id! {
    /// An organization: the tenant.
    OrganizationId,
    /// A project of an organization.
    ProjectId,
    /// An environment of a project.
    EnvironmentId,
    /// A flag of a project.
    FlagId,
    /// A variation of a flag.
    VariationId,
    /// A targeting rule of a flag in an environment.
    RuleId,
    /// An SDK key.
    KeyId,
}

/// The id of a part of a flag (a variation, rule or rollout) made at this time: the first ten bytes of the flag's id, then the time,
/// whose lower 48 bits are told. A batch of decisions names all of a flag's parts, and its ids are the longest of what it holds; those
/// that begin alike are compressed to what differs.
#[must_use]
pub const fn part_of(flag: Uuid, at_us: u64) -> Uuid {
    const TOLD: u128 = (1 << 48) - 1;
    Uuid::from_u128(flag.as_u128() & !TOLD | at_us as u128 & TOLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_begin_as_their_flag_and_are_in_the_order_of_time() {
        let flag: Uuid = "01932b5e-8f00-7abc-8def-0123456789ab".parse().unwrap();
        assert_eq!(part_of(flag, 0x1_0102_0304_0506).to_string(), "01932b5e-8f00-7abc-8def-010203040506");
        assert!(part_of(flag, 7) < part_of(flag, 8));
        assert_eq!(part_of(flag, 7).get_version_num(), 7);
    }
}
