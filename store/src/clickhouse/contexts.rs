//! Cells of contexts out of their pages.
//!
//! A page is a row with a list of values for each column that its contexts do not have in common (`schemas/src/rollup/pages.rs`). Nothing merges pages,
//! so a cell that was emitted several times is in several of them, and the latest of its values are found here.

use flagmint_schemas::rollup::{Column, Role, Table};

/// The keys of a page, as texts.
const KEYS: &str = "arrayConcat(arrayMap(p -> concat('p1_', lower(hex(p))), `pseudonyms`), `texts`)";

/// The profiles of a page, one for each context. Written so that no profile is copied more often than there are contexts that share it.
const PROFILES: &str = "arrayMap((us, p) -> concat(leftPad(lower(hex(us)), 16, '0'), p), `known_us`, \
    arrayFlatten(arrayMap((p, n) -> arrayWithConstant(n, p), `profiles`, `shared_by`)))";

/// A statement for the cells that meet a condition on their keys, with some of their values, each the latest.
pub(super) fn cells(values: &[&Column], condition: &str) -> String {
    let opened = |value: &&Column| match value.role {
        Role::Max if value.name == "profile" => format!(", {PROFILES} AS `profile`"),
        _ => format!(", `{}`", value.name),
    };
    let merged = |value: &&Column| {
        let function = if value.role == Role::Min { "min" } else { "max" };
        format!(", {function}(`{0}`) AS `{0}`", value.name)
    };
    let of = |role| Table::Contexts.columns().iter().filter(move |column| column.role == role);
    let named = of(Role::Dimension).chain(of(Role::Time)).map(|column| format!("`{}`", column.name));
    let named = named.collect::<Vec<_>>().join(", ");
    let chunk = of(Role::Chunk).map(|column| format!(", `{}`", column.name)).collect::<String>();
    let (opened, merged): (String, String) = (values.iter().map(opened).collect(), values.iter().map(merged).collect());
    format!(
        "SELECT {named}{merged} FROM `contexts` ARRAY JOIN {KEYS} AS `key`{opened} WHERE {condition} GROUP BY {named}{chunk}"
    )
}
