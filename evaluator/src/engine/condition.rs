//! One condition, compiled: what its operator needs of the value is worked out ahead, so that a test is a comparison or two.
//!
//! A number never has to be written out to be compared for equality: its text equals another text exactly when that text is the
//! canonical text of a number and the numbers are equal.

use serde_json::Value;

use super::attributes::{AttributeMap, Operand};
use super::values::{NumberText, comparable, list, number, number_of_text};
use super::words::{Head, Suffix};

/// Up to this many texts a scan of their heads, which most often finds none, comes before a binary search.
const SCANNED_PATTERNS: usize = 12;

/// A condition without its attribute: tells whether an attribute's value satisfies it.
#[derive(Debug, Clone)]
pub(super) struct Test {
    negated: bool,
    predicate: Predicate,
}

#[derive(Debug, Clone)]
enum Predicate {
    Never,
    Exists,
    Equals(Pattern),
    In(PatternSet),
    Above(f64),
    Below(f64),
    Contains(Box<str>),
    StartsWith(Box<str>),
    EndsWith(Suffix),
}

/// A text to be equalled, and the number whose text it is (or, in `eq`, the number it reads as); NaN if none.
#[derive(Debug, Clone)]
struct Pattern {
    head: Head,
    text: Box<str>,
    number: f64,
}

/// Texts to be found among, sorted; and those of them that are numbers, sorted.
#[derive(Debug, Clone)]
struct PatternSet {
    heads: Box<[Head]>,
    texts: Box<[Box<str>]>,
    numbers: Box<[f64]>,
}

impl Test {
    /// Compiles an operator and its value, which may be absent. An unknown operator never holds.
    pub(super) fn new(operator: &str, value: Option<&Value>) -> Self {
        let present = value.filter(|value| !value.is_null());
        let text = |make: fn(Box<str>) -> Predicate| {
            present.map_or(Predicate::Never, |value| make(comparable(Some(value)).into()))
        };
        let bound = |make: fn(f64) -> Predicate| present.map_or(Predicate::Never, |value| make(number(Some(value))));
        let set = || value.and_then(list).map_or(Predicate::Never, |items| Predicate::In(PatternSet::new(items)));
        let plain = |predicate| Self { negated: false, predicate };
        let negated = |predicate| Self { negated: true, predicate };
        match operator {
            "exists" => plain(Predicate::Exists),
            "not_exists" => negated(Predicate::Exists),
            "eq" => plain(value.map_or(Predicate::Never, |value| Predicate::Equals(Pattern::new(value)))),
            // Without a value both are false, so that case is not the negation of `eq`.
            "neq" => value.map_or(plain(Predicate::Never), |value| negated(Predicate::Equals(Pattern::new(value)))),
            "in" => plain(set()),
            "nin" => negated(set()),
            "gt" => plain(bound(Predicate::Above)),
            "lt" => plain(bound(Predicate::Below)),
            "contains" => plain(text(Predicate::Contains)),
            "not_contains" => negated(text(Predicate::Contains)),
            "startsWith" => plain(text(Predicate::StartsWith)),
            "endsWith" => plain(text(|suffix| Predicate::EndsWith(Suffix::new(&suffix)))),
            _ => plain(Predicate::Never),
        }
    }

    /// Whether the value holds, `None` being an attribute that was not found.
    #[inline]
    pub(super) fn holds(&self, operand: Option<&Operand>, map: &AttributeMap) -> bool {
        self.predicate.holds(operand, map) != self.negated
    }
}

impl Predicate {
    #[inline]
    fn holds(&self, operand: Option<&Operand>, map: &AttributeMap) -> bool {
        match self {
            Self::Never => false,
            Self::Exists => !matches!(operand, None | Some(Operand::Null)),
            Self::Equals(pattern) => pattern.equals(operand.unwrap_or(&Operand::Null), map),
            Self::In(set) => set.holds(operand.unwrap_or(&Operand::Null), map),
            Self::Above(bound) => number_of(operand, map) > *bound,
            Self::Below(bound) => number_of(operand, map) < *bound,
            Self::EndsWith(suffix) => match operand {
                Some(Operand::Text { text, .. }) => suffix.ends(map.bytes(*text)),
                _ => with_text(operand, map, |text| suffix.ends(text.as_bytes())),
            },
            Self::Contains(part) => with_text(operand, map, |text| text.contains(&**part)),
            Self::StartsWith(part) => with_text(operand, map, |text| text.starts_with(&**part)),
        }
    }
}

impl Pattern {
    fn new(value: &Value) -> Self {
        let text = comparable(Some(value));
        let read = if value.is_string() { number(Some(value)) } else { f64::NAN };
        let number = if read.is_nan() { number_written(&text).unwrap_or(f64::NAN) } else { read };
        Self { head: Head::of(text.as_bytes()), text: text.into(), number }
    }

    /// Booleans need no case of their own: compared as booleans or as texts, `true` and `false` equal the same values.
    #[inline]
    fn equals(&self, operand: &Operand, map: &AttributeMap) -> bool {
        match operand {
            Operand::Text { text, head, .. } => {
                let asked = (self.head, self.text.len());
                Head::are_equal((*head, text.len()), asked, || (map.bytes(*text), self.text.as_bytes()))
            }
            Operand::Number(number) => *number == self.number,
            other => other.text(map).is_some_and(|text| text == &*self.text),
        }
    }
}

impl PatternSet {
    fn new(items: Vec<String>) -> Self {
        let mut numbers: Vec<f64> = items.iter().filter_map(|item| number_written(item)).collect();
        numbers.sort_unstable_by(f64::total_cmp);
        let mut texts: Vec<Box<str>> = items.into_iter().map(String::into_boxed_str).collect();
        texts.sort_unstable_by(|a, b| Head::of(a.as_bytes()).cmp(&Head::of(b.as_bytes())).then_with(|| a.cmp(b)));
        texts.dedup();
        Self {
            heads: texts.iter().map(|text| Head::of(text.as_bytes())).collect(),
            texts: texts.into(),
            numbers: numbers.into(),
        }
    }

    #[inline]
    fn holds(&self, operand: &Operand, map: &AttributeMap) -> bool {
        match operand {
            Operand::Text { text, head, items: None } => self.may_have(*head) && self.has(*head, map.bytes(*text)),
            other => self.holds_other(other, map),
        }
    }

    #[inline(never)]
    fn holds_other(&self, operand: &Operand, map: &AttributeMap) -> bool {
        match operand {
            Operand::Number(number) => self.has_number(*number),
            Operand::List { items, .. } | Operand::Text { items: Some(items), .. } => {
                items.iter().map(|item| map.bytes(*item)).any(|item| self.has(Head::of(item), item))
            }
            other => other.text(map).is_some_and(|text| self.has(Head::of(text.as_bytes()), text.as_bytes())),
        }
    }

    /// False only if no text has this head.
    #[inline]
    fn may_have(&self, head: Head) -> bool {
        // Without an early exit: where a scan would end is what no processor can foresee.
        self.heads.len() > SCANNED_PATTERNS || self.heads.iter().fold(false, |any, it| any | (*it == head))
    }

    #[inline(never)]
    fn has(&self, head: Head, text: &[u8]) -> bool {
        let first = self.heads.partition_point(|it| *it < head);
        let mut hits = self.heads[first..].iter().zip(&self.texts[first..]).take_while(|(it, _)| **it == head);
        hits.any(|(_, item)| item.as_bytes() == text)
    }

    fn has_number(&self, number: f64) -> bool {
        // A canonical "0" is plus zero; minus zero has the same text.
        let number = if number == 0.0 { 0.0 } else { number };
        self.numbers.binary_search_by(|item| item.total_cmp(&number)).is_ok()
    }
}

/// The number whose text is exactly `text`. JSON has no infinite ones.
fn number_written(text: &str) -> Option<f64> {
    let number = number_of_text(text);
    (number.is_finite() && NumberText::new(number).as_str() == text).then_some(number)
}

/// `number(a)`: a missing attribute is no number, `null` is 0.
#[inline]
fn number_of(operand: Option<&Operand>, map: &AttributeMap) -> f64 {
    match operand {
        None | Some(Operand::Object) => f64::NAN,
        Some(Operand::Null | Operand::Bool(false)) => 0.0,
        Some(Operand::Bool(true)) => 1.0,
        Some(Operand::Number(number)) => *number,
        Some(Operand::Text { text, .. } | Operand::List { text, .. }) => number_of_text(map.text(*text)),
    }
}

// Out of line, as other ways that are long or rare: those that are short and common then need few registers.
#[inline(never)]
fn with_text(operand: Option<&Operand>, map: &AttributeMap, test: impl FnOnce(&str) -> bool) -> bool {
    match operand {
        None => test(""),
        Some(Operand::Number(number)) => test(NumberText::new(*number).as_str()),
        Some(other) => test(other.text(map).unwrap_or_default()),
    }
}
