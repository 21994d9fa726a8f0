//! The state of each dependency, for `/health/ready`. Ready means able to do the job of the process: nothing else stops traffic.

use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use serde_json::{Map, Value, json};

use crate::limits::HEALTH_CHECK_MAX;

/// The state of one dependency.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// Its name in the report.
    pub name: &'static str,
    /// Whether it can be worked with.
    pub is_good: bool,
    /// `state`, and what else there is to say.
    pub report: Value,
}

/// Looks at one dependency.
pub type Check = Box<dyn Fn() -> BoxFuture<'static, Dependency> + Send + Sync>;

/// A check that reads what is known already.
pub fn check_now(name: &'static str, look: impl Fn() -> (bool, Value) + Send + Sync + 'static) -> Check {
    Box::new(move || {
        let (is_good, report) = look();
        Box::pin(std::future::ready(Dependency { name, is_good, report }))
    })
}

/// A check that asks; no answer within `HEALTH_CHECK_MAX` is a bad one.
pub fn check<F>(name: &'static str, ask: impl Fn() -> F + Send + Sync + 'static) -> Check
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    check_within(HEALTH_CHECK_MAX, name, ask)
}

fn check_within<F>(longest: Duration, name: &'static str, ask: impl Fn() -> F + Send + Sync + 'static) -> Check
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    Box::new(move || {
        let asked = tokio::time::timeout(longest, ask());
        Box::pin(async move {
            let state = match asked.await {
                Ok(Ok(())) => return Dependency { name, is_good: true, report: json!({ "state": "answers" }) },
                Ok(Err(error)) => format!("does not work: {error}"),
                Err(_) => format!("no answer in {longest:?}"),
            };
            Dependency { name, is_good: false, report: json!({ "state": state }) }
        })
    })
}

/// What health is read from.
#[derive(Default)]
pub struct Health {
    /// Without one of these the process is not ready.
    pub needed: Vec<Check>,
    /// These are told only.
    pub reported: Vec<Check>,
}

impl Health {
    /// Whether the process can do its job, and each dependency with its state.
    pub async fn look(&self) -> (bool, Value) {
        let needed = join_all(self.needed.iter().map(|check| check())).await;
        let reported = join_all(self.reported.iter().map(|check| check())).await;
        let is_ready = needed.iter().all(|dependency| dependency.is_good);
        let mut report = Map::new();
        report.insert("status".into(), if is_ready { "ready" } else { "not ready" }.into());
        report.extend(needed.into_iter().chain(reported).map(|one| (one.name.to_owned(), one.report)));
        (is_ready, Value::Object(report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(name: &'static str) -> Check {
        check_now(name, || (true, json!({ "state": "fine" })))
    }

    fn bad(name: &'static str) -> Check {
        check(name, async || Err("it is away".to_owned()))
    }

    #[tokio::test]
    async fn only_what_is_needed_makes_unready() {
        let health = Health { needed: vec![good("a")], reported: vec![bad("b")] };
        let (is_ready, report) = health.look().await;
        assert!(is_ready);
        let expected =
            json!({ "status": "ready", "a": { "state": "fine" }, "b": { "state": "does not work: it is away" } });
        assert_eq!(report, expected);
        let (is_ready, report) = Health { needed: vec![bad("a"), good("b")], reported: vec![] }.look().await;
        assert!(!is_ready);
        assert_eq!(report["status"], "not ready");
    }

    #[tokio::test]
    async fn who_does_not_answer_is_not_good() {
        let hangs = check_within(Duration::from_millis(20), "a", std::future::pending);
        let (is_ready, report) = Health { needed: vec![hangs], reported: vec![] }.look().await;
        assert!(!is_ready);
        assert_eq!(report["a"]["state"], "no answer in 20ms");
    }
}
