//! Recording for one environment under one configuration version: the part of the recorder that requests touch.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use flagmint_schemas::batch::{Call, Caller, DecisionRow, ObservedContext, Outcome, is_same};
use flagmint_schemas::decision::{ErrorCode, Transport, Trigger};
use flagmint_schemas::ids::{EnvironmentId, KeyId, OrganizationId, ProjectId};
use flagmint_schemas::limits::BATCH_DECISIONS_MAX;
use indexmap::{Equivalent, IndexSet};
use serde_json::{Map, Value};

use super::contexts::KnownContext;
use super::{ContextRedactor, Shared, current_shard};
use crate::limits;

/// Whose decisions are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnvironmentIdentity {
    /// The tenant.
    pub organization: OrganizationId,
    /// The project.
    pub project: ProjectId,
    /// The environment.
    pub environment: EnvironmentId,
}

/// A caller interned in one [`EnvironmentRecorder`]; the default is an unknown caller by REST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallerId(u32);

#[cfg(test)]
impl CallerId {
    pub(super) fn number(self) -> u32 {
        self.0
    }
}

/// What is recorded of a call besides its decisions; see [`Call`] for the fields.
#[derive(Clone, Copy, Debug)]
pub struct CallFacts<'a> {
    /// The same for all decisions of one call.
    pub call_id: u128,
    /// When the request was received, microseconds since the Unix epoch: [`InFlight::received_us`](super::InFlight::received_us).
    pub event_time_us: i64,
    /// From request received to reply handed to the network, microseconds.
    pub latency_us: u32,
    /// Time spent in the evaluator for the whole call, nanoseconds.
    pub evaluation_ns: u32,
    /// The environment's configuration version used.
    pub config_version: u64,
    /// From [`EnvironmentRecorder::caller`] of the same recorder.
    pub caller: CallerId,
    /// What [`EnvironmentRecorder::observe`] made of the context, the same for each call with it.
    pub context: Option<&'a KnownContext>,
    /// API calls to bill: 1 or 0.
    pub api_calls: u32,
    /// Connections opened.
    pub connections: u32,
    /// Custom and error events accepted.
    pub track_events: u32,
    /// Why the call got no decision.
    pub error_code: Option<ErrorCode>,
    /// False if the client reports its evaluations itself.
    pub counted: bool,
}

impl Default for CallFacts<'_> {
    fn default() -> Self {
        Self {
            call_id: 0,
            event_time_us: 0,
            latency_us: 0,
            evaluation_ns: 0,
            config_version: 0,
            caller: CallerId::default(),
            context: None,
            api_calls: 0,
            connections: 0,
            track_events: 0,
            error_code: None,
            counted: true,
        }
    }
}

impl CallFacts<'_> {
    fn call(&self, decisions: usize) -> Call {
        Call {
            call_id: self.call_id,
            event_time_us: self.event_time_us,
            latency_us: self.latency_us,
            evaluation_ns: self.evaluation_ns,
            config_version: self.config_version,
            caller: self.caller.0,
            context: Call::NO_CONTEXT,
            decisions: decisions as u32,
            api_calls: self.api_calls,
            connections: self.connections,
            track_events: self.track_events,
            error_code: self.error_code,
            counted: self.counted,
        }
    }
}

/// One decision in a buffer: what passes through a core's caches a million times a second is worth being small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row(u32);

impl Row {
    /// No environment has as many outcomes; a greater index is refused as unknown when it is flushed.
    const OUTCOME_MAX: u32 = (1 << 24) - 1;

    fn of(row: DecisionRow) -> Self {
        Self(row.outcome.min(Self::OUTCOME_MAX) << 8 | u32::from(row.bucket))
    }

    pub(super) const fn outcome(self) -> u32 {
        self.0 >> 8
    }

    pub(super) fn set_outcome(&mut self, outcome: u32) {
        self.0 = outcome << 8 | u32::from(self.bucket());
    }

    pub(super) const fn bucket(self) -> u8 {
        self.0 as u8
    }
}

/// Rows waiting for the next flush. Callers and outcomes are indexes into the recorder's tables; contexts stand beside the calls.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub(super) calls: Vec<Call>,
    pub(super) contexts: Vec<Option<ObservedContext>>,
    pub(super) decisions: Vec<Row>,
    /// What each decision stands for; empty while all stand for one evaluation.
    pub(super) counts: Vec<u32>,
}

impl Buffer {
    fn extend(&mut self, rows: impl ExactSizeIterator<Item = DecisionRow>) {
        let (before, counts) = (self.decisions.len(), &mut self.counts);
        let have_counts = !counts.is_empty();
        self.decisions.extend(rows.enumerate().map(|(at, row)| {
            if row.count != 1 || have_counts {
                // Those before stand for one each, in whatever call they came.
                counts.resize(before + at, 1);
                counts.push(row.count);
            }
            Row::of(row)
        }));
        if !counts.is_empty() {
            counts.resize(self.decisions.len(), 1);
        }
    }

    /// Takes the rows of another buffer over, if both together are no more than a batch takes.
    pub(super) fn absorb(&mut self, other: &mut Self) -> bool {
        let is_one_batch = self.decisions.len() + other.decisions.len() <= BATCH_DECISIONS_MAX
            && self.calls.len() + other.calls.len() <= limits::BATCH_CALLS_MAX;
        if is_one_batch {
            if !(self.counts.is_empty() && other.counts.is_empty()) {
                self.counts.resize(self.decisions.len(), 1);
                self.counts.append(&mut other.counts);
                self.counts.resize(self.decisions.len() + other.decisions.len(), 1);
            }
            self.calls.append(&mut other.calls);
            self.contexts.append(&mut other.contexts);
            self.decisions.append(&mut other.decisions);
        }
        is_one_batch
    }

    pub(super) fn clear(&mut self) {
        self.calls.clear();
        self.contexts.clear();
        self.decisions.clear();
        self.counts.clear();
    }
}

/// One shard's rows; alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    active: Mutex<Buffer>,
    /// The other of the two, emptied by the flusher alone: both keep their capacity.
    spare: Mutex<Buffer>,
}

/// A caller as a request states it, so that looking it up allocates nothing; the fields are those of [`Caller`].
#[derive(Clone, Copy, Debug, Hash)]
#[expect(missing_docs, reason = "they are those of Caller")]
pub struct CallerName<'a> {
    // In the order of `Caller`'s fields: the two must hash alike.
    pub key: KeyId,
    pub transport: Transport,
    pub trigger: Trigger,
    pub source: &'a str,
    pub sdk_name: &'a str,
    pub sdk_version: &'a str,
    pub platform: &'a str,
    pub wrapper: &'a str,
}

impl<'a> CallerName<'a> {
    /// A caller that says nothing about itself.
    #[must_use]
    pub const fn silent(key: KeyId, transport: Transport, trigger: Trigger) -> Self {
        Self { key, transport, trigger, source: "", sdk_name: "", sdk_version: "", platform: "", wrapper: "" }
    }

    fn texts(&self) -> [&'a str; 5] {
        [self.source, self.sdk_name, self.sdk_version, self.platform, self.wrapper]
    }

    fn to_caller(self) -> Caller {
        Caller {
            key: self.key,
            transport: self.transport,
            trigger: self.trigger,
            source: self.source.to_owned(),
            sdk_name: self.sdk_name.to_owned(),
            sdk_version: self.sdk_version.to_owned(),
            platform: self.platform.to_owned(),
            wrapper: self.wrapper.to_owned(),
        }
    }
}

impl Equivalent<Caller> for CallerName<'_> {
    fn equivalent(&self, caller: &Caller) -> bool {
        let texts = [&caller.source, &caller.sdk_name, &caller.sdk_version, &caller.platform, &caller.wrapper];
        (self.key, self.transport, self.trigger) == (caller.key, caller.transport, caller.trigger)
            && self.texts().into_iter().zip(texts).all(|(stated, known)| is_same(stated, known))
    }
}

/// What an [`EnvironmentRecorder`] and the flusher share.
#[derive(Debug)]
pub(super) struct EnvironmentState {
    pub(super) identity: EnvironmentIdentity,
    pub(super) partition: u32,
    pub(super) outcomes: Arc<[Outcome]>,
    /// The callers interned so far; the index is the id.
    callers: RwLock<IndexSet<Caller>>,
    /// The caller looked up last, which the next is likely to be.
    last_caller: AtomicU32,
    shards: Box<[Shard]>,
    redactor: ContextRedactor,
}

impl EnvironmentState {
    pub(super) fn new(
        identity: EnvironmentIdentity,
        partition: u32,
        outcomes: Arc<[Outcome]>,
        redactor: ContextRedactor,
        shards: usize,
    ) -> Self {
        let unknown = CallerName::silent(KeyId::NONE, Transport::Rest, Trigger::Evaluate);
        let callers = IndexSet::from([unknown.to_caller()]);
        let shards = (0..shards).map(|_| Shard::default()).collect();
        Self {
            identity,
            partition,
            outcomes,
            callers: RwLock::new(callers),
            last_caller: AtomicU32::new(0),
            shards,
            redactor,
        }
    }

    /// Which key the pseudonyms of its contexts are made with.
    pub(super) const fn pseudonym_key(&self) -> u32 {
        self.redactor.key_number()
    }

    /// The shard's buffer, locked for a few nanoseconds.
    pub(super) fn buffer(&self, shard: usize) -> MutexGuard<'_, Buffer> {
        self.shards[shard].active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The buffer that [`Self::swap`] took away; for the flusher.
    pub(super) fn spare(&self, shard: usize) -> MutexGuard<'_, Buffer> {
        self.shards[shard].spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Swaps a shard's two buffers if there is a call and so many decisions; returns the calls and decisions taken.
    pub(super) fn swap(&self, shard: usize, decisions_min: usize) -> (u64, u64) {
        let mut active = self.buffer(shard);
        if active.calls.is_empty() || active.decisions.len() < decisions_min {
            return (0, 0);
        }
        let mut spare = self.spare(shard);
        std::mem::swap(&mut *active, &mut *spare);
        drop(active);
        (spare.calls.len() as u64, spare.decisions.len() as u64)
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// All callers interned so far; the index is the id.
    pub(super) fn callers(&self) -> Vec<Caller> {
        self.callers.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Records the decisions of one environment under one configuration version. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EnvironmentRecorder {
    state: Arc<EnvironmentState>,
    shared: Arc<Shared>,
}

impl EnvironmentRecorder {
    pub(super) fn new(state: Arc<EnvironmentState>, shared: Arc<Shared>) -> Self {
        Self { state, shared }
    }

    /// Interns a caller; allocates only for one not seen before.
    #[must_use]
    pub fn caller(&self, name: CallerName<'_>) -> CallerId {
        let callers = self.state.callers.read().unwrap_or_else(PoisonError::into_inner);
        let last = self.state.last_caller.load(Ordering::Relaxed);
        if callers.get_index(last as usize).is_some_and(|caller| name.equivalent(caller)) {
            return CallerId(last);
        }
        if let Some(id) = callers.get_index_of(&name) {
            self.state.last_caller.store(id as u32, Ordering::Relaxed);
            return CallerId(id as u32);
        }
        let is_full = callers.len() >= limits::CALLERS_MAX;
        drop(callers);
        let is_long = |text: &str| text.chars().count() > limits::CALLER_TEXT_CHARACTERS;
        let is_silenced = is_full || name.texts().into_iter().any(is_long);
        let kept = if is_silenced { CallerName::silent(name.key, name.transport, name.trigger) } else { name };
        let mut callers = self.state.callers.write().unwrap_or_else(PoisonError::into_inner);
        CallerId(callers.insert_full(kept.to_caller()).0 as u32)
    }

    /// What may be logged of a context, for [`CallFacts::context`]. Costs some microseconds: keep it for the next call with
    /// that context.
    #[must_use]
    pub fn observe(&self, context: &Map<String, Value>) -> KnownContext {
        self.state.redactor.observe(context).into()
    }

    /// Whether what the other one observed of contexts is what this one would.
    #[must_use]
    pub fn observes_like(&self, other: &Self) -> bool {
        self.state.redactor.is_like(&other.state.redactor)
    }

    /// Records a call with the decisions made in it: pairs of an index into the recorder's outcomes and a bucket, or
    /// [`DecisionRow::NO_BUCKET`]. Returns false if it was refused, which is counted.
    pub fn record(&self, facts: CallFacts<'_>, decisions: &[(u32, u8)]) -> bool {
        let row = |&(outcome, bucket): &(u32, u8)| DecisionRow { outcome, bucket, count: 1 };
        self.record_rows(facts, decisions.iter().map(row))
    }

    /// The same for decisions that come as rows, such as a client's report.
    pub fn record_rows(&self, facts: CallFacts<'_>, decisions: impl ExactSizeIterator<Item = DecisionRow>) -> bool {
        let count = decisions.len();
        let mut buffer = self.state.buffer(current_shard(self.state.shards()));
        let is_full = buffer.decisions.len() + count > limits::BUFFER_DECISIONS_MAX
            || buffer.calls.len() >= limits::BUFFER_CALLS_MAX;
        if is_full || self.shared.is_closed() {
            drop(buffer);
            self.shared.refuse(self.state.identity.environment, count as u64);
            return false;
        }
        let rows_before = buffer.decisions.len();
        buffer.extend(decisions);
        debug_assert_eq!(buffer.decisions.len(), rows_before + count, "the iterator told its exact size");
        buffer.calls.push(facts.call(count));
        buffer.contexts.push(facts.context.map(|context| context.tell(facts.event_time_us)));
        let rows = buffer.decisions.len();
        drop(buffer);
        if rows_before < limits::WAKE_DECISIONS && rows >= limits::WAKE_DECISIONS {
            self.shared.wake_flusher();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(calls: &[&[u32]]) -> Buffer {
        let mut buffer = Buffer::default();
        for counts in calls {
            buffer.extend(counts.iter().map(|&count| DecisionRow { outcome: count, bucket: 0, count }));
            buffer.calls.push(CallFacts::default().call(counts.len()));
            buffer.contexts.push(None);
        }
        buffer
    }

    #[test]
    fn buffers_are_put_together_with_their_counts() {
        let counted: [&[&[u32]]; 5] = [&[], &[&[1, 1], &[1]], &[&[1, 7, 1], &[]], &[&[3]], &[&[1], &[2, 1]]];
        for first in counted {
            for second in counted {
                let mut both = buffer(first);
                assert!(both.absorb(&mut buffer(second)));
                let expected: Vec<u32> = [first, second].concat().concat();
                let found: Vec<u32> = both.decisions.iter().map(|row| row.outcome()).collect();
                assert_eq!((found, both.calls.len()), (expected.clone(), first.len() + second.len()));
                assert_eq!(both.contexts.len(), both.calls.len());
                let counts = if both.counts.is_empty() { vec![1; expected.len()] } else { both.counts };
                assert_eq!(counts, expected);
            }
        }
        let (mut large, half) = (Buffer::default(), vec![1; BATCH_DECISIONS_MAX / 2 + 1]);
        assert!(large.absorb(&mut buffer(&[&half])) && !large.absorb(&mut buffer(&[&half])));
        assert_eq!(large.decisions.len(), half.len());
    }
}
