//! Where a ClickHouse is, as one URL.

use crate::StoreError;

/// Settings of a [`ClickHouseStore`](super::ClickHouseStore).
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub(super) url: String,
    pub(super) user: String,
    pub(super) password: String,
    /// Holds all tables and nothing else.
    pub(super) database: String,
    /// A cluster of the server's configuration whose shards and replicas hold the tables; one server without.
    pub(super) cluster: Option<String>,
}

/// The database, when the URL names none.
const DATABASE: &str = "flagmint";

impl Options {
    /// Reads `http[s]://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`; what is special in a URL is percent-encoded.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] that says what is wrong.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        let wrong = |why: &str| {
            let form = "http[s]://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]";
            StoreError::Fatal(format!("the URL of ClickHouse {why}; it has the form {form}"))
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
        let port = match scheme {
            "http" => 8123,
            "https" => 8443,
            _ => return Err(wrong(&format!("has the scheme {scheme:?}"))),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, host) = authority.rsplit_once('@').unwrap_or(("default", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(wrong("names no host"));
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let decode = |text: &str| decode(text).ok_or_else(|| wrong("has a percent sign that encodes nothing"));
        Ok(Self {
            url: if has_port { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") },
            user: decode(user)?,
            password: decode(password)?,
            database: if path.is_empty() { DATABASE.to_owned() } else { path.to_owned() },
            cluster: None,
        })
    }

    /// The same with another database.
    #[must_use]
    pub fn with_database(self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self }
    }

    /// The same on the shards and replicas of a cluster of that name.
    #[must_use]
    pub fn with_cluster(self, cluster: Option<&str>) -> Self {
        Self { cluster: cluster.map(str::to_owned), ..self }
    }

    /// Where it is, for messages: without credentials.
    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.url, self.database)
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Options({} as {}, cluster {:?})", self.place(), self.user, self.cluster)
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok())?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let check = |url: &str, expected: [&str; 4]| {
            let options = Options::from_url(url).expect(url);
            let Options { url, user, password, database, .. } = &options;
            assert_eq!([url, user, password, database].map(String::as_str), expected);
            assert!(!format!("{options:?}").contains("s%cret"));
        };
        check("http://h", ["http://h:8123", "default", "", "flagmint"]);
        check("https://u:s%25cret@h.example/db", ["https://h.example:8443", "u", "s%cret", "db"]);
        check("http://u@[::1]:1234/", ["http://[::1]:1234", "u", "", "flagmint"]);
        for url in ["h:8123", "tcp://h:9000", "http://", "http://u:p@/x", "http://u:%zz@h", "http://h h"] {
            let error = Options::from_url(url).expect_err(url);
            assert!(error.to_string().contains("it has the form http"), "{error}");
        }
    }
}
