//! What was sent against what is answered for it: the generator's own counts, by flag and value, beside the analytics
//! endpoints' for the same flags and values.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use serde_json::value::RawValue;

use super::management::Management;
use super::sample::Sample;
use crate::exit::Failure;

/// Decisions by flag key and value as JSON text.
pub type Counts = HashMap<String, HashMap<String, u64>>;

/// Counts the values of replies.
#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<Tallied>>);

#[derive(Default)]
struct Tallied {
    counts: Counts,
    unreadable: u64,
}

impl Tally {
    /// Counts one flat reply: `{"flag":value,…}`.
    pub fn add(&self, reply: &[u8]) {
        let values: Result<HashMap<&str, &RawValue>, _> = serde_json::from_slice(reply);
        let mut tallied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(values) = values else {
            tallied.unreadable += 1;
            return;
        };
        for (flag, value) in values {
            let by_value = match tallied.counts.get_mut(flag) {
                Some(by_value) => by_value,
                None => tallied.counts.entry(flag.to_owned()).or_default(),
            };
            match by_value.get_mut(value.get()) {
                Some(count) => *count += 1,
                None => {
                    by_value.insert(value.get().to_owned(), 1);
                }
            }
        }
    }

    /// What was counted so far.
    ///
    /// # Errors
    /// If a reply could not be read.
    pub fn counts(&self) -> Result<Counts, Failure> {
        let tallied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match tallied.unreadable {
            0 => Ok(tallied.counts.clone()),
            count => Err(Failure::DoesNotHold(format!("{count} replies were not a map of flags"))),
        }
    }

    /// How many decisions were counted so far.
    pub fn total(&self) -> u64 {
        let tallied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tallied.counts.values().flat_map(HashMap::values).sum()
    }
}

/// What the analytics endpoints answer now for each flag and value, over all environments.
///
/// # Errors
/// If they do not answer.
pub async fn answered(api: &mut Management, sample: &Sample) -> Result<Counts, Failure> {
    let mut counts = Counts::new();
    for (key, id) in &sample.flags {
        let metrics = flag_metrics(api, id, None).await?;
        let by_value = counts.entry(key.clone()).or_default();
        for variation in metrics["variations"].as_array().into_iter().flatten() {
            *by_value.entry(canonical(&variation["value"])).or_default() +=
                variation["evaluations"].as_u64().unwrap_or_default();
        }
    }
    Ok(counts)
}

/// FLG-7 of one flag, in one environment or all, `data`.
///
/// # Errors
/// If it is not answered.
pub async fn flag_metrics(api: &mut Management, flag_id: &str, environment_id: Option<&str>) -> Result<Value, Failure> {
    let query = environment_id.map(|id| format!("?environment_id={id}")).unwrap_or_default();
    Ok(api.get(&format!("/flags/{flag_id}/metrics{query}")).await?["data"].take())
}

fn canonical(value: &Value) -> String {
    value.to_string()
}

/// Sums of the differences, both ways.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Decisions that the analytics endpoints answer.
    pub counted: u64,
    /// Sent but not counted.
    pub lost: u64,
    /// Counted but not sent.
    pub duplicated: u64,
}

/// Compares what was sent with what the answers grew by between `before` and `after`.
pub fn compare(sent: &Counts, before: &Counts, after: &Counts) -> Difference {
    let mut difference = Difference::default();
    let flags: std::collections::BTreeSet<&String> = sent.keys().chain(after.keys()).collect();
    for flag in flags {
        let sent = by_value(sent.get(flag));
        let (before, after) = (by_value(before.get(flag)), by_value(after.get(flag)));
        let values: std::collections::BTreeSet<&String> = sent.keys().chain(after.keys()).collect();
        for value in values {
            let of = |counts: &HashMap<String, u64>| counts.get(value).copied().unwrap_or_default();
            let counted = of(&after).saturating_sub(of(&before));
            difference.counted += counted;
            difference.lost += of(&sent).saturating_sub(counted);
            difference.duplicated += counted.saturating_sub(of(&sent));
        }
    }
    difference
}

/// Values by their canonical text, so that `{"a": 1}` and `{"a":1}` are one.
fn by_value(counts: Option<&HashMap<String, u64>>) -> HashMap<String, u64> {
    let mut canonical_counts = HashMap::new();
    for (text, count) in counts.into_iter().flatten() {
        let text = serde_json::from_str::<Value>(text).map_or_else(|_| text.clone(), |value| canonical(&value));
        *canonical_counts.entry(text).or_default() += count;
    }
    canonical_counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(&str, &str, u64)]) -> Counts {
        let mut counts = Counts::new();
        for (flag, value, count) in rows {
            counts.entry((*flag).to_owned()).or_default().insert((*value).to_owned(), *count);
        }
        counts
    }

    #[test]
    fn differences_are_summed_both_ways_and_do_not_cancel() {
        let sent = counts(&[("a", "true", 5), ("a", "false", 5), ("b", "{\"x\": 1}", 2)]);
        let before = counts(&[("a", "true", 100)]);
        let after = counts(&[("a", "true", 106), ("a", "false", 4), ("b", "{\"x\":1}", 2), ("c", "1", 3)]);
        assert_eq!(compare(&sent, &before, &after), Difference { counted: 6 + 4 + 2 + 3, lost: 1, duplicated: 1 + 3 });
    }

    #[test]
    fn tallies_replies() {
        let tally = Tally::default();
        tally.add(br#"{"a":true,"b":{"x":1}}"#);
        tally.add(br#"{"a":true}"#);
        assert_eq!(tally.total(), 3);
        assert_eq!(tally.counts().unwrap(), counts(&[("a", "true", 2), ("b", "{\"x\":1}", 1)]));
        tally.add(b"x");
        assert!(tally.counts().is_err());
    }
}
