//! Rules for names and keys, and how a key is made from a name.

use crate::error::Problems;
use crate::limits::{MAX_DESCRIPTION_CHARS, MAX_KEY_CHARS, MAX_NAME_CHARS};

/// Notes a problem unless `name` has text and is not too long.
pub(crate) fn check_name(problems: &mut Problems, path: &str, name: &str) {
    let fits = !name.trim().is_empty() && name.chars().count() <= MAX_NAME_CHARS;
    problems.check(fits, path, &format!("must have 1 to {MAX_NAME_CHARS} characters"));
}

/// Notes a problem if `description` is too long.
pub(crate) fn check_description(problems: &mut Problems, path: &str, description: Option<&str>) {
    let fits = description.is_none_or(|text| text.chars().count() <= MAX_DESCRIPTION_CHARS);
    problems.check(fits, path, &format!("must have at most {MAX_DESCRIPTION_CHARS} characters"));
}

/// `^[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}$`: flags and projects.
pub(crate) fn is_key(text: &str) -> bool {
    text.len() <= MAX_KEY_CHARS
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// `^[a-zA-Z0-9-_]+$`: segments.
pub(crate) fn is_segment_key(text: &str) -> bool {
    (1..=MAX_KEY_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// `name` in kebab case: `New Checkout!` is `new-checkout`. Without a letter or digit of ASCII it is `otherwise`.
pub(crate) fn kebab(name: &str, otherwise: &str) -> String {
    let mut key = String::new();
    for character in name.chars() {
        if character.is_ascii_alphanumeric() {
            key.push(character.to_ascii_lowercase());
        } else if !key.is_empty() && !key.ends_with('-') {
            key.push('-');
        }
    }
    key.truncate(MAX_KEY_CHARS - 12); // Room for a number.
    let key = key.trim_end_matches('-');
    if key.is_empty() { otherwise.to_owned() } else { key.to_owned() }
}

/// `key`, or the first of `key-2`, `key-3`, … that is not `taken`.
pub(crate) fn unique(key: String, taken: impl Fn(&str) -> bool) -> String {
    if !taken(&key) {
        return key;
    }
    let numbered = (2_u64..).map(|number| format!("{key}-{number}")).find(|candidate| !taken(candidate));
    numbered.expect("finitely many keys are taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for good in ["a", "A.b_c-9", "0"] {
            assert!(is_key(good), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", "-a", ".a", "_a", "a b", "ä", "a/b", &long] {
            assert!(!is_key(bad), "{bad}");
        }
        assert!(is_segment_key("-_aZ9"));
        for bad in ["", "a.b", "ä", &long] {
            assert!(!is_segment_key(bad), "{bad}");
        }
    }

    #[test]
    fn kebab_case() {
        for (name, key) in
            [("New Checkout!", "new-checkout"), ("  a__b ", "a-b"), ("日本", "flag"), ("Ünï code 2", "n-code-2")]
        {
            assert_eq!(kebab(name, "flag"), key);
        }
        assert!(is_key(&kebab(&"x".repeat(1000), "flag")));
    }

    #[test]
    fn numbers_make_keys_unique() {
        let taken = ["a", "a-2"];
        assert_eq!(unique("a".to_owned(), |key| taken.contains(&key)), "a-3");
        assert_eq!(unique("b".to_owned(), |key| taken.contains(&key)), "b");
    }
}
