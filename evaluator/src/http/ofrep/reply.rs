//! OFREP's replies, as the protocol's schema names their members.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A flag's value and why it is served.
#[derive(Serialize, ToSchema)]
#[schema(as = OfrepSuccess)]
pub struct Success<'a> {
    /// The flag's key.
    pub key: &'a str,
    /// Of the flag's type.
    #[schema(value_type = Value)]
    pub value: &'a RawValue,
    /// `STATIC`, `TARGETING_MATCH`, `SPLIT`, `DISABLED` or `UNKNOWN`.
    pub reason: &'a str,
    /// The variation's key, or its id if it has none; absent if no variation is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub variant: Option<&'a str>,
    /// Scalars only: the flag's own, `flagmintReason`, `flagmintErrorCode` and `configVersion`.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
}

/// Why there is no value.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OfrepFailure)]
pub struct Failure<'a> {
    /// The flag's key; absent if the request as a whole failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub key: Option<&'a str>,
    /// OpenFeature's error code.
    pub error_code: &'a str,
    /// For a person.
    pub error_details: &'a str,
}

/// A failure that is no fault of the request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InternalFailure {
    /// For a person.
    pub error_details: String,
}

/// Every flag of the environment, values and failures side by side.
#[derive(ToSchema)]
#[schema(as = OfrepEvaluations)]
pub struct Evaluations {
    /// In the order the flags were made.
    #[expect(dead_code, reason = "the reply is joined from prepared texts; this describes it")]
    #[schema(value_type = Vec<Object>)]
    flags: Vec<Value>,
    /// `configVersion`.
    #[expect(dead_code, reason = "the reply is joined from prepared texts; this describes it")]
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}
