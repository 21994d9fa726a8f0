//! The flat attribute map that conditions are matched against, laid out for lookup.
//!
//! Everything a condition could ask of an attribute is derived once, when the context is read: the hash of its name in lower
//! case, the text of a list, the items of a list held as a string. All texts live in one buffer; attributes refer to it by span,
//! so a map costs a handful of allocations and a decision none.

use serde_json::Value;

use super::values::{self, OBJECT_TEXT};

/// Up to this many attributes a scan is faster than a search in an index of their hashes.
const SCANNED_ATTRIBUTES: usize = 16;

/// A piece of [`AttributeMap::texts`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: u32,
    end: u32,
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

#[derive(Debug, Clone)]
struct Attribute {
    name: Span,
    /// The name in lower case; the same span where the name is in lower case already.
    lower: Span,
    lower_hash: u64,
    operand: Operand,
}

/// Attributes in order, names unique.
#[derive(Debug, Clone, Default)]
pub(super) struct AttributeMap {
    texts: String,
    attributes: Vec<Attribute>,
    /// One bit per hash modulo 64: most names that are not there are told by it alone.
    hash_bits: u64,
    /// `(hash, position)` in order, for maps too large to scan; empty otherwise.
    index: Vec<(u64, u32)>,
}

/// A name that a condition may mean, ready for lookup.
#[derive(Debug, Clone)]
struct Candidate {
    name: Box<str>,
    lower: Box<str>,
    lower_hash: u64,
}

/// The attribute of a condition: the names it may be found under, best first.
#[derive(Debug, Clone)]
pub(super) struct AttributeQuery {
    candidates: Box<[Candidate]>,
}

impl AttributeQuery {
    /// The name itself, then what follows its last dot: bare, `custom.`, `user.` and `organization.`. An empty name is never found.
    pub(super) fn new(name: &str) -> Self {
        let mut candidates: Vec<Candidate> = Vec::new();
        if !name.is_empty() {
            let bare = name.rsplit('.').next().unwrap_or(name);
            let prefixed = ["custom", "user", "organization"].map(|kind| format!("{kind}.{bare}"));
            for name in [name, bare].into_iter().chain(prefixed.iter().map(String::as_str)) {
                if candidates.iter().all(|candidate| *candidate.name != *name) {
                    let lower = name.to_lowercase();
                    candidates.push(Candidate {
                        name: name.into(),
                        lower_hash: name_hash(lower.as_bytes()),
                        lower: lower.into(),
                    });
                }
            }
        }
        Self { candidates: candidates.into() }
    }
}

impl AttributeMap {
    /// Room for this many attributes.
    pub(super) fn with_capacity(attributes: usize, text_bytes: usize) -> Self {
        Self {
            texts: String::with_capacity(text_bytes),
            attributes: Vec::with_capacity(attributes),
            hash_bits: 0,
            index: Vec::new(),
        }
    }

    /// Adds an attribute called `prefix` + `name`, which must not be there yet; returns its position.
    pub(super) fn push(&mut self, prefix: &str, name: &str, value: &Value) -> usize {
        let operand = self.operand(value);
        let start = self.texts.len();
        self.texts.push_str(prefix);
        self.texts.push_str(name);
        let name = self.span_from(start);
        let lower = self.lower(name);
        let lower_hash = name_hash(self.text(lower).as_bytes());
        self.hash_bits |= hash_bit(lower_hash);
        self.attributes.push(Attribute { name, lower, lower_hash, operand });
        self.attributes.len() - 1
    }

    /// Replaces the value at `position`.
    pub(super) fn replace(&mut self, position: usize, value: &Value) {
        self.attributes[position].operand = self.operand(value);
    }

    /// To be called once, after the last change.
    pub(super) fn seal(&mut self) {
        if self.attributes.len() > SCANNED_ATTRIBUTES {
            self.index = (0..).zip(&self.attributes).map(|(position, it)| (it.lower_hash, position)).collect();
            self.index.sort_unstable();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.attributes.len()
    }

    pub(super) fn name(&self, position: usize) -> &str {
        self.text(self.attributes[position].name)
    }

    pub(super) fn value(&self, position: usize) -> AttributeValue<'_> {
        match &self.attributes[position].operand {
            Operand::Null => AttributeValue::Null,
            Operand::Bool(value) => AttributeValue::Bool(*value),
            Operand::Number(number) => AttributeValue::Number(*number),
            Operand::Text { text, .. } => AttributeValue::Text(self.text(*text)),
            Operand::List { text, .. } => AttributeValue::List(self.text(*text)),
            Operand::Object => AttributeValue::Object,
        }
    }

    pub(super) fn operand_at(&self, position: usize) -> &Operand {
        &self.attributes[position].operand
    }

    #[inline]
    pub(super) fn text(&self, span: Span) -> &str {
        &self.texts[span.start as usize..span.end as usize]
    }

    /// The position of the attribute that `query` means.
    #[inline]
    pub(super) fn find(&self, query: &AttributeQuery) -> Option<usize> {
        query.candidates.iter().find_map(|candidate| {
            if self.hash_bits & hash_bit(candidate.lower_hash) == 0 {
                return None;
            }
            self.find_candidate(candidate)
        })
    }

    /// The attribute of exactly that name, else the first one that differs by case alone.
    fn find_candidate(&self, candidate: &Candidate) -> Option<usize> {
        if self.index.is_empty() {
            let hits = self.attributes.iter().enumerate().filter(|(_, it)| it.lower_hash == candidate.lower_hash);
            return self.best(candidate, hits.map(|(position, _)| position));
        }
        let from = self.index.partition_point(|(hash, _)| *hash < candidate.lower_hash);
        let hits = self.index[from..].iter().take_while(|(hash, _)| *hash == candidate.lower_hash);
        self.best(candidate, hits.map(|(_, position)| *position as usize))
    }

    fn best(&self, candidate: &Candidate, positions: impl Iterator<Item = usize>) -> Option<usize> {
        let mut first_ignoring_case = None;
        for position in positions {
            let attribute = &self.attributes[position];
            if *self.text(attribute.name) == *candidate.name {
                return Some(position);
            }
            if first_ignoring_case.is_none() && *self.text(attribute.lower) == *candidate.lower {
                first_ignoring_case = Some(position);
            }
        }
        first_ignoring_case
    }

    fn operand(&mut self, value: &Value) -> Operand {
        match value {
            Value::Null => Operand::Null,
            Value::Bool(bool) => Operand::Bool(*bool),
            Value::Number(number) => Operand::Number(values::double(number)),
            Value::String(string) => {
                let text = self.store(string);
                let items = values::list(value).map(|items| self.store_all(&items));
                Operand::Text { text, items }
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
        if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
            return name;
        }
        let lower = text.to_lowercase();
        self.store(&lower)
    }

    fn span_from(&self, start: usize) -> Span {
        let bound = |at: usize| u32::try_from(at).expect("a context is limited to far less than 4 GiB");
        Span { start: bound(start), end: bound(self.texts.len()) }
    }
}

impl Operand {
    /// The comparable text of every kind but numbers, which are compared as numbers or written when they must be.
    #[inline]
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

const fn hash_bit(hash: u64) -> u64 {
    1 << (hash >> 58)
}

/// A hash for names, eight bytes at a time: rotate, XOR, multiply, as in rustc's FxHash. Collisions cost time, never correctness.
pub(super) fn name_hash(name: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| (state.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = name.as_chunks::<8>();
    let state = words.iter().fold(name.len() as u64, |state, word| mix(state, u64::from_le_bytes(*word)));
    let last = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    mix(state, last)
}
