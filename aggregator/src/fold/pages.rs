//! Changed contexts on their way to the store: in pages of those that are alike, written straight from their cells.
//!
//! A context is emitted once for nearly every call of a busy log, so what it shares with others is looked up by number and rendered once for all of them.

use std::hash::Hash;

use flagmint_schemas::context_key::ContextKey as Key;
use flagmint_schemas::rollup::ContextPage;
use indexmap::IndexSet;

use super::chunk::{Chunk, ChunkId};
use super::emission::Emitted;
use super::hash::Seeded;
use super::keys::{Client, Environment};
use super::profile::Shown;
use crate::limits::PAGE_CONTEXTS;

/// What the contexts of a page have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Alike {
    environment: u32,
    source: u32,
    kind: u32,
    day_us: i64,
    is_text: bool,
}

/// Where a context goes: to a page, there to those with its profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    page: u32,
    profile: u32,
    slot: u32,
}

/// Values by number, in the order they came; the same one often comes several times in a row.
struct Numbered<T> {
    values: IndexSet<T, Seeded>,
    last: Option<(T, u32)>,
}

impl<T: Copy + Eq + Hash> Numbered<T> {
    fn new(hashing: Seeded) -> Self {
        Self { values: IndexSet::with_hasher(hashing), last: None }
    }

    fn number(&mut self, value: T) -> u32 {
        match self.last {
            Some((last, number)) if last == value => number,
            _ => {
                let number = self.values.insert_full(value).0 as u32;
                self.last = Some((value, number));
                number
            }
        }
    }
}

impl Chunk {
    /// Hands over the contexts that changed since the last time; once more all of them if the chunk is complete, so that nobody needs the pages before.
    pub(super) fn emit_contexts(&mut self, complete: bool, out: &mut Emitted) {
        let mut slots = self.contexts.take_dirty();
        if complete {
            slots = (0..self.contexts.len() as u32).collect();
        }
        let hashing = Seeded(self.id.epoch);
        let (mut pages, mut profiles) = (Numbered::<Alike>::new(hashing), Numbered::<Shown<'_>>::new(hashing));
        let place = |slot: u32| {
            let (key, context) = self.contexts.get(slot);
            let is_text = !matches!(key.key, Key::Pseudonym(_));
            let alike =
                Alike { environment: key.environment, source: key.source, kind: key.kind, day_us: key.day_us, is_text };
            Place { page: pages.number(alike), profile: profiles.number(context.profile.shown()), slot }
        };
        let mut places: Vec<Place> = slots.into_iter().map(place).collect();
        places.sort_unstable();
        let sdks: Vec<String> = self.clients.iter().map(Client::to_json).collect();
        for alike in places.chunk_by(|a, b| a.page == b.page) {
            for places in alike.chunks(PAGE_CONTEXTS) {
                let page = self.page(pages.values[places[0].page as usize], places, &profiles.values, &sdks);
                out.contexts.push(ContextPage { complete: u8::from(complete), ..page });
            }
        }
    }

    fn page(
        &self,
        alike: Alike,
        places: &[Place],
        profiles: &IndexSet<Shown<'_>, Seeded>,
        sdks: &[String],
    ) -> ContextPage {
        let ChunkId { epoch, partition, chunk } = self.id;
        let Environment { organization, project, environment } = self.environments[alike.environment as usize];
        let text = |number: u32| self.texts[number as usize].to_string();
        let mut page = ContextPage {
            organization,
            project,
            environment,
            kind: text(alike.kind),
            source: text(alike.source),
            time_us: alike.day_us,
            epoch,
            partition,
            chunk,
            ..ContextPage::with_capacity(places.len())
        };
        for places in places.chunk_by(|a, b| a.profile == b.profile) {
            let shown = profiles[places[0].profile as usize];
            page.profiles.push(shown.render(&sdks[shown.client as usize]));
            page.shared_by.push(places.len() as u32);
            for place in places {
                let (key, context) = self.contexts.get(place.slot);
                let values = (context.evaluations, context.first_seen_us, context.last_seen_us);
                page.push(&key.key, values, context.profile.known_us());
            }
        }
        page
    }
}
