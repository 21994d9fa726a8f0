//! Inputs made from other inputs.

use rand::Rng as _;
use rand::rngs::StdRng;

/// Inputs kept besides the seeds.
pub const KEPT_MAX: usize = 1000;

/// Bytes of an input at most: more than any body may have.
const BYTES_MAX: usize = 300_000;

/// What has broken readers of JSON, base64 or protocols before.
const TOKENS: &[&str] = &[
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "false",
    "-0",
    "1e400",
    "1e-400",
    "9007199254740993",
    "18446744073709551616",
    "-9223372036854775809",
    "0.1",
    "\\ud800",
    "\\udc00\\ud800",
    "\\u0000",
    "\u{0}",
    "\u{2028}",
    "\u{feff}",
    "😀",
    "__proto__",
    "constructor",
    "toString",
    "kind",
    "user",
    "organization",
    "multi",
    "custom",
    "key",
    "targetingKey",
    "user.key",
    "context",
    "\"context\":",
    "events",
    "flagKey",
    "type",
    "ping",
    "pong",
    "e30=",
    "%00",
    "%ff",
    "4294967294",
    "4294967295",
    "01",
    "//",
    "/*",
    "NaN",
    "Infinity",
    "\r\n",
    "\t",
];

/// A new input.
pub fn mutated(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    if random.random_ratio(1, 100) {
        let length = random.random_range(0..200);
        return (0..length).map(|_| random.random()).collect();
    }
    let mut input = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(0..6) {
        change(&mut input, corpus, random);
    }
    input.truncate(BYTES_MAX);
    input
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut StdRng) {
    let at = random.random_range(0..=input.len());
    let end = (at + random.random_range(0..20)).min(input.len());
    match random.random_range(0..9) {
        0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        1 if at < input.len() => input[at] = random.random(),
        2 => drop(input.drain(at..end)),
        3 | 4 => {
            let token = TOKENS[random.random_range(0..TOKENS.len())];
            input.splice(at..at, token.bytes());
        }
        5 => {
            let token = TOKENS[random.random_range(0..TOKENS.len())];
            input.splice(at..end, token.bytes());
        }
        6 => {
            let other = &corpus[random.random_range(0..corpus.len())];
            let from = random.random_range(0..=other.len());
            input.splice(at.., other[from..].iter().copied());
        }
        7 => {
            let part = input[at..end].to_vec();
            let times = if random.random_ratio(1, 20) { 10_000 } else { random.random_range(1..50) };
            input.splice(at..at, part.repeat(times));
        }
        _ => {
            // Deep nesting, closed or not.
            let depth = if random.random_ratio(1, 20) { 50_000 } else { random.random_range(1..200) };
            let (open, close) = if random.random() { ("[", "]") } else { ("{\"a\":", "}") };
            let inside = if random.random() { "1" } else { "" };
            let close = if random.random() { close.repeat(depth) } else { String::new() };
            input.splice(at..at, format!("{}{inside}{close}", open.repeat(depth)).into_bytes());
        }
    }
}
