//! Who a client says it is: library, version, platform and wrapper, from the headers it sends.

use axum::http::HeaderMap;

use crate::limits::IDENTITY_CHARS_MAX;

/// Names as sent, cut to [`IDENTITY_CHARS_MAX`]; empty when not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `X-Flagmint-Wrapper-Name`'s library or the product of the user agent.
    pub sdk_name: String,
    /// `X-Flagmint-Sdk-Version` or the version of the user agent.
    pub sdk_version: String,
    /// `X-Flagmint-Platform`.
    pub platform: String,
    /// `X-Flagmint-Wrapper-Name`.
    pub wrapper: String,
}

impl Identity {
    /// Reads the identity headers; the first product of the user agent (`name/version`) stands in for what they leave out.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map_or("", str::trim);
        let product = text("user-agent").split([' ', ';', '(']).next().unwrap_or_default();
        let (name, version) = product.split_once('/').unwrap_or((product, ""));
        let stated = text("x-flagmint-sdk-version");
        Self {
            sdk_name: cut(name),
            sdk_version: cut(if stated.is_empty() { version } else { stated }),
            platform: cut(text("x-flagmint-platform")),
            wrapper: cut(text("x-flagmint-wrapper-name")),
        }
    }
}

/// The first [`IDENTITY_CHARS_MAX`] characters.
pub fn cut(text: &str) -> String {
    text.chars().take(IDENTITY_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)], expected: [&str; 4]) {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let identity = Identity::of(&headers);
        let found = [&identity.sdk_name, &identity.sdk_version, &identity.platform, &identity.wrapper];
        assert_eq!(found.map(String::as_str), expected);
    }

    #[test]
    fn reads_headers_and_user_agents() {
        check(&[], ["", "", "", ""]);
        check(&[("user-agent", "Go-http-client/1.1")], ["Go-http-client", "1.1", "", ""]);
        check(
            &[
                ("user-agent", "Flagmint-PHP/0.1.4 (laravel/0.2)"),
                ("x-flagmint-sdk-version", "0.1.4"),
                ("x-flagmint-platform", "php"),
                ("x-flagmint-wrapper-name", "laravel"),
            ],
            ["Flagmint-PHP", "0.1.4", "php", "laravel"],
        );
        let long = "x".repeat(500);
        check(&[("user-agent", &long)], [&long[..64], "", "", ""]);
    }
}
