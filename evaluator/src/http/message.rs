//! What clients send over a socket, read from one text frame (data-plane.md 4.1).

use flagmint_schemas::decision::ErrorCode;

use super::members::members;
use crate::engine::{Context, ContextError};

/// A message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// To be answered by `pong`.
    Ping,
    /// The connection's context from now on: JSON of an object.
    Context(String),
    /// A context that is none, ignored and recorded under this code.
    BadContext(ErrorCode),
    /// Anything else, ignored.
    Other,
}

impl Message {
    /// Reads a frame's text; whatever it is, it is one of these.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let Ok(members) = members(text.as_bytes()) else { return Self::Other };
        let kind = members.get("type").and_then(|kind| serde_json::from_str::<String>(kind.get()).ok());
        match kind.as_deref() {
            Some("ping") => Self::Ping,
            Some("context") => match members.get("context").map_or("null", |context| context.get()) {
                "null" => Self::Context("{}".to_owned()),
                context => match Context::from_json(context.as_bytes()) {
                    Ok(_) => Self::Context(context.to_owned()),
                    Err(error) => Self::BadContext(code_of(&error)),
                },
            },
            _ => Self::Other,
        }
    }
}

/// Under which code an unusable context is recorded.
#[must_use]
pub fn code_of(error: &ContextError) -> ErrorCode {
    match error {
        ContextError::NotAnObject => ErrorCode::InvalidContext,
        ContextError::Unreadable(_) => ErrorCode::ParseError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_clients_send_and_nothing_else() {
        let context = |text: &str| Message::Context(text.to_owned());
        for (text, expected) in [
            (r#"{"type":"ping"}"#, Message::Ping),
            (r#"{"type":"pong"}"#, Message::Other),
            (r#"{"type":"context","context":{"a": 1}}"#, context(r#"{"a": 1}"#)),
            (r#"{"context":{"a":1},"type":"context","more":[]}"#, context(r#"{"a":1}"#)),
            (r#"{"type":"x","type":"context","context":{},"context":{"b":2}}"#, context(r#"{"b":2}"#)),
            (r#"{"type":"context"}"#, context("{}")),
            (r#"{"type":"context","context":null}"#, context("{}")),
            (r#"{"type":"context","context":[]}"#, Message::BadContext(ErrorCode::InvalidContext)),
            (r#"{"type":"context","context":"\ud800"}"#, Message::BadContext(ErrorCode::ParseError)),
            (r#"["context",{}]"#, Message::Other),
            (r#"{"type":["context"]}"#, Message::Other),
            ("", Message::Other),
            ("null", Message::Other),
        ] {
            assert_eq!(Message::read(text), expected, "{text}");
        }
    }
}
