//! ETags (RFC 9110, 8.8.3 and 13.1.2): whether a client holds the reply already.

use axum::http::{HeaderMap, HeaderValue, header};

/// Whether `If-None-Match` names `current`, or anything at all (`*`). Tags are compared weakly; a malformed rest of a list names
/// nothing.
pub fn is_held(headers: &HeaderMap, current: &HeaderValue) -> bool {
    let current = opaque(current.as_bytes());
    headers.get_all(header::IF_NONE_MATCH).iter().any(|sent| names(sent.as_bytes(), current))
}

fn names(sent: &[u8], current: &[u8]) -> bool {
    if sent.trim_ascii() == b"*" {
        return true;
    }
    let mut rest = sent;
    while let Some((tag, after)) = next_tag(rest) {
        if tag == current {
            return true;
        }
        rest = after;
    }
    false
}

/// The tag without its `W/`, still in quotes.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The first tag of a list, and what follows it. Tags may hold commas, so a list cannot simply be split.
fn next_tag(list: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = list.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
    let tag = opaque(&list[start..]);
    let inside = tag.strip_prefix(b"\"")?;
    let end = inside.iter().position(|byte| *byte == b'"')?;
    Some((&tag[..end + 2], &inside[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sent: &[&str], expected: bool) {
        let headers: HeaderMap =
            sent.iter().map(|value| (header::IF_NONE_MATCH, HeaderValue::from_str(value).unwrap())).collect();
        assert_eq!(is_held(&headers, &HeaderValue::from_static("\"a-1\"")), expected, "{sent:?}");
    }

    #[test]
    fn lists_weak_tags_and_the_star() {
        for held in ["\"a-1\"", "W/\"a-1\"", "*", " * ", "\"x\", \"a-1\"", "\"x,y\",W/\"a-1\"", ",, \"a-1\""] {
            check(&[held], true);
        }
        for other in ["", "\"a-2\"", "a-1", "w/\"a-1\"", "\"x\" ; \"a-1", "\"a-1", "\"x\", *", "\"*\"", "W/a-1"] {
            check(&[other], false);
        }
        check(&["\"x\"", "\"a-1\""], true);
        check(&[], false);
    }
}
