//! A flag's evaluations by variation, reason and environment.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cmp::Reverse;
use std::collections::BTreeMap;

use flagmint_schemas::decision::{ErrorCode, Reason};
use flagmint_schemas::ids::{EnvironmentId, VariationId};
use flagmint_schemas::sketch::unique::Registers;
use flagmint_store::Rows;

use super::{EnvironmentPart, ReasonPart, VariationPart};
use crate::directory::{Environment, Variation};
use crate::error::ApiError;
use crate::measures::{counts_by_row, share};
use crate::rows::column;
use crate::users;

/// Evaluations by each dimension, and sketches by variation.
pub(super) struct Parts {
    total: u64,
    variations: BTreeMap<VariationId, u64>,
    reasons: BTreeMap<(u8, u8), u64>,
    environments: BTreeMap<EnvironmentId, u64>,
    users: BTreeMap<VariationId, Registers>,
}

impl Parts {
    pub(super) fn of(decisions: &Rows, uniques: &Rows) -> Result<Self, ApiError> {
        let users = users::by(uniques, "variation")?;
        let (variations, reasons, environments) = Default::default();
        let mut parts = Self { total: 0, variations, reasons, environments, users };
        let variations = column::<VariationId>(decisions, "variation")?;
        let reasons = column::<u8>(decisions, "reason")?.into_iter().zip(column::<u8>(decisions, "error_code")?);
        let environments = column::<EnvironmentId>(decisions, "environment")?;
        let keys = variations.into_iter().zip(reasons).zip(environments);
        for (((variation, reason), environment), counts) in keys.zip(counts_by_row(decisions)?) {
            let evaluations = counts.evaluations();
            if evaluations == 0 {
                continue; // Goals and application errors are no evaluations.
            }
            parts.total += evaluations;
            *parts.variations.entry(variation).or_default() += evaluations;
            *parts.reasons.entry(reason).or_default() += evaluations;
            *parts.environments.entry(environment).or_default() += evaluations;
        }
        Ok(parts)
    }

    /// Variations that the flag has, and others that were recorded; most evaluations first, else in the flag's order.
    pub(super) fn variations(&mut self, known: Vec<Variation>) -> Vec<VariationPart> {
        let mut out = Vec::with_capacity(known.len() + 1);
        for Variation { id, key, value, deleted } in known {
            let evaluations = self.variations.remove(&id);
            if evaluations.is_some() || !deleted {
                out.push(self.variation(id, Some(key), Some(value), evaluations.unwrap_or(0)));
            }
        }
        for (id, evaluations) in std::mem::take(&mut self.variations) {
            out.push(self.variation(id, None, None, evaluations));
        }
        out.sort_by_key(|part| Reverse(part.evaluations));
        out
    }

    fn variation(
        &self,
        id: VariationId,
        key: Option<String>,
        value: Option<serde_json::Value>,
        evaluations: u64,
    ) -> VariationPart {
        // The sketch under "none" is the whole flag's, so there is none of values that are no variation's.
        let unique_users = (!id.is_none()).then(|| self.users.get(&id).map_or(0, Registers::estimate));
        let variation_id = (!id.is_none()).then_some(id);
        VariationPart { variation_id, key, value, evaluations, share: share(evaluations, self.total), unique_users }
    }

    /// Reasons recorded, most evaluations first, then by code.
    pub(super) fn reasons(&self) -> Vec<ReasonPart> {
        let part = |(&(reason, error_code), &evaluations): (&(u8, u8), &u64)| ReasonPart {
            reason: Reason::from_code(reason).unwrap_or(Reason::Unknown).as_str(),
            error_code: ErrorCode::from_code(error_code).map(ErrorCode::as_str),
            evaluations,
            share: share(evaluations, self.total),
        };
        let mut out: Vec<_> = self.reasons.iter().map(part).collect();
        out.sort_by_key(|part| Reverse(part.evaluations));
        out
    }

    /// Environments asked for; deleted ones only if anything was recorded, purged ones last.
    pub(super) fn environments(&mut self, known: Vec<Environment>) -> Vec<EnvironmentPart> {
        let mut out = Vec::with_capacity(known.len());
        for Environment { id, name, deleted } in known {
            let evaluations = self.environments.remove(&id);
            if evaluations.is_some() || !deleted {
                let evaluations = evaluations.unwrap_or(0);
                out.push(EnvironmentPart { environment_id: id.0, name: Some(name), evaluations });
            }
        }
        let purged = std::mem::take(&mut self.environments).into_iter();
        out.extend(purged.map(|(id, evaluations)| EnvironmentPart { environment_id: id.0, name: None, evaluations }));
        out
    }
}
