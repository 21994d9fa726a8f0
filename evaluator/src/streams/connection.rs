//! One open connection: whose it is, its context, what it was sent, and what is to be sent next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task;

use flagmint_ingest::CallFacts;
use flagmint_schemas::decision::{Transport, Trigger};
use futures::task::AtomicWaker;
use tokio::time::Instant;

use super::client::Client;
use super::hub::{Hub, SharedContext};
use super::map::FlagMap;
use crate::contexts::Seen;
use crate::directory::Key;
use crate::engine::Context;
use crate::http::{Call, DataPlane, Received};
use crate::limits::{CONTEXT_DEBOUNCE, CONTEXT_DEBOUNCE_MAX};
use crate::quota::Limit;

/// Why the server ends a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its key was revoked or has expired.
    InvalidApiKey,
    /// The organization's subscription has lapsed.
    SubscriptionInactive,
    /// The organization has reached its monthly limit.
    QuotaExceeded(Limit),
    /// This instance is about to stop.
    GoingAway,
}

/// What is to be done for a connection.
#[derive(Debug)]
pub enum Event {
    /// Send the whole map.
    Flags(Arc<FlagMap>),
    /// The configuration has changed; for connections that are sent something else than maps.
    Published,
    /// Say why, and end it.
    End(End),
    /// Nothing before that time, if any, or before it is woken.
    Wait(Option<Instant>),
}

/// An open connection.
pub struct Connection {
    /// Its number in this instance.
    pub number: u64,
    /// The key it was opened with.
    pub key: Arc<Key>,
    /// What it is.
    pub transport: Transport,
    pub(super) hub: Arc<Hub>,
    client: Client,
    state: Mutex<State>,
    waker: AtomicWaker,
}

#[derive(Debug)]
struct State {
    /// `None`: evaluated by the client.
    context: Option<Arc<SharedContext>>,
    sent: Option<Arc<FlagMap>>,
    /// The hub's when last looked at.
    epoch: u64,
    posted: Option<Posted>,
    end: Option<End>,
}

/// A context that waits for others that may follow it.
#[derive(Debug)]
struct Posted {
    context: Arc<SharedContext>,
    /// When the first of them came.
    first: Instant,
    due: Instant,
}

impl Connection {
    pub(super) fn new(
        (number, hub, key): (u64, Arc<Hub>, Arc<Key>),
        transport: Transport,
        client: Client,
        context: Option<&str>,
    ) -> Self {
        let context = context.map(|text| hub.context(text));
        let state = State { context, sent: None, epoch: hub.epoch(), posted: None, end: None };
        Self { number, key, transport, hub, client, state: Mutex::new(state), waker: AtomicWaker::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is sent maps, not configuration.
    pub fn is_server_evaluated(&self) -> bool {
        self.state().context.is_some()
    }

    /// The map it was sent last.
    pub fn sent(&self) -> Option<Arc<FlagMap>> {
        self.state().sent.clone()
    }

    /// Ends it; the first reason counts.
    pub fn end(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.wake();
    }

    /// Has its task look at [`Self::next`].
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Has `waker` woken when there is something to do.
    pub fn register(&self, waker: &task::Waker) {
        self.waker.register(waker);
    }

    /// The map for its context, to be sent whatever was sent before; records the decisions under `facts`. `None` if the environment
    /// has no configuration in force.
    pub fn evaluate(&self, plane: &DataPlane, trigger: Trigger, facts: CallFacts<'_>) -> Option<Arc<FlagMap>> {
        let mut state = self.state();
        let epoch = self.hub.epoch();
        let context = state.context.clone()?;
        let map = self.decide(plane, &context, trigger, facts)?;
        state.epoch = epoch;
        state.sent = Some(Arc::clone(&map));
        Some(map)
    }

    /// The same with another context from now on.
    pub fn replace_context(
        &self,
        plane: &DataPlane,
        text: &str,
        trigger: Trigger,
        facts: CallFacts<'_>,
    ) -> Option<Arc<FlagMap>> {
        self.state().context = Some(self.hub.context(text));
        self.evaluate(plane, trigger, facts)
    }

    /// Takes another context, which is evaluated when none has followed it for [`CONTEXT_DEBOUNCE`].
    pub fn post(&self, text: &str, now: Instant) {
        let context = self.hub.context(text);
        let mut state = self.state();
        let first = state.posted.as_ref().map_or(now, |posted| posted.first);
        let due = (now + CONTEXT_DEBOUNCE).min(first + CONTEXT_DEBOUNCE_MAX);
        state.posted = Some(Posted { context, first, due });
        drop(state);
        self.wake();
    }

    /// What is to be done now.
    pub fn next(&self, plane: &DataPlane, now: Instant) -> Event {
        let mut state = self.state();
        if let Some(end) = &state.end {
            return Event::End(end.clone());
        }
        let epoch = self.hub.epoch();
        if let Some(posted) = state.posted.take_if(|posted| posted.due <= now) {
            let decided = self.decide(plane, &posted.context, Trigger::Context, CallFacts::default());
            state.context = Some(posted.context);
            if let Some(map) = decided {
                state.epoch = epoch;
                state.sent = Some(Arc::clone(&map));
                return Event::Flags(map);
            }
        }
        if state.epoch != epoch {
            state.epoch = epoch;
            let Some(context) = state.context.clone() else { return Event::Published };
            if let Some(map) = self.decide_for_all(plane, &context, epoch).filter(|map| self.is_news(&state, map)) {
                state.sent = Some(Arc::clone(&map));
                return Event::Flags(map);
            }
        }
        Event::Wait(state.posted.as_ref().map(|posted| posted.due))
    }

    fn is_news(&self, state: &State, map: &FlagMap) -> bool {
        let Some(sent) = &state.sent else { return true };
        sent.values != map.values || (self.transport == Transport::Sse && sent.analytics != map.analytics)
    }

    /// The map for a context in this epoch: evaluated once for all connections that have it.
    fn decide_for_all(&self, plane: &DataPlane, context: &SharedContext, epoch: u64) -> Option<Arc<FlagMap>> {
        let mut decided = context.decided.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, map)) = decided.as_ref().filter(|(decided_in, _)| *decided_in == epoch) {
            return Some(Arc::clone(map));
        }
        let map = self.decide(plane, context, Trigger::Publish, CallFacts::default())?;
        *decided = Some((epoch, Arc::clone(&map)));
        Some(map)
    }

    fn decide(
        &self,
        plane: &DataPlane,
        context: &SharedContext,
        trigger: Trigger,
        facts: CallFacts<'_>,
    ) -> Option<Arc<FlagMap>> {
        let guard = self.hub.environment().snapshot();
        let snapshot = guard.as_ref()?;
        let received = Received::now();
        let in_flight = plane.directory().begin();
        // It was read when it came; an unreadable one got no connection and no answer.
        let read = Context::from_json(context.text.as_bytes()).unwrap_or_else(|_| Context::empty());
        let seen = Seen::new(snapshot, read);
        let facts = CallFacts { event_time_us: in_flight.received_us(), counted: self.client.is_counted, ..facts };
        let call = self.call(plane, &received, trigger);
        Some(call.decide_all(snapshot, &seen, facts, |decisions| self.hub.map(snapshot, decisions)))
    }

    /// A call of its client.
    pub fn call<'a>(&'a self, plane: &'a DataPlane, received: &'a Received, trigger: Trigger) -> Call<'a> {
        Call::new(plane, received, self.key.facts.id, (self.transport, trigger), self.client.identity())
    }
}
