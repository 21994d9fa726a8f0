//! Which session ids were used: each is good once.
//!
//! An instance knows at once which it has seen itself. Those of the others it learns by claiming the id in Postgres, where the
//! first claim wins ([`crate::configuration::sessions`]). A stream waits for that for [`CLAIM_MAX`] at most: with Postgres away an id
//! is refused only where it was used, and each such opening is counted.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::id_hash;
use crate::limits::{CLAIM_MAX, SESSION_LIFETIME, USED_SESSIONS_MAX};

/// An id that is to be used, asked of all instances.
#[derive(Debug)]
pub struct Claim {
    /// [`id_hash`] of it.
    pub hash: [u8; 32],
    /// When it can be forgotten, microseconds since the epoch.
    pub expires_us: i64,
    /// Whether this was the first claim.
    pub answer: oneshot::Sender<bool>,
}

/// Used ids of this instance, and the way to those of the others.
#[derive(Debug, Default)]
pub struct UsedSessions {
    seen: Mutex<Seen>,
    others: Option<mpsc::Sender<Claim>>,
}

/// Hashes seen in this period of a session's lifetime and in the one before it: older ones have expired.
#[derive(Debug, Default)]
struct Seen {
    period: i64,
    young: HashSet<[u8; 32]>,
    old: HashSet<[u8; 32]>,
}

impl UsedSessions {
    /// Claims go to `others` too; without, this is the only instance.
    #[must_use]
    pub fn new(others: Option<mpsc::Sender<Claim>>) -> Self {
        Self { seen: Mutex::default(), others }
    }

    /// Uses the id of a session that expires at `expires_us`; false if it was used before.
    pub async fn claim(&self, id: &str, expires_us: i64, now_us: i64) -> bool {
        let hash = id_hash(id);
        if !self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(hash, now_us) {
            return false;
        }
        let Some(others) = &self.others else { return true };
        let (answer, answered) = oneshot::channel();
        let asked = others.try_send(Claim { hash, expires_us, answer }).is_ok();
        let first = match asked {
            true => tokio::time::timeout(CLAIM_MAX, answered).await.ok().and_then(Result::ok),
            false => None,
        };
        first.unwrap_or_else(|| {
            metrics::counter!("flagmint_evaluator_sessions_unchecked_total").increment(1);
            true
        })
    }
}

impl Seen {
    /// False if it is there, or if there is no room, which only an attack can bring about.
    fn insert(&mut self, hash: [u8; 32], now_us: i64) -> bool {
        let lifetime_us = i64::try_from(SESSION_LIFETIME.as_micros()).expect("a minute");
        let period = now_us.div_euclid(lifetime_us);
        if period > self.period {
            let young = std::mem::take(&mut self.young);
            self.old = if period == self.period + 1 { young } else { HashSet::new() };
            self.period = period;
        }
        if self.young.len() >= USED_SESSIONS_MAX {
            metrics::counter!("flagmint_evaluator_sessions_refused_total").increment(1);
            return false;
        }
        !self.old.contains(&hash) && self.young.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: i64 = 60_000_000;

    #[tokio::test]
    async fn an_id_is_good_once_for_as_long_as_it_could_be_used() {
        let used = UsedSessions::default();
        assert!(used.claim("a", MINUTE_US, 0).await);
        for now_us in [0, MINUTE_US - 1, MINUTE_US, 2 * MINUTE_US - 1] {
            assert!(!used.claim("a", MINUTE_US, now_us).await, "at {now_us}");
        }
        assert!(used.claim("b", MINUTE_US, 0).await);
        assert!(used.claim("a", MINUTE_US, 2 * MINUTE_US).await, "expired ids are forgotten");
        assert!(used.claim("c", MINUTE_US, 90 * MINUTE_US).await);
    }

    #[tokio::test]
    async fn the_first_of_several_instances_has_it() {
        let (others, mut claims) = mpsc::channel::<Claim>(10);
        let (here, there) = (UsedSessions::new(Some(others.clone())), UsedSessions::new(Some(others)));
        let store = tokio::spawn(async move {
            let mut store = HashSet::new();
            while let Some(claim) = claims.recv().await {
                let _ = claim.answer.send(store.insert(claim.hash));
            }
        });
        let (one, other) = tokio::join!(here.claim("a", MINUTE_US, 0), there.claim("a", MINUTE_US, 0));
        assert!(one ^ other, "exactly one may use it");
        // A store that is away lets it pass: refusing all streams would be worse than a replay within a minute.
        store.abort();
        assert!(store.await.is_err());
        assert!(here.claim("b", MINUTE_US, 0).await);
        assert!(!here.claim("b", MINUTE_US, 0).await, "what was used here is known without the store");
    }
}
