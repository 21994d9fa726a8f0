//! The two conversions of ECMAScript that comparison and coercion rest on: `String(v)` and `Number(v)`.
//!
//! Clients evaluate the same rules in JavaScript, so both are implemented in full (ECMA-262, 6.1.6.1.20 `Number::toString`,
//! 7.1.4.1 `StringToNumber`, 7.1.17 `ToString`), and only here. A value that is not present is `None`, which is not `null`.

use std::fmt::Write;

use serde_json::Value;

/// From this magnitude on, a number is written with an exponent.
const PLAIN_BELOW: i32 = 21;
/// The smallest decimal exponent written in plain notation (1e-6).
const PLAIN_FROM: i32 = -6;
/// Enough for the 17 digits of a double, its sign and 21 integer places.
const NUMBER_TEXT_BYTES: usize = 40;

/// `String(number)` in a buffer on the stack.
pub(super) struct NumberText {
    bytes: [u8; NUMBER_TEXT_BYTES],
    len: usize,
}

impl NumberText {
    /// The shortest decimal that reads back as the same double, in ECMAScript's notation.
    pub(super) fn new(number: f64) -> Self {
        let mut text = Self { bytes: [0; NUMBER_TEXT_BYTES], len: 0 };
        text.format(number).expect("the longest text of a double fits the buffer");
        text
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).expect("only ASCII is written")
    }

    fn format(&mut self, number: f64) -> std::fmt::Result {
        if number.is_nan() {
            return self.write_str("NaN");
        }
        if number == 0.0 {
            return self.write_str("0");
        }
        if number.is_infinite() {
            return self.write_str(if number > 0.0 { "Infinity" } else { "-Infinity" });
        }
        // Rust's `{:e}` gives the shortest digits that round-trip: `-1.5e-9`.
        let mut scientific = Self { bytes: [0; NUMBER_TEXT_BYTES], len: 0 };
        write!(scientific, "{number:e}")?;
        let text = scientific.as_str();
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        if unsigned.len() < text.len() {
            self.write_str("-")?;
        }
        let (mantissa, exponent) = unsigned.split_once('e').ok_or(std::fmt::Error)?;
        let exponent: i32 = exponent.parse().map_err(|_| std::fmt::Error)?;
        let (first, rest) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        self.place(first, rest, exponent)
    }

    fn place(&mut self, first: &str, rest: &str, exponent: i32) -> std::fmt::Result {
        if !(PLAIN_FROM..PLAIN_BELOW).contains(&exponent) {
            let point = if rest.is_empty() { "" } else { "." };
            return write!(self, "{first}{point}{rest}e{exponent:+}");
        }
        if exponent < 0 {
            self.write_str("0.")?;
            for _ in 1..-exponent {
                self.write_str("0")?;
            }
            return write!(self, "{first}{rest}");
        }
        let integer_places = exponent as usize;
        self.write_str(first)?;
        if rest.len() > integer_places {
            let (integer, fraction) = rest.split_at(integer_places);
            return write!(self, "{integer}.{fraction}");
        }
        self.write_str(rest)?;
        for _ in rest.len()..integer_places {
            self.write_str("0")?;
        }
        Ok(())
    }
}

impl Write for NumberText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// `String(v)`; a value that is not present is `undefined`.
pub fn text(value: Option<&Value>) -> String {
    let mut out = String::new();
    match value {
        None => out.push_str("undefined"),
        Some(Value::Null) => out.push_str("null"),
        Some(value) => push_comparable(&mut out, value),
    }
    out
}

/// The text that comparisons use: empty for `null` and for what is not present, otherwise [`text`].
pub fn comparable(value: Option<&Value>) -> String {
    let mut out = String::new();
    if let Some(value) = value {
        push_comparable(&mut out, value);
    }
    out
}

/// Appends [`comparable`]. Items of a list are joined by commas, `null` ones as empty texts, as `Array.prototype.join` does.
pub(super) fn push_comparable(out: &mut String, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => out.push_str(NumberText::new(double(number)).as_str()),
        Value::String(string) => out.push_str(string),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_comparable(out, item);
            }
        }
        Value::Object(_) => out.push_str(OBJECT_TEXT),
    }
}

/// `String({})`, whatever the object holds.
pub(super) const OBJECT_TEXT: &str = "[object Object]";

/// A JSON number as the double that clients see.
pub(super) fn double(number: &serde_json::Number) -> f64 {
    number.as_f64().unwrap_or(f64::NAN)
}

/// `Number(v)`; NaN for what is not present and for what is no number.
pub fn number(value: Option<&Value>) -> f64 {
    match value {
        None | Some(Value::Object(_)) => f64::NAN,
        Some(Value::Null | Value::Bool(false)) => 0.0,
        Some(Value::Bool(true)) => 1.0,
        Some(Value::Number(number)) => double(number),
        Some(Value::String(string)) => number_of_text(string),
        Some(list @ Value::Array(_)) => number_of_text(&comparable(Some(list))),
    }
}

/// `Number(string)`: decimals, `Infinity`, and unsigned integers in base 16, 8 or 2.
pub(super) fn number_of_text(text: &str) -> f64 {
    let text = trim(text);
    let bytes = text.as_bytes();
    match bytes {
        [] => 0.0,
        [b'0', b'x' | b'X', digits @ ..] => integer(digits, 16),
        [b'0', b'o' | b'O', digits @ ..] => integer(digits, 8),
        [b'0', b'b' | b'B', digits @ ..] => integer(digits, 2),
        _ => decimal(text),
    }
}

fn decimal(text: &str) -> f64 {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_decimal = unsigned == "Infinity" || unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    // What is left of Rust's grammar ("5", "5.", ".5", "1e3", "infinity" excluded above) is ECMAScript's.
    if is_decimal { text.parse().unwrap_or(f64::NAN) } else { f64::NAN }
}

/// An integer literal rounded once, to nearest even, as ECMAScript asks of base 16, 8 and 2.
fn integer(digits: &[u8], radix: u32) -> f64 {
    if digits.is_empty() {
        return f64::NAN;
    }
    let bits_per_digit = radix.trailing_zeros();
    let (mut kept, mut dropped_bits, mut lost) = (0_u64, 0_i32, false);
    for &byte in digits {
        let Some(digit) = char::from(byte).to_digit(radix) else { return f64::NAN };
        for bit in (0..bits_per_digit).rev() {
            let bit = u64::from(digit >> bit & 1);
            if kept >> 63 == 0 {
                kept = kept << 1 | bit;
            } else {
                dropped_bits = dropped_bits.saturating_add(1);
                lost |= bit == 1;
            }
        }
    }
    // 64 bits are kept, 11 more than a double holds, so a sticky last bit rounds ties correctly.
    (kept | u64::from(lost)) as f64 * 2_f64.powi(dropped_bits)
}

/// Whether ECMAScript's `Boolean(v)` holds: all but absent, `null`, `false`, `0` and `""`.
pub fn is_truthy(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Number(number)) => double(number) != 0.0,
        Some(Value::String(string)) => !string.is_empty(),
        Some(_) => true,
    }
}

/// Removes ECMAScript's white space from both ends: Unicode spaces, line ends and U+FEFF, but not U+0085.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}'))
}

/// The items of a list, as comparable texts, or `None` if `value` is no list. A string may hold one: `["a","b"]` or `[a, b]`.
pub fn list(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => Some(items.iter().map(|item| comparable(Some(item))).collect()),
        Value::String(string) => list_of_text(string),
        _ => None,
    }
}

fn list_of_text(string: &str) -> Option<Vec<String>> {
    let trimmed = trim(string);
    let inside = trimmed.strip_prefix('[')?.strip_suffix(']')?;
    if let Ok(Value::Array(items)) = serde_json::from_str(trimmed) {
        return Some(items.iter().map(|item| comparable(Some(item))).collect());
    }
    let pieces = inside.split(',').map(trim).filter(|piece| !piece.is_empty());
    Some(pieces.map(|piece| unquote(piece).to_owned()).collect())
}

/// Without one leading and one trailing quote, whichever of the two kinds they are.
fn unquote(piece: &str) -> &str {
    let piece = piece.strip_prefix(['\'', '"']).unwrap_or(piece);
    piece.strip_suffix(['\'', '"']).unwrap_or(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_ecmascript_writes_them() {
        let table = [
            (1.0, "1"),
            (-0.0, "0"),
            (0.1, "0.1"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (123_456.75, "123456.75"),
            (1e-6, "0.000001"),
            (1.25e-6, "0.00000125"),
            (1e-7, "1e-7"),
            (-1.5e-9, "-1.5e-9"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (number, expected) in table {
            assert_eq!(NumberText::new(number).as_str(), expected);
        }
    }

    #[test]
    fn strings_are_read_as_ecmascript_reads_them() {
        let table = [
            ("", 0.0),
            (" \u{feff}\u{2028}12\u{a0}", 12.0),
            ("5.", 5.0),
            (".5", 0.5),
            ("+1e3", 1000.0),
            ("-Infinity", f64::NEG_INFINITY),
            ("0X1f", 31.0),
            ("0b101", 5.0),
            ("0o17", 15.0),
            ("0x20000000000001", 9_007_199_254_740_992.0),
            ("0x20000000000003", 9_007_199_254_740_996.0),
        ];
        for (text, expected) in &table {
            assert_eq!(number_of_text(text), *expected, "{text:?}");
        }
        let not_numbers =
            ["five", "1_000", "1,5", "-0x10", "0x", "0b2", "infinity", "inf", "nan", ".", "+", "1e", "\u{85}1", "--1"];
        for text in not_numbers {
            assert!(number_of_text(text).is_nan(), "{text:?}");
        }
    }
}
