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
