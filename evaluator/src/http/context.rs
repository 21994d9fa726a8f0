//! The context of a REST request: from the body, or from Go's header (data-plane.md 3.1).

use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::error::DataPlaneError;
use crate::engine::Context;
use crate::limits::CONTEXT_HEADER_BYTES_MAX;

/// Standard base64 of the JSON context; its presence also asks for a flat reply.
pub const CONTEXT: HeaderName = HeaderName::from_static("x-flagmint-context");

/// The context that a request carries: the body's, else the header's, else none.
///
/// # Errors
/// If the body is not a JSON object, the header is not base64 of JSON, or the context is not an object.
pub fn context_of(headers: &HeaderMap, body: &[u8]) -> Result<Context, DataPlaneError> {
    let ask: Ask = serde_json::from_slice(body)
        .map_err(|error| DataPlaneError::Parse(format!("body is not a JSON object: {error}")))?;
    let context = match (ask.context, headers.get(CONTEXT)) {
        (Value::Null, Some(header)) => from_header(header.as_bytes())?,
        (context, _) => context,
    };
    match context {
        Value::Null => Ok(Context::empty()),
        context => Context::from_value(context).map_err(|_| DataPlaneError::InvalidContext),
    }
}

fn from_header(header: &[u8]) -> Result<Value, DataPlaneError> {
    let refuse = |why: String| DataPlaneError::Parse(format!("header {CONTEXT} is not base64 of JSON: {why}"));
    if header.len() > CONTEXT_HEADER_BYTES_MAX {
        return Err(refuse(format!("longer than {CONTEXT_HEADER_BYTES_MAX} bytes")));
    }
    let json = STANDARD.decode(header).map_err(|error| refuse(error.to_string()))?;
    serde_json::from_slice(&json).map_err(|error| refuse(error.to_string()))
}

/// The body. Only an object will do (a derived visitor would take a list too), the last `context` counts, and unknown
/// members are skipped.
struct Ask {
    context: Value,
}

impl<'de> Deserialize<'de> for Ask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AskVisitor)
    }
}

struct AskVisitor;

impl<'de> Visitor<'de> for AskVisitor {
    type Value = Ask;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with a member `context`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Ask, A::Error> {
        let mut context = Value::Null;
        while let Some(name) = members.next_key::<std::borrow::Cow<'_, str>>()? {
            if name == "context" {
                context = members.next_value().map_err(|error| A::Error::custom(format!("context: {error}")))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Ask { context })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: Option<&str>, body: &str, expected: Result<&str, &str>) {
        let headers = header.map(|text| (CONTEXT, text.parse().unwrap())).into_iter().collect();
        let found = context_of(&headers, body.as_bytes());
        match (&found, expected) {
            (Ok(context), Ok(json)) => assert_eq!(serde_json::to_string(context.members()).unwrap(), json, "{body}"),
            (Err(DataPlaneError::Parse(text)), Err(expected)) => assert!(text.contains(expected), "{body}: {text}"),
            (Err(DataPlaneError::InvalidContext), Err("invalid_context")) => {}
            _ => panic!("{body}: {:?}, not {expected:?}", found.map(|context| context.members().clone())),
        }
    }

    #[test]
    fn body_before_header() {
        let header = STANDARD.encode(r#"{"kind":"user","key":"h"}"#);
        check(None, r#"{"context":{"a":1,"b":2,"a":3}}"#, Ok(r#"{"a":3,"b":2}"#));
        check(None, r#"{"context":{"a":1},"context":{"b":2},"x":[1]}"#, Ok(r#"{"b":2}"#));
        check(None, "{}", Ok("{}"));
        check(None, r#"{"context":null}"#, Ok("{}"));
        check(Some(&header), "{}", Ok(r#"{"kind":"user","key":"h"}"#));
        check(Some(&header), r#"{"context":{}}"#, Ok("{}"));
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for body in ["", "[]", "1", "null", r#"[{"context":{}}]"#, "{", r#"{"context":{}}x"#, "{\"a\":\"\u{1}\"}"] {
            check(None, body, Err("body is not a JSON object"));
        }
        check(None, r#"{"context":{"a":"\ud800"}}"#, Err("context: unexpected end of hex escape at line 1 column 24"));
        check(None, &format!(r#"{{"context":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000)), Err("recursion limit"));
        for context in ["[]", "1", "\"x\"", "true"] {
            check(None, &format!(r#"{{"context":{context}}}"#), Err("invalid_context"));
        }
        check(Some("%%%"), "{}", Err("header x-flagmint-context is not base64"));
        check(Some("e30x"), "{}", Err("header x-flagmint-context is not base64"));
        check(Some(&STANDARD.encode("[]")), "{}", Err("invalid_context"));
    }
}
