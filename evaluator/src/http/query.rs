//! Query members as clients really send them: not always encoded, base64 with or without its padding, and not always UTF-8.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The first member of this name, percent-decoded. A `+` stays one: no client of ours means a space by it.
#[must_use]
pub fn member<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    let value = query.split('&').find_map(|pair| match pair.split_once('=') {
        Some((found, value)) => (found == name).then_some(value),
        None => (pair == name).then_some(""),
    })?;
    Some(percent_decoded(value))
}

/// What is no percent-encoding stays as it is; what is no UTF-8 becomes replacement characters, which no key or name has.
#[must_use]
pub fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let mut byte = [0];
        match escaped {
            Some(digits) if hex::decode_to_slice(digits, &mut byte).is_ok() => {
                decoded.push(byte[0]);
                at += 3;
            }
            _ => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// Base64 of either alphabet, padded or not, with blanks where a `+` was taken for one.
#[must_use]
pub fn lenient_base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let standard: String = text
        .chars()
        .map(|c| match c {
            '-' | ' ' => '+',
            '_' => '/',
            c => c,
        })
        .collect();
    LENIENT.decode(standard).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_and_decoded() {
        let query = "apiKey=ff_%31+%zz%2&empty=&flag&apiKey=second&%61=x&bad=%ff";
        for (name, expected) in [
            ("apiKey", Some("ff_1+%zz%2")),
            ("empty", Some("")),
            ("flag", Some("")),
            ("a", None),
            ("none", None),
            ("bad", Some("\u{fffd}")),
        ] {
            assert_eq!(member(query, name).as_deref(), expected, "{name}");
        }
        assert_eq!(member("", "x"), None);
    }

    #[test]
    fn base64_is_read_however_it_was_spoilt() {
        // Bytes whose base64 has both special characters and padding.
        let bytes = b"\xfb\xff\xbf?";
        for text in ["+/+/Pw==", "-_-_Pw==", "+/+/Pw", "-_-_Pw", " / /Pw==", "-/ _Pw="] {
            assert_eq!(lenient_base64(text).as_deref(), Some(&bytes[..]), "{text:?}");
        }
        assert_eq!(lenient_base64(""), Some(vec![]));
        for bad in ["%%%", "A", "AA=A", "\u{e9}"] {
            assert_eq!(lenient_base64(bad), None, "{bad}");
        }
    }
}
