//! A call under way, whatever carried it: decide flags for a context, and record what was decided or why nothing was.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::http::HeaderMap;
use flagmint_ingest::{CallFacts, CallerName};
use flagmint_schemas::batch::DecisionRow;
use flagmint_schemas::decision::{ErrorCode, Transport, Trigger};
use flagmint_schemas::ids::KeyId;

use super::DataPlane;
use super::identity::{Identity, cut};
use super::received::Received;
use crate::contexts::Seen;
use crate::engine::{Context, Decision, Scratch};
use crate::snapshot::Snapshot;

/// Ids of calls: a random half per process, then a count.
pub struct CallIds {
    seed: u64,
    next: AtomicU64,
}

impl CallIds {
    /// Ids whose first half is `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(0) }
    }

    /// Another one.
    pub fn next(&self) -> u128 {
        u128::from(self.seed) << 64 | u128::from(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// A call: who makes it, how, since when.
pub struct Call<'a> {
    plane: &'a DataPlane,
    received: &'a Received,
    /// Without the source, which the context says.
    caller: CallerName<'a>,
}

impl<'a> Call<'a> {
    /// A call with this key by a client that says `identity` of itself.
    pub fn new(
        plane: &'a DataPlane,
        received: &'a Received,
        key: KeyId,
        (transport, trigger): (Transport, Trigger),
        identity: Identity<'a>,
    ) -> Self {
        let Identity { sdk_name, sdk_version, platform, wrapper } = identity;
        let silent = CallerName::silent(key, transport, trigger);
        Self { plane, received, caller: CallerName { sdk_name, sdk_version, platform, wrapper, ..silent } }
    }

    /// A call by REST, whose headers say who the client is.
    pub fn rest(
        plane: &'a DataPlane,
        received: &'a Received,
        key: KeyId,
        (transport, trigger): (Transport, Trigger),
        headers: &'a HeaderMap,
    ) -> Self {
        Self::new(plane, received, key, (transport, trigger), Identity::of(headers))
    }

    /// Decides every flag, lets `answer` make something of the decisions, and records them under `facts`, whose call id,
    /// times, version, caller and context are filled in here.
    ///
    /// `facts.event_time_us` is the time decided for: [`received_us`](flagmint_ingest::InFlight::received_us) of a call registered in
    /// the directory.
    pub fn decide_all<R>(
        &self,
        snapshot: &Snapshot,
        seen: &Seen,
        facts: CallFacts<'_>,
        answer: impl FnOnce(&[Decision]) -> R,
    ) -> R {
        SCRATCH.with_borrow_mut(|scratch| {
            let started = Instant::now();
            let decisions = snapshot.compiled.decide_all(&seen.context, facts.event_time_us, scratch);
            let evaluation_ns = elapsed_ns(started);
            let answer = answer(decisions);
            self.decided(snapshot, seen, CallFacts { evaluation_ns, ..facts }, decisions);
            answer
        })
    }

    /// The same for the flag at this position in the configuration; a decision that `answer` makes nothing of is not recorded.
    ///
    /// # Errors
    /// Those of `answer`.
    pub fn decide_one<R, E>(
        &self,
        snapshot: &Snapshot,
        flag: usize,
        seen: &Seen,
        facts: CallFacts<'_>,
        answer: impl FnOnce(&Decision) -> Result<R, E>,
    ) -> Result<R, E> {
        let started = Instant::now();
        let decision = snapshot.compiled.decide(flag, &seen.context, facts.event_time_us);
        let evaluation_ns = elapsed_ns(started);
        let answer = answer(&decision)?;
        self.decided(snapshot, seen, CallFacts { evaluation_ns, ..facts }, &[decision]);
        Ok(answer)
    }

    fn decided(&self, snapshot: &Snapshot, seen: &Seen, facts: CallFacts<'_>, decisions: &[Decision]) {
        let evaluation_ns = facts.evaluation_ns;
        let latency_us = self.record(snapshot, facts, Some(seen), decisions);
        self.plane.observe(latency_us, evaluation_ns, decisions.len());
    }

    /// Records a call that got no decision.
    pub fn fail(&self, snapshot: &Snapshot, error_code: Option<ErrorCode>, event_time_us: i64) {
        let facts = CallFacts { error_code, event_time_us, ..CallFacts::default() };
        self.record(snapshot, facts, None, &[]);
    }

    /// Records the call with its decisions; returns its latency up to here, microseconds.
    pub fn record(
        &self,
        snapshot: &Snapshot,
        facts: CallFacts<'_>,
        seen: Option<&Seen>,
        decisions: &[Decision],
    ) -> u32 {
        let latency_us = self.received.latency_us();
        let Some(recorder) = &snapshot.recorder else { return latency_us };
        let source = seen.and_then(|seen| seen.context.source()).unwrap_or_default();
        let facts = CallFacts {
            call_id: self.plane.inner.calls.next(),
            latency_us,
            config_version: snapshot.version,
            caller: recorder.caller(CallerName { source: cut(source), ..self.caller }),
            context: seen.and_then(|seen| seen.known.as_ref()),
            ..facts
        };
        let row = |decision: &Decision| DecisionRow {
            outcome: decision.outcome.0,
            bucket: decision.bucket.unwrap_or(DecisionRow::NO_BUCKET),
            count: 1,
        };
        // A refusal is counted by the recorder; the reply does not wait for anything it could do about it.
        let _ = recorder.record_rows(facts, decisions.iter().map(row));
        latency_us
    }
}

impl Seen {
    /// A context with what may be logged of it.
    pub fn new(snapshot: &Snapshot, context: Context) -> Self {
        let known = snapshot.recorder.as_ref().map(|recorder| recorder.observe(context.members()));
        Self { context, known }
    }
}

fn elapsed_ns(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_nanos()).unwrap_or(u32::MAX)
}

thread_local! {
    /// The working memory of evaluations, so that deciding allocates nothing.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}
