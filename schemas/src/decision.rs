//! The vocabulary of a decision: why a value was served, what went wrong, what caused the evaluation.
//!
//! Reasons and error codes are OpenFeature's; exits are ours and say which branch of the algorithm ended the
//! evaluation. Each has a stable one-byte code for the log and a name for people and JSON.

/// Declares a closed vocabulary with one-byte codes that never change once released.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $code:literal => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name {
            $(#[doc = $text] $variant = $code,)+
        }

        impl $name {
            /// Every member, in order of its code.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name used in JSON and for people.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The one-byte code used in the log.
            #[must_use]
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The member with this code, or `None` for a code of another version.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }

            /// The member with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

vocabulary! {
    /// Why a value was served (OpenFeature's reasons that the evaluator produces, and `UNKNOWN` for client reports).
    Reason {
        Disabled = 1 => "DISABLED",
        Static = 2 => "STATIC",
        TargetingMatch = 3 => "TARGETING_MATCH",
        Default = 4 => "DEFAULT",
        Split = 5 => "SPLIT",
        Error = 6 => "ERROR",
        Unknown = 7 => "UNKNOWN",
    }
}

vocabulary! {
    /// What went wrong when the reason is `ERROR`, or why a request got no decision.
    ErrorCode {
        TargetingKeyMissing = 1 => "TARGETING_KEY_MISSING",
        TypeMismatch = 2 => "TYPE_MISMATCH",
        ParseError = 3 => "PARSE_ERROR",
        General = 4 => "GENERAL",
        InvalidContext = 5 => "INVALID_CONTEXT",
        FlagNotFound = 6 => "FLAG_NOT_FOUND",
    }
}

vocabulary! {
    /// The branch of the evaluation algorithm that decided.
    Exit {
        OffVariation = 1 => "off_variation",
        InactiveFallback = 2 => "inactive_fallback",
        InactiveNoMatch = 3 => "inactive_no_match",
        OnVariation = 4 => "on_variation",
        StaticFallback = 5 => "static_fallback",
        RuleVariation = 6 => "rule_variation",
        NoMatch = 7 => "no_match",
        RolloutOff = 8 => "rollout_off",
        GradualZero = 9 => "gradual_zero",
        RolloutVariant = 10 => "rollout_variant",
        RolloutBucket = 11 => "rollout_bucket",
        RolloutFull = 12 => "rollout_full",
        RolloutNoKey = 13 => "rollout_no_key",
        RolloutWrongType = 14 => "rollout_wrong_type",
        GradualBadStart = 15 => "gradual_bad_start",
        GradualInvalid = 16 => "gradual_invalid",
        RolloutUnknownStrategy = 17 => "rollout_unknown_strategy",
        RolloutNoVariants = 18 => "rollout_no_variants",
        RolloutVariantMissing = 19 => "rollout_variant_missing",
        RolloutWeightsShort = 20 => "rollout_weights_short",
        RuleVariationMissing = 21 => "rule_variation_missing",
        RuleRolloutMissing = 22 => "rule_rollout_missing",
        RuleWithoutResult = 23 => "rule_without_result",
        Exception = 24 => "exception",
    }
}

vocabulary! {
    /// What caused an evaluation, or which of a client's events it is about: its own evaluations, a goal, an application error.
    Trigger {
        Evaluate = 1 => "evaluate",
        Ofrep = 2 => "ofrep",
        Context = 3 => "context",
        Connect = 4 => "connect",
        Publish = 5 => "publish",
        Report = 6 => "report",
        Goal = 7 => "goal",
        AppError = 8 => "app_error",
    }
}

vocabulary! {
    /// The route a call took.
    Transport {
        Rest = 1 => "rest",
        Websocket = 2 => "websocket",
        Sse = 3 => "sse",
        Ofrep = 4 => "ofrep",
        ConfigSync = 5 => "config_sync",
        Events = 6 => "events",
        Management = 7 => "management",
    }
}

impl Trigger {
    /// Whether decisions with this trigger count in analytics when the client does not report its own evaluations.
    #[must_use]
    pub const fn is_counted(self) -> bool {
        !matches!(self, Self::Connect | Self::Publish)
    }
}
