//! The flat attribute map that conditions are matched against, laid out for lookup.
//!
//! Everything a condition could ask of an attribute is derived once, when the context is read: the hash of its name in lower
//! case, the text of a list, the items of a list held as a string. All texts live in one buffer; attributes refer to it by span,
//! so a map costs a handful of allocations and a decision none.

use serde_json::Value;

use super::values::{self, OBJECT_TEXT};
use super::words::{Head, name_hash};

/// Slots of the table that finds most attributes in one step: what a byte can number, so many that few of a usual context share one.
const SLOTS: usize = 256;
/// Up to this many attributes, those that share a slot are told apart by a scan; beyond, by a search in an index.
const SCANNED_ATTRIBUTES: usize = 24;

/// A piece of [`AttributeMap::texts`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    #[inline]
    pub(super) fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// The value of an attribute as conditions see it.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    Null,
    Bool(bool),
    Number(f64),
    /// A string, with its items if it holds a list (`[a, b]`).
    Text {
        text: Span,
        head: Head,
        items: Option<Box<[Span]>>,
    },
    List {
        text: Span,
        items: Box<[Span]>,
    },
    Object,
}

/// The value of an attribute, for readers outside the engine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AttributeValue<'m> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as a double.
    Number(f64),
    /// A string.
    Text(&'m str),
    /// A list, by its text: the items' texts joined by commas.
    List(&'m str),
    /// An object.
    Object,
}

/// The names of an attribute.
#[derive(Debug, Clone)]
struct Name {
    name: Span,
    /// The name in lower case; the same span where the name is in lower case already.
    lower: Span,
}

/// What follows the last dot of an attribute's name in lower case.
#[derive(Debug, Clone)]
struct Tail {
    head: Head,
    /// Its length if every query of the same tail means this attribute, unless it finds a better one; else [`NOT_PLAIN`].
    plain_len: u32,
}

const NOT_PLAIN: u32 = u32::MAX;

/// Attributes in order, names unique.
#[derive(Debug, Clone)]
pub(super) struct AttributeMap {
    texts: String,
    // One list for each use: decisions for many contexts wait for memory more than for anything else.
    names: Vec<Name>,
    tails: Vec<Tail>,
    operands: Vec<Operand>,
    /// Of each attribute, the hash of what follows the last dot of its name in lower case: its tail.
    tail_hashes: Vec<u64>,
    /// By some bits of a tail hash: what is there.
    slots: [Slot; SLOTS],
    /// `(tail hash, position)` in order, for maps too large to scan; empty otherwise.
    index: Vec<(u64, u32)>,
}

/// A slot's content: a position, or one of two marks.
type Slot = u8;
/// No attribute has a tail hash of this slot.
const EMPTY: Slot = u8::MAX;
/// Several have, or one whose position is beyond a slot's range.
const SHARED: Slot = u8::MAX - 1;

impl Default for AttributeMap {
    fn default() -> Self {
        let (texts, names, tails, operands, tail_hashes, index) = Default::default();
        Self { texts, names, tails, operands, tail_hashes, slots: [EMPTY; SLOTS], index }
    }
}

/// What comes before the last dot of an attribute that any name ending like it may mean.
const KNOWN_PREFIXES: [&str; 4] = ["", "custom.", "user.", "organization."];

/// The attribute of a condition: the names it may be found under, best first. All of them end alike after their last dot.
#[derive(Debug, Clone)]
pub(super) struct AttributeQuery {
    slot: u8,
    tail_head: Head,
    tail_hash: u64,
    /// What follows the last dot, in lower case.
    tail: Box<str>,
    candidates: Box<[Candidate]>,
}

/// A name that a condition may mean.
#[derive(Debug, Clone)]
struct Candidate {
    name: Box<str>,
    lower: Box<str>,
}

impl AttributeQuery {
    /// The name itself, then what follows its last dot: bare, `custom.`, `user.` and `organization.`. An empty name is never found.
    pub(super) fn new(name: &str) -> Self {
        let mut candidates: Vec<Candidate> = Vec::new();
        if !name.is_empty() {
            let bare = name.rsplit('.').next().unwrap_or(name);
            let prefixed = KNOWN_PREFIXES.map(|prefix| format!("{prefix}{bare}"));
            for name in [name].into_iter().chain(prefixed.iter().map(String::as_str)) {
                if candidates.iter().all(|candidate| *candidate.name != *name) {
                    candidates.push(Candidate { name: name.into(), lower: name.to_lowercase().into() });
                }
            }
        }
        let lower = name.to_lowercase();
        let tail = &lower[tail_start(&lower)..];
        let tail_hash = name_hash(tail.as_bytes());
        let tail_head = Head::of(tail.as_bytes());
        Self { slot: slot_of(tail_hash), tail_head, tail_hash, tail: tail.into(), candidates: candidates.into() }
    }
}

impl AttributeMap {
    /// Room for this many attributes.
    pub(super) fn with_capacity(attributes: usize, text_bytes: usize) -> Self {
        Self {
            texts: String::with_capacity(text_bytes),
            names: Vec::with_capacity(attributes),
            tails: Vec::with_capacity(attributes),
            operands: Vec::with_capacity(attributes),
            tail_hashes: Vec::with_capacity(attributes),
            ..Self::default()
        }
    }

    /// Adds an attribute called `prefix` + `name`, which must not be there yet.
    pub(super) fn push(&mut self, prefix: &str, name: &str, value: &Value) {
        let operand = self.operand(value);
        let start = self.texts.len();
        self.texts.push_str(prefix);
        self.texts.push_str(name);
        let name = self.span_from(start);
        let lower = self.lower(name);
        let text = self.text(lower);
        let start = tail_start(text);
        // Lower case depends on the letters around only outside ASCII, so that here tails may be compared instead of names.
        let is_plain = text.is_ascii() && KNOWN_PREFIXES.contains(&&text[..start]) && start < text.len();
        let tail = &text.as_bytes()[start..];
        let tail_hash = name_hash(tail);
        let plain_len = if is_plain { bound(tail.len()) } else { NOT_PLAIN };
        self.tails.push(Tail { head: Head::of(tail), plain_len });
        let slot = &mut self.slots[usize::from(slot_of(tail_hash))];
        *slot = match Slot::try_from(self.names.len()) {
            Ok(position) if *slot == EMPTY && position < SHARED => position,
            _ => SHARED,
        };
        self.tail_hashes.push(tail_hash);
        self.names.push(Name { name, lower });
        self.operands.push(operand);
    }

    /// Replaces the value at `position`.
    pub(super) fn replace(&mut self, position: usize, value: &Value) {
        self.operands[position] = self.operand(value);
    }

    /// To be called once, after the last change.
    pub(super) fn seal(&mut self) {
        if self.names.len() > SCANNED_ATTRIBUTES {
            self.index = self.tail_hashes.iter().copied().zip(0..).collect();
            self.index.sort_unstable();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn name(&self, position: usize) -> &str {
        self.text(self.names[position].name)
    }

    pub(super) fn value(&self, position: usize) -> AttributeValue<'_> {
        match &self.operands[position] {
            Operand::Null => AttributeValue::Null,
            Operand::Bool(value) => AttributeValue::Bool(*value),
            Operand::Number(number) => AttributeValue::Number(*number),
            Operand::Text { text, .. } => AttributeValue::Text(self.text(*text)),
            Operand::List { text, .. } => AttributeValue::List(self.text(*text)),
            Operand::Object => AttributeValue::Object,
        }
    }

    #[inline]
    pub(super) fn operand_at(&self, position: usize) -> &Operand {
        &self.operands[position]
    }

    #[inline]
    pub(super) fn text(&self, span: Span) -> &str {
        &self.texts[span.start as usize..span.end as usize]
    }

    /// The bytes of [`Self::text`], without its check that the span ends between characters.
    #[inline]
    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        &self.texts.as_bytes()[span.start as usize..span.end as usize]
    }

    /// The position of the attribute that `query` means.
    #[inline]
    pub(super) fn find(&self, query: &AttributeQuery) -> Option<usize> {
        match self.slots[usize::from(query.slot)] {
            EMPTY => None,
            SHARED => self.find_among_many(query),
            position => self.goes_by(query, usize::from(position)),
        }
    }

    /// The position, if the attribute there goes by one of the names. Which one does not matter if nothing competes with it.
    #[inline]
    fn goes_by(&self, query: &AttributeQuery, position: usize) -> Option<usize> {
        let Tail { head, plain_len } = self.tails[position];
        if plain_len == NOT_PLAIN {
            return self.goes_by_full_name(query, position);
        }
        let own = (head, plain_len as usize);
        let asked = (query.tail_head, query.tail.len());
        Head::are_equal(own, asked, || (self.tail(position, plain_len), query.tail.as_bytes())).then_some(position)
    }

    /// The end of the name in lower case.
    fn tail(&self, position: usize, len: u32) -> &[u8] {
        let end = self.names[position].lower.end;
        self.bytes(Span { start: end - len, end })
    }

    // Out of line, as the rest of the way of a rare attribute: the common one then needs few registers.
    #[inline(never)]
    fn goes_by_full_name(&self, query: &AttributeQuery, position: usize) -> Option<usize> {
        self.best(query, std::iter::once(position))
    }

    #[inline(never)]
    fn find_among_many(&self, query: &AttributeQuery) -> Option<usize> {
        if self.index.is_empty() { self.find_by_scan(query) } else { self.find_in_index(query) }
    }

    fn find_by_scan(&self, query: &AttributeQuery) -> Option<usize> {
        let mut hits = self.tail_hashes.iter().zip(0..).filter(|(hash, _)| **hash == query.tail_hash);
        let (_, first) = hits.next()?;
        match hits.next() {
            None => self.goes_by(query, first),
            Some((_, second)) => {
                self.best(query, [first, second].into_iter().chain(hits.map(|(_, position)| position)))
            }
        }
    }

    fn find_in_index(&self, query: &AttributeQuery) -> Option<usize> {
        let from = self.index.partition_point(|(hash, _)| *hash < query.tail_hash);
        let hits = self.index[from..].iter().take_while(|(hash, _)| *hash == query.tail_hash);
        self.best(query, hits.map(|(_, position)| *position as usize))
    }

    /// For the first candidate that is there: the attribute of exactly that name, else the first that differs by case alone.
    fn best(&self, query: &AttributeQuery, positions: impl Iterator<Item = usize> + Clone) -> Option<usize> {
        let has_name = |position: &usize, name: &str| self.name(*position) == name;
        let has_lower = |position: &usize, lower: &str| *self.text(self.names[*position].lower) == *lower;
        query.candidates.iter().find_map(|candidate| {
            let exact = positions.clone().find(|position| has_name(position, &candidate.name));
            exact.or_else(|| positions.clone().find(|position| has_lower(position, &candidate.lower)))
        })
    }

    fn operand(&mut self, value: &Value) -> Operand {
        match value {
            Value::Null => Operand::Null,
            Value::Bool(bool) => Operand::Bool(*bool),
            Value::Number(number) => Operand::Number(values::double(number)),
            Value::String(string) => {
                let text = self.store(string);
                let items = values::list(value).map(|items| self.store_all(&items));
                Operand::Text { text, head: Head::of(string.as_bytes()), items }
            }
            Value::Array(_) => {
                let text = self.store(&values::comparable(Some(value)));
                let items = self.store_all(&values::list(value).unwrap_or_default());
                Operand::List { text, items }
            }
            Value::Object(_) => Operand::Object,
        }
    }

    fn store(&mut self, text: &str) -> Span {
        let start = self.texts.len();
        self.texts.push_str(text);
        self.span_from(start)
    }

    fn store_all(&mut self, texts: &[String]) -> Box<[Span]> {
        texts.iter().map(|text| self.store(text)).collect()
    }

    fn lower(&mut self, name: Span) -> Span {
        let text = self.text(name);
        // Without an early exit, so that it runs over many bytes at once.
        let may_change = |byte: u8| !byte.is_ascii() | byte.is_ascii_uppercase();
        if !text.bytes().fold(false, |any, byte| any | may_change(byte)) {
            return name;
        }
        let lower = text.to_lowercase();
        self.store(&lower)
    }

    fn span_from(&self, start: usize) -> Span {
        Span { start: bound(start), end: bound(self.texts.len()) }
    }
}

impl Operand {
    /// The comparable text of every kind but numbers, which are compared as numbers or written when they must be.
    pub(super) fn text<'m>(&self, map: &'m AttributeMap) -> Option<&'m str> {
        match self {
            Self::Null => Some(""),
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Number(_) => None,
            Self::Text { text, .. } | Self::List { text, .. } => Some(map.text(*text)),
            Self::Object => Some(OBJECT_TEXT),
        }
    }
}

/// An offset into the texts.
fn bound(at: usize) -> u32 {
    u32::try_from(at).expect("a context is limited to far less than 4 GiB")
}

const fn slot_of(tail_hash: u64) -> u8 {
    (tail_hash >> (u64::BITS - SLOTS.ilog2())) as u8
}

/// Where what follows the last dot of a name begins.
fn tail_start(name: &str) -> usize {
    name.rfind('.').map_or(0, |dot| dot + 1)
}
