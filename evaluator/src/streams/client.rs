//! Who is at the other end of a connection, kept small: there are many.

use crate::http::Identity;

/// What a client says about itself, and what follows from it.
#[derive(Debug)]
pub struct Client {
    /// Library, version, platform and wrapper, each ended by [`END`]; most connections say a few dozen bytes.
    texts: Box<str>,
    /// Whether decisions made for it count in analytics: not if it reports its evaluations itself.
    pub is_counted: bool,
}

/// Ends a text: the first character that no header and no percent-decoded name of a client holds in good faith.
const END: char = '\0';

impl Client {
    /// A client that is counted by the decisions made for it.
    #[must_use]
    pub fn new(identity: Identity<'_>) -> Self {
        let Identity { sdk_name, sdk_version, platform, wrapper } = identity;
        let texts = [sdk_name, sdk_version, platform, wrapper].map(|text| text.replace(END, "")).join("\0");
        Self { texts: texts.into(), is_counted: !reports_by_itself(sdk_version, platform) }
    }

    /// A client that evaluates by itself, and so reports what it served.
    #[must_use]
    pub fn evaluating(identity: Identity<'_>) -> Self {
        Self { is_counted: false, ..Self::new(identity) }
    }

    /// What it said.
    #[must_use]
    pub fn identity(&self) -> Identity<'_> {
        let mut texts = self.texts.split(END);
        let mut next = || texts.next().unwrap_or_default();
        Identity { sdk_name: next(), sdk_version: next(), platform: next(), wrapper: next() }
    }
}

/// JavaScript from 2.2 on, and PHP (evaluation.md 8.3).
fn reports_by_itself(sdk_version: &str, platform: &str) -> bool {
    let mut numbers = sdk_version.trim_start_matches('v').split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    match platform {
        "php" => true,
        "browser" | "nodejs" => {
            let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
            major.is_some_and(|major| (major, minor.unwrap_or_default()) >= (2, 2))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(platform: &str, sdk_version: &str, is_counted: bool) {
        let identity = Identity { sdk_name: "sdk", sdk_version, platform, wrapper: "native-js" };
        let client = Client::new(identity);
        assert_eq!(client.is_counted, is_counted, "{platform} {sdk_version}");
        let found = client.identity();
        assert_eq!(
            [found.sdk_name, found.sdk_version, found.platform, found.wrapper],
            ["sdk", sdk_version, platform, "native-js"]
        );
    }

    #[test]
    fn clients_that_report_by_themselves_are_not_counted_twice() {
        for (platform, version, is_counted) in [
            ("browser", "2.1.9", true),
            ("browser", "2.2.0", false),
            ("nodejs", "2.10.0-beta.1", false),
            ("nodejs", "3", false),
            ("nodejs", "1.2.25", true),
            ("browser", "", true),
            ("browser", "latest", true),
            ("php", "0.1.4", false),
            ("", "2.2.0", true),
        ] {
            check(platform, version, is_counted);
        }
    }
}
