//! Decides flags, purely: no clock, no I/O, no randomness, no logging.
//!
//! Clients that receive the rules evaluate them with the same algorithm in JavaScript, and both must agree to the last quirk. The
//! configuration is compiled once ([`CompiledEnvironment`]), a context is read once ([`Context`]), and a [`Decision`] is then a
//! few comparisons and at most one hash. The same inputs, the time among them, always give the same decision.
//!
//! ```
//! use flagmint_evaluator::engine::{CompiledEnvironment, Context};
//! use serde_json::{Map, json};
//!
//! let flag = json!({"key": "new-checkout", "type": "boolean", "default_value": false, "variations": [{"id": "v1", "value": true}],
//!     "targeting_rules": [{"id": "r1", "kind": "custom", "variation_id": "v1",
//!         "conditions": [{"attribute": "country", "operator": "eq", "value": "IE"}]}]});
//! let environment = CompiledEnvironment::compile(&[flag], &Map::new());
//! let context = Context::from_json(br#"{"kind":"user","key":"u1","country":"IE"}"#).expect("an object");
//! let decision = environment.decide(0, &context, 0);
//! assert_eq!(&*environment.outcome(decision.outcome).value_json, "true");
//! ```
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod attributes;
mod coerce;
mod compile;
mod condition;
mod context;
mod decide;
mod environment;
mod flag;
mod gradual;
mod hash;
mod lines;
mod outcome;
mod rollout;
mod values;
mod words;

#[cfg(test)]
mod vectors;

pub use attributes::AttributeValue;
pub use coerce::{Coerced, FlagType, coerce, json_text};
pub use context::{Context, ContextError, ContextKind};
pub use decide::Scratch;
pub use environment::{CompiledEnvironment, CompiledFlag};
pub use gradual::{gradual_percentage, timestamp_us};
pub use hash::{bucket, hash};
pub use lines::{evaluate_flag_line, evaluate_line};
pub use outcome::{Decision, Outcome, OutcomeId};
