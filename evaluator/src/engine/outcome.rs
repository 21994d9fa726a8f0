//! What a decision can be. Every possible result of every flag is known when the configuration is compiled, so each gets a
//! number then; deciding is choosing a number, and whoever records or serves a decision looks the rest up.

use flagmint_schemas::decision::{ErrorCode, Exit, Reason};
use serde_json::Value;

/// The number of an [`Outcome`] in one compiled environment, dense from 0. It means nothing in another environment or version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutcomeId(pub u32);

/// One possible result of one flag.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The flag's index in configuration order.
    pub flag: usize,
    /// The value served, of the flag's type.
    pub value: Value,
    /// The value as JSON text, as served.
    pub value_json: Box<str>,
    /// Why it is served.
    pub reason: Reason,
    /// What went wrong, exactly if the reason is `ERROR`.
    pub error_code: Option<ErrorCode>,
    /// The branch of the algorithm that ended the evaluation.
    pub exit: Exit,
    /// The variation served, or the first one of the same value, if there is one.
    pub variation_id: Option<Box<str>>,
    /// What OpenFeature calls that variation: its key, or its id if it has none.
    pub variant: Option<Box<str>>,
    /// The rule that matched.
    pub rule_id: Option<Box<str>>,
    /// The rollout applied.
    pub rollout_id: Option<Box<str>>,
}

/// A flag's result for one context at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Which of the environment's outcomes.
    pub outcome: OutcomeId,
    /// The key's bucket, 0 to 99, where one was computed.
    pub bucket: Option<u8>,
}

impl Decision {
    pub(super) const fn without_bucket(outcome: OutcomeId) -> Self {
        Self { outcome, bucket: None }
    }
}

/// The reason and error code that an exit stands for, before a replaced value corrects them.
pub(super) const fn reason_of(exit: Exit) -> (Reason, Option<ErrorCode>) {
    match exit {
        Exit::OffVariation | Exit::InactiveFallback | Exit::InactiveNoMatch => (Reason::Disabled, None),
        Exit::OnVariation | Exit::StaticFallback => (Reason::Static, None),
        Exit::RuleVariation => (Reason::TargetingMatch, None),
        Exit::NoMatch | Exit::RolloutOff | Exit::GradualZero => (Reason::Default, None),
        Exit::RolloutVariant | Exit::RolloutBucket | Exit::RolloutFull => (Reason::Split, None),
        Exit::RolloutNoKey => (Reason::Error, Some(ErrorCode::TargetingKeyMissing)),
        Exit::RolloutWrongType => (Reason::Error, Some(ErrorCode::TypeMismatch)),
        Exit::GradualBadStart | Exit::Exception => (Reason::Error, Some(ErrorCode::ParseError)),
        Exit::GradualInvalid
        | Exit::RolloutUnknownStrategy
        | Exit::RolloutNoVariants
        | Exit::RolloutVariantMissing
        | Exit::RolloutWeightsShort
        | Exit::RuleVariationMissing
        | Exit::RuleRolloutMissing
        | Exit::RuleWithoutResult => (Reason::Error, Some(ErrorCode::General)),
    }
}
