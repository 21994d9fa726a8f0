//! What a client of config-sync is sent (data-plane.md 7.4): first a lease and what it lacks, then one delta per publish.
//!
//! A feed belongs to one session and remembers the version that the client has been sent, so that no lease is ahead of it and
//! no version is left out.

use std::sync::Arc;

use super::MacKey;
use super::payload::{Delta, deltas, lease};
use crate::directory::{Directory, Environment};
use crate::snapshot::Snapshot;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The whole configuration.
    Full,
    /// What came after the version it has.
    Since(u64),
}

impl Ask {
    /// Reads the query members `fullConfig` and `sinceVersion`; `None` if neither is there: no config-sync.
    ///
    /// Only a version that can be read keeps a client from being sent everything, which is always right.
    #[must_use]
    pub fn of(full_config: Option<&str>, since_version: Option<&str>) -> Option<Self> {
        match (full_config, since_version) {
            (None, None) => None,
            (Some("true"), _) => Some(Self::Full),
            (_, since) => Some(since.and_then(|version| version.parse().ok()).map_or(Self::Full, Self::Since)),
        }
    }
}

/// One signed payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Its kind, which is also the name of its event: `lease`, `fullConfig`, `delta` or `deltas`.
    pub kind: &'static str,
    /// JSON.
    pub json: String,
}

/// One session's configuration.
pub struct Feed {
    directory: Arc<Directory>,
    environment: Arc<Environment>,
    key: MacKey,
    sent_version: u64,
}

impl Feed {
    /// Begins a feed; what the client is sent first. `None` if the environment has no configuration in force.
    pub async fn open(
        directory: Arc<Directory>,
        environment: Arc<Environment>,
        key: MacKey,
        ask: Ask,
        now_ms: i64,
    ) -> Option<(Self, Vec<Signed>)> {
        let snapshot = environment.snapshot().as_ref().map(Arc::clone)?;
        let version = snapshot.version;
        let missed = match ask {
            Ask::Since(since) if since < version => {
                directory.deltas(&environment, since, version).await.map_or(Missed::All, Missed::Deltas)
            }
            Ask::Since(since) if since == version => Missed::Nothing,
            _ => Missed::All,
        };
        let mut payloads = vec![Signed { kind: "lease", json: lease(version, now_ms, &key) }];
        match missed {
            Missed::Nothing => {}
            Missed::Deltas(missed) => {
                payloads.push(Signed { kind: "deltas", json: deltas(missed.iter().map(Arc::as_ref), now_ms, &key) })
            }
            Missed::All => payloads.push(full_config(&snapshot, now_ms, &key)?),
        }
        Some((Self { directory, environment, key, sent_version: version }, payloads))
    }

    /// What was published since the client was last sent something: a delta for each version, or everything if one is missing.
    pub async fn next(&mut self, now_ms: i64) -> Vec<Signed> {
        let Some(snapshot) = self.environment.snapshot().as_ref().map(Arc::clone) else { return Vec::new() };
        if snapshot.version <= self.sent_version {
            return Vec::new();
        }
        let missed = self.directory.deltas(&self.environment, self.sent_version, snapshot.version).await;
        let payloads = match missed {
            Some(missed) => {
                missed.iter().map(|delta| Signed { kind: "delta", json: delta.signed(now_ms, &self.key) }).collect()
            }
            None => full_config(&snapshot, now_ms, &self.key).into_iter().collect::<Vec<_>>(),
        };
        if !payloads.is_empty() {
            self.sent_version = snapshot.version;
        }
        payloads
    }

    /// A lease for the version that the client has been sent.
    #[must_use]
    pub fn renewal(&self, now_ms: i64) -> Signed {
        Signed { kind: "lease", json: lease(self.sent_version, now_ms, &self.key) }
    }

    /// The version that the client has been sent.
    #[must_use]
    pub const fn sent_version(&self) -> u64 {
        self.sent_version
    }
}

enum Missed {
    Nothing,
    Deltas(Vec<Arc<Delta>>),
    All,
}

fn full_config(snapshot: &Snapshot, now_ms: i64, key: &MacKey) -> Option<Signed> {
    let json = snapshot.full_config()?.signed(now_ms, key);
    Some(Signed { kind: "fullConfig", json })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_asks_for_everything() {
        let cases = [
            ((None, None), None),
            ((Some("true"), None), Some(Ask::Full)),
            ((Some("true"), Some("3")), Some(Ask::Full)),
            ((Some("false"), Some("3")), Some(Ask::Since(3))),
            ((None, Some("3")), Some(Ask::Since(3))),
            ((Some("false"), None), Some(Ask::Full)),
            ((Some("false"), Some("-1")), Some(Ask::Full)),
            ((Some(""), Some("99999999999999999999999")), Some(Ask::Full)),
        ];
        for ((full, since), expected) in cases {
            assert_eq!(Ask::of(full, since), expected, "{full:?} {since:?}");
        }
    }
}
