//! Compiles one rollout: everything but the key is known, so only the buckets' borders remain.

use flagmint_schemas::decision::Exit;
use serde_json::{Map, Value};

use super::environment::{Gradual, Keyed, Rollout, Salt, Split};
use super::flag::{FlagCompiler, Path, Served};
use super::gradual::Schedule;
use super::hash::hash;
use super::outcome::OutcomeId;
use super::values::{number, text};

impl<'c> FlagCompiler<'c, '_> {
    /// The strategy is looked at first, then the key, then the flag's type.
    pub(super) fn compile_rollout(&mut self, rollout: &Value, path: Path<'c>) -> Rollout {
        let none = Map::new();
        let rollout = rollout.as_object().unwrap_or(&none);
        let strategy = rollout.get("strategy").and_then(Value::as_str).unwrap_or_default();
        let mut fallback = |exit| self.outcome(Served::Fallback, exit, path);
        let then: fn(&mut Self, &Map<String, Value>, Path<'c>) -> Keyed = match strategy {
            "off" => return Rollout::Fixed(fallback(Exit::RolloutOff)),
            "variant" => Self::variants,
            "percentage" => Self::percentage,
            "gradual" => Self::gradual,
            _ => return Rollout::Fixed(fallback(Exit::RolloutUnknownStrategy)),
        };
        let no_key = fallback(Exit::RolloutNoKey);
        Rollout::Keyed { no_key, then: then(self, rollout, path) }
    }

    fn variants(&mut self, rollout: &Map<String, Value>, path: Path<'c>) -> Keyed {
        let variants = rollout.get("variants").and_then(Value::as_array);
        let Some(variants) = variants.filter(|variants| !variants.is_empty()) else {
            return Keyed::Fixed(self.outcome(Served::Fallback, Exit::RolloutNoVariants, path));
        };
        let mut sum = 0.0;
        let mut thresholds = Vec::with_capacity(variants.len());
        for variant in variants {
            sum += number(variant.get("weight"));
            let outcome = match variant.get("variation_id").and_then(|id| self.variation(id)) {
                Some(variation) => self.outcome(Served::Variation(variation), Exit::RolloutVariant, path),
                None => self.outcome(Served::Fallback, Exit::RolloutVariantMissing, path),
            };
            thresholds.push((buckets_below(sum), outcome));
        }
        let short = self.outcome(Served::Fallback, Exit::RolloutWeightsShort, path);
        Keyed::Variants { salt: Salt::new(rollout.get("salt")), thresholds: thresholds.into(), short }
    }

    fn percentage(&mut self, rollout: &Map<String, Value>, path: Path<'c>) -> Keyed {
        if !self.is_boolean() {
            return Keyed::Fixed(self.outcome(Served::Fallback, Exit::RolloutWrongType, path));
        }
        let percentage = number(rollout.get("percentage"));
        if percentage >= 100.0 {
            return Keyed::Fixed(self.outcome(Served::Boolean(true), Exit::RolloutFull, path));
        }
        let split = Split { admitted: buckets_below(percentage), yes_no: self.both(path) };
        Keyed::Split { salt: Salt::new(rollout.get("salt")), split }
    }

    fn gradual(&mut self, rollout: &Map<String, Value>, path: Path<'c>) -> Keyed {
        if !self.is_boolean() {
            return Keyed::Fixed(self.outcome(Served::Fallback, Exit::RolloutWrongType, path));
        }
        let yes_no = self.both(path);
        let mut fallback = |exit| self.outcome(Served::Fallback, exit, path);
        Keyed::Gradual(Box::new(Gradual {
            schedule: Schedule::new(rollout),
            salt: rollout.get("salt").map(|salt| Salt::new(Some(salt))),
            zero: fallback(Exit::GradualZero),
            bad_start: fallback(Exit::GradualBadStart),
            invalid: fallback(Exit::GradualInvalid),
            full: self.outcome(Served::Boolean(true), Exit::RolloutFull, path),
            yes_no,
        }))
    }

    fn both(&mut self, path: Path<'c>) -> [OutcomeId; 2] {
        [true, false].map(|value| self.outcome(Served::Boolean(value), Exit::RolloutBucket, path))
    }
}

impl Salt {
    /// Without one, the word `undefined` is hashed.
    fn new(salt: Option<&Value>) -> Self {
        let joins = matches!(salt, Some(Value::String(_) | Value::Array(_) | Value::Object(_)));
        Self { state: hash(&text(salt)), adds: !joins }
    }
}

/// How many buckets, 0 to 100, are below a percentage: a fraction admits a whole further one, NaN none.
pub(super) fn buckets_below(percentage: f64) -> u8 {
    // `clamp` keeps NaN (`min` would not), and the cast makes 0 of it.
    percentage.ceil().clamp(0.0, 100.0) as u8
}
