//! Who a client says it is: library, version, platform and wrapper, from the headers it sends.

use axum::http::{HeaderMap, HeaderName, header};

use crate::limits::IDENTITY_CHARS_MAX;

const SDK_VERSION: HeaderName = HeaderName::from_static("x-flagmint-sdk-version");
const PLATFORM: HeaderName = HeaderName::from_static("x-flagmint-platform");
const WRAPPER: HeaderName = HeaderName::from_static("x-flagmint-wrapper-name");

/// Names as sent, cut to [`IDENTITY_CHARS_MAX`]; empty when not said.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// `X-Flagmint-Wrapper-Name`'s library or the product of the user agent.
    pub sdk_name: &'a str,
    /// `X-Flagmint-Sdk-Version` or the version of the user agent.
    pub sdk_version: &'a str,
    /// `X-Flagmint-Platform`.
    pub platform: &'a str,
    /// `X-Flagmint-Wrapper-Name`.
    pub wrapper: &'a str,
}

impl<'a> Identity<'a> {
    /// Reads the identity headers; the first product of the user agent (`name/version`) stands in for what they leave out.
    #[must_use]
    pub fn of(headers: &'a HeaderMap) -> Self {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map_or("", str::trim);
        let product = text(header::USER_AGENT).split([' ', ';', '(']).next().unwrap_or_default();
        let (name, version) = product.split_once('/').unwrap_or((product, ""));
        let stated = text(SDK_VERSION);
        Self {
            sdk_name: cut(name),
            sdk_version: cut(if stated.is_empty() { version } else { stated }),
            platform: cut(text(PLATFORM)),
            wrapper: cut(text(WRAPPER)),
        }
    }
}

/// The first [`IDENTITY_CHARS_MAX`] characters.
pub fn cut(text: &str) -> &str {
    text.char_indices().nth(IDENTITY_CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)], expected: [&str; 4]) {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let identity = Identity::of(&headers);
        let found = [identity.sdk_name, identity.sdk_version, identity.platform, identity.wrapper];
        assert_eq!(found, expected);
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
