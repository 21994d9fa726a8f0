//! Whether an organization has reached a monthly limit of its plan. The control plane says so; here it is looked up by each call
//! and forgotten by itself when the month ends.

use std::collections::HashMap;

use arc_swap::ArcSwap;
use flagmint_schemas::ids::OrganizationId;

/// What a plan can limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    /// Calls that bring values.
    ApiCalls,
    /// Streams and sockets opened.
    Connections,
    /// Distinct contexts.
    ObservedContexts,
    /// Custom and error events.
    TrackEvents,
}

impl Meter {
    /// By the name under which limits are stored.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "api_calls" => Self::ApiCalls,
            "connections" => Self::Connections,
            "observed_contexts" => Self::ObservedContexts,
            "track_events" => Self::TrackEvents,
            _ => return None,
        })
    }
}

/// A limit that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of what.
    pub meter: Meter,
    /// When it ends: the end of the month, microseconds since the epoch.
    pub until_us: i64,
    /// The plan that sets it.
    pub plan: String,
}

/// Reached limits by organization.
#[derive(Debug, Default)]
pub struct Limits(ArcSwap<HashMap<OrganizationId, Vec<Limit>>>);

impl Limits {
    /// Replaces all.
    pub fn set(&self, limits: HashMap<OrganizationId, Vec<Limit>>) {
        self.0.store(limits.into());
    }

    /// The limit in force at `now_us`, if that one was reached.
    #[must_use]
    pub fn reached(&self, organization: OrganizationId, meter: Meter, now_us: i64) -> Option<Limit> {
        let limits = self.0.load();
        if limits.is_empty() {
            return None;
        }
        let of_organization = limits.get(&organization)?;
        of_organization.iter().find(|limit| limit.meter == meter && now_us < limit.until_us).cloned()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_limit_concerns_one_meter_of_one_organization_until_the_month_ends() {
        let [limited, other] = [1, 2].map(|id| OrganizationId(Uuid::from_u128(id)));
        let limit = Limit { meter: Meter::ApiCalls, until_us: 100, plan: "Free".into() };
        let limits = Limits::default();
        assert_eq!(limits.reached(limited, Meter::ApiCalls, 0), None);
        limits.set(HashMap::from([(limited, vec![limit.clone()])]));
        assert_eq!(limits.reached(limited, Meter::ApiCalls, 99), Some(limit));
        assert_eq!(limits.reached(limited, Meter::ApiCalls, 100), None);
        assert_eq!(limits.reached(limited, Meter::Connections, 0), None);
        assert_eq!(limits.reached(other, Meter::ApiCalls, 0), None);
        limits.set(HashMap::new());
        assert_eq!(limits.reached(limited, Meter::ApiCalls, 0), None);
    }
}
