//! What a failure of ClickHouse means for the caller, and what a person should do.

use std::error::Error as _;

use crate::StoreError;

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Insert,
    Question,
    Work,
}

/// An error with its causes, in one line.
pub(super) fn text(error: &::clickhouse::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}

/// The number of ClickHouse's own error, as in `Code: 60. DB::Exception: …`.
fn code(text: &str) -> Option<u32> {
    let digits = text.split("Code: ").nth(1)?;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Codes are those of ClickHouse's `src/Common/ErrorCodes.cpp`.
pub(super) fn classify(place: &str, doing: Doing, text: &str) -> StoreError {
    let text: String = text.chars().take(600).collect();
    let said = |advice: &str| format!("ClickHouse at {place}: {text}. {advice}");
    let Some(code) = code(&text) else {
        if text.contains("invalid params") || text.contains("scheme is not http") || text.contains("unsupported") {
            return StoreError::Fatal(said("Give its URL as http://HOST:8123 or https://HOST:8443"));
        }
        return StoreError::Retry(said("Is it running there, and is this its HTTP port?"));
    };
    match code {
        516 | 194 | 192 | 193 => StoreError::Fatal(said("Check user and password")),
        497 => StoreError::Fatal(said("Grant the rights listed in schemas/clickhouse/users.sql")),
        81 | 60 | 36 | 16 | 47 => StoreError::Fatal(said("Run `flagmint migrate` with this program's version")),
        // Too slow, too many rows read or returned: the question is too large for the limits set.
        158 | 159 | 160 | 307 | 396 if doing == Doing::Question => {
            StoreError::Refuse(said("Ask about a shorter time or fewer flags"))
        }
        53 | 70 | 117 | 62 => StoreError::Fatal(said("Its schema is not this program's: run `flagmint migrate`")),
        243 => StoreError::Retry(said("Make room on its disk; folding goes on by itself")),
        _ => StoreError::Retry(said("It is tried again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_to_do() {
        let check = |doing, text: &str, expected: &str| {
            let (kind, message) = match classify("http://h:1/flagmint", doing, text) {
                StoreError::Retry(message) => ("retry", message),
                StoreError::Refuse(message) => ("refuse", message),
                StoreError::Fatal(message) => ("fatal", message),
            };
            assert_eq!(kind, expected, "{text}");
            assert!(message.starts_with("ClickHouse at http://h:1/flagmint: "), "{message}");
        };
        check(Doing::Insert, "network error: connection refused", "retry");
        check(Doing::Insert, "bad response: Code: 252. DB::Exception: Too many parts", "retry");
        check(Doing::Insert, "bad response: Code: 497. DB::Exception: Not enough privileges", "fatal");
        check(Doing::Question, "bad response: Code: 516. DB::Exception: x: Authentication failed", "fatal");
        check(Doing::Question, "bad response: Code: 60. DB::Exception: Unknown table", "fatal");
        check(Doing::Question, "bad response: Code: 159. DB::Exception: Timeout exceeded", "refuse");
        check(Doing::Insert, "bad response: Code: 159. DB::Exception: Timeout exceeded", "retry");
        check(Doing::Question, "invalid params: relative URL without a base", "fatal");
    }
}
