//! The profile of a context: what was last known of it, kept in parts and written as text when emitted.

use std::sync::Arc;

use indexmap::IndexSet;

use super::hash::Seeded;
use super::keys::Client;
use super::shared_texts::SharedTexts;

/// The latest attributes of a context and the client library it was seen with.
#[derive(Debug)]
pub(super) struct Profile {
    /// Never before 1970, so that text order is time order; 0 while nothing is known of attributes, so that whoever knows some wins.
    seen_us: i64,
    attributes_json: Arc<str>,
    omitted: u32,
    client: u32,
}

/// A sighting of a context.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting<'a> {
    pub seen_us: i64,
    /// Empty if it says nothing about attributes, as a client's event, which knows a key alone.
    pub attributes_json: &'a str,
    pub omitted: u32,
    /// Number of the client library in the chunk.
    pub client: u32,
}

/// What is shown of a profile beside its time, which contexts have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shown<'a> {
    attributes_json: &'a str,
    omitted: u32,
    /// Number of the client library in the chunk.
    pub client: u32,
}

impl Shown<'_> {
    /// A JSON object; `sdk` is [`Client::to_json`] of the client library.
    pub fn render(self, sdk: &str) -> String {
        let attributes = if self.attributes_json.is_empty() { "{}" } else { self.attributes_json };
        format!(r#"{{"attributes":{attributes},"omitted":{},"sdk":{sdk}}}"#, self.omitted)
    }
}

impl Sighting<'_> {
    /// When its attributes were seen: before all others if it knows none.
    const fn known_us(&self) -> i64 {
        if self.attributes_json.is_empty() || self.seen_us < 0 { 0 } else { self.seen_us }
    }
}

impl Profile {
    /// The first sighting.
    pub fn new(sighting: Sighting<'_>, texts: &mut SharedTexts) -> Self {
        let Sighting { attributes_json, omitted, client, .. } = sighting;
        Self { seen_us: sighting.known_us(), attributes_json: texts.share(attributes_json), omitted, client }
    }

    /// Takes a sighting in: the later wins, of two at the same time the greater text, which is what stores do when they merge.
    #[inline]
    pub fn update(&mut self, sighting: Sighting<'_>, clients: &IndexSet<Client, Seeded>, texts: &mut SharedTexts) {
        let seen_us = sighting.known_us();
        if seen_us < self.seen_us {
            return;
        }
        let is_same = self.client == sighting.client
            && self.omitted == sighting.omitted
            && *self.attributes_json == *sighting.attributes_json;
        if is_same {
            self.seen_us = seen_us;
        } else {
            self.replace(sighting, clients, texts);
        }
    }

    #[cold]
    fn replace(&mut self, sighting: Sighting<'_>, clients: &IndexSet<Client, Seeded>, texts: &mut SharedTexts) {
        let new = Self::new(sighting, texts);
        let text = |profile: &Self| profile.shown().render(&clients[profile.client as usize].to_json());
        if new.seen_us > self.seen_us || text(&new) > text(self) {
            *self = new;
        }
    }

    /// All but the time.
    pub fn shown(&self) -> Shown<'_> {
        Shown { attributes_json: &self.attributes_json, omitted: self.omitted, client: self.client }
    }

    /// When attributes were seen; 0 while nothing is known of them.
    pub const fn known_us(&self) -> u64 {
        self.seen_us.cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_wins_and_ties_go_to_the_greater_text() {
        let client = |name: &str| Client {
            name: name.into(),
            version: "1\"".into(),
            platform: String::new(),
            wrapper: String::new(),
        };
        let clients: IndexSet<Client, Seeded> = [client("a"), client("b")].into_iter().collect();
        let mut texts = SharedTexts::new(Seeded(0));
        let render = |profile: &Profile| {
            let shown = profile.shown();
            format!("{:016x}{}", profile.known_us(), shown.render(&clients[shown.client as usize].to_json()))
        };
        let see = |seen_us, attributes_json, client| Sighting { seen_us, attributes_json, omitted: 2, client };
        let mut profile = Profile::new(see(5, r#"{"n":1}"#, 0), &mut texts);
        let first = r#"0000000000000005{"attributes":{"n":1},"omitted":2,"sdk":{"name":"a","version":"1\"","platform":"","wrapper":""}}"#;
        assert_eq!(render(&profile), first);
        profile.update(see(4, r#"{"n":9}"#, 1), &clients, &mut texts);
        profile.update(see(5, r#"{"n":0}"#, 1), &clients, &mut texts);
        assert_eq!(render(&profile), first);
        profile.update(see(5, r#"{"n":2}"#, 0), &clients, &mut texts);
        assert!(render(&profile).contains(r#"{"n":2}"#));
        profile.update(see(6, "", 1), &clients, &mut texts);
        assert!(render(&profile).starts_with(r#"0000000000000005{"attributes":{"n":2},"#), "it knows no attributes");
        let mut profile = Profile::new(see(7, "", 0), &mut texts);
        profile.update(see(6, "", 1), &clients, &mut texts);
        assert!(
            render(&profile).contains(r#""name":"b""#),
            "of two that know none the greater, too, whichever came first"
        );
        assert!(render(&profile).starts_with(r#"0000000000000000{"attributes":{},"#), "and loses against whoever does");
        profile.update(see(6, "{}", 1), &clients, &mut texts);
        assert!(render(&profile).starts_with(r#"0000000000000006{"attributes":{},"#));
    }
}
