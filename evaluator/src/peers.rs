//! The other instances of the data plane: where a posted context goes whose stream another instance holds.
//!
//! The sealed connection id says where that is, so nothing has to be looked up. What is sent is sealed under the secret that all
//! instances share: it proves that an instance sent it, and nobody on the way can read it.

use std::time::Duration;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use flagmint_schemas::ids::EnvironmentId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::{DataPlaneError, Received};
use crate::session::sealed::Sealer;

/// Where instances accept what others forward.
pub const PATH: &str = "/internal/stream-context";

/// The instance that holds a stream answers at once; a client waits for 5 s.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What was forwarded longer ago is not accepted, so that it is of no use to who has recorded it; clocks may differ by that much.
const AGE_MAX_US: i64 = 30_000_000;

/// The way to other instances.
pub struct Peers {
    sealer: Sealer,
    http: reqwest::Client,
}

/// A context on its way to the instance that holds the stream.
#[derive(Debug, Serialize, Deserialize)]
pub struct Forwarded {
    /// Which run of the instance is meant.
    pub instance: Uuid,
    /// The connection's number there.
    pub number: u64,
    /// The environment of the key it was posted with.
    pub environment: Uuid,
    /// JSON of an object.
    pub context: String,
    at_us: i64,
}

impl Peers {
    /// Nothing is connected before something is forwarded.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        let http = reqwest::Client::builder().timeout(ANSWER_MAX).no_proxy().build().unwrap_or_default();
        Self { sealer: Sealer::new(secret, "flagmint-forwarded-context-v1"), http }
    }

    /// Forwards a context; the answer is that of the instance that holds the stream.
    ///
    /// # Errors
    /// [`DataPlaneError::ConnectionNotFound`] if that instance is gone: its streams ended with it.
    pub async fn forward(
        &self,
        address: &str,
        (instance, number): (Uuid, u64),
        environment: EnvironmentId,
        context: &str,
    ) -> Result<Response, DataPlaneError> {
        let lost = || {
            metrics::counter!("flagmint_evaluator_contexts_unforwarded_total").increment(1);
            DataPlaneError::ConnectionNotFound
        };
        if address.is_empty() {
            return Err(lost());
        }
        let at_us = Received::now().time_us;
        let forwarded = Forwarded { instance, number, environment: environment.0, context: context.to_owned(), at_us };
        let json = serde_json::to_vec(&forwarded).map_err(|_| DataPlaneError::Internal)?;
        let request = self.http.post(format!("http://{address}{PATH}")).body(self.sealer.seal(&json));
        let answer = request.send().await.map_err(|_| lost())?;
        let status = answer.status();
        let headers = [header::CONTENT_TYPE, header::RETRY_AFTER];
        let kept: axum::http::HeaderMap = headers
            .into_iter()
            .filter_map(|name| answer.headers().get(&name).cloned().map(|value| (name, value)))
            .collect();
        let body = answer.bytes().await.map_err(|_| lost())?;
        Ok((status, kept, body).into_response())
    }

    /// What another instance forwarded just now; `None` if it did not.
    #[must_use]
    pub fn open(&self, body: &str, now_us: i64) -> Option<Forwarded> {
        let forwarded: Forwarded = serde_json::from_slice(&self.sealer.open(body)?).ok()?;
        (now_us.saturating_sub(forwarded.at_us).abs() <= AGE_MAX_US).then_some(forwarded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_instance_sent_lately_is_accepted() {
        let peers = Peers::new(&[1; 32]);
        let at_us = 1_000_000_000;
        let forwarded =
            Forwarded { instance: Uuid::nil(), number: 7, environment: Uuid::nil(), context: "{}".into(), at_us };
        let sealed = peers.sealer.seal(&serde_json::to_vec(&forwarded).expect("JSON"));
        assert_eq!(peers.open(&sealed, at_us).map(|found| found.number), Some(7));
        assert!(peers.open(&sealed, at_us + AGE_MAX_US + 1).is_none(), "old");
        assert!(Peers::new(&[2; 32]).open(&sealed, at_us).is_none(), "another installation");
        assert!(peers.open("{}", at_us).is_none());
    }
}
