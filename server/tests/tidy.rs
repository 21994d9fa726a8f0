//! Keeps the tree as ARCHITECTURE.md says it is: headers, sizes, the direction of imports, each client library in its one module, and
//! the tests that documents name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;

/// Which crates of ours a crate may depend on.
const MAY_USE: &[(&str, &[&str])] = &[
    ("schemas", &[]),
    ("log", &[]),
    ("store", &["schemas"]),
    ("ingest", &["schemas", "log"]),
    ("evaluator", &["schemas", "ingest"]),
    ("aggregator", &["schemas", "log", "store"]),
    ("query-api", &["schemas", "store"]),
    ("control-plane", &["schemas"]),
    ("server", &["schemas", "log", "store", "ingest", "evaluator", "aggregator", "query-api", "control-plane"]),
    ("benches", &["schemas", "log", "store", "ingest", "evaluator", "aggregator"]),
];

/// Where a client library may be named: one module of each crate that speaks to that server.
const NAMED_IN: &[(&str, &[&str])] = &[
    ("datafusion", &["store/src/parquet"]),
    ("parquet", &["store/src/parquet"]),
    ("sqlx", &["control-plane/src/db.rs", "evaluator/src/configuration", "query-api/src/directory.rs"]),
    ("rdkafka", &["log/src/kafka"]),
    ("clickhouse", &["store/src/clickhouse"]),
];

/// Modules that must be pure, and so must guard themselves.
const PURE: &[&str] = &["schemas/src/lib.rs", "evaluator/src/engine/mod.rs", "aggregator/src/fold.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the server is a folder of the workspace").to_owned()
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (folder, _) in MAY_USE {
        collect(&root().join(folder), &mut found);
    }
    assert!(found.len() > 50, "the walk found only {} files", found.len());
    found
}

fn collect(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(directory).expect("a folder of the workspace").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            found.push((name, std::fs::read_to_string(&path).expect("a readable source")));
        }
    }
}

fn before_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn every_file_says_why_it_exists_and_is_small() {
    let mut problems = Vec::new();
    for (name, text) in sources() {
        if !text.starts_with("//!") {
            problems.push(format!("{name}: does not open with //!"));
        }
        let lines = before_tests(&text).lines().count();
        if lines > FILE_LINES_MAX {
            problems.push(format!("{name}: {lines} lines before its tests"));
        }
    }
    report(&problems);
}

#[test]
fn crates_depend_in_one_direction() {
    let mut problems = Vec::new();
    for (folder, allowed) in MAY_USE {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
        let normal = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        let used = normal.lines().filter_map(|line| line.strip_prefix("flagmint-")?.split('.').next());
        problems
            .extend(used.filter(|used| !allowed.contains(used)).map(|used| format!("{folder} must not use {used}")));
    }
    report(&problems);
}

#[test]
fn client_libraries_are_named_in_one_module() {
    let places: BTreeMap<&str, &[&str]> = NAMED_IN.iter().copied().collect();
    let mut problems = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| name.contains("/src/") && !name.ends_with("/tests.rs")) {
        for (library, allowed) in &places {
            let outside = !allowed.iter().any(|place| name.starts_with(place));
            let names = |line: &str| {
                let line = line.trim_start();
                let called = format!("{library}::");
                let at = line.find(&called);
                !line.starts_with("//")
                    && at.is_some_and(|at| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
            };
            if outside && before_tests(text).lines().any(names) {
                problems.push(format!("{name}: names {library}, which belongs in {allowed:?}"));
            }
        }
    }
    report(&problems);
}

#[test]
fn pure_modules_guard_themselves() {
    let unguarded = |name: &&&str| {
        let text = std::fs::read_to_string(root().join(name)).expect("a pure module");
        !text.contains("deny(clippy::disallowed_methods, clippy::disallowed_types)")
    };
    let problems: Vec<String> = PURE.iter().filter(unguarded).map(|name| format!("{name}: no guard")).collect();
    report(&problems);
}

/// A document that names a test which is gone promises what nothing holds any more.
#[test]
fn documents_name_tests_that_exist() {
    let text = std::fs::read_to_string(root().join("docs/data-plane.md")).expect("a document");
    let is_name = |word: &&str| {
        word.matches('_').count() >= 2
            && !word.starts_with('_')
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let named: BTreeSet<&str> = text.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(named.len() > 80, "the document names only {} tests", named.len());
    let sources = sources();
    let is_gone = |name: &&&str| !sources.iter().any(|(_, text)| text.contains(&format!("fn {name}(")));
    report(
        &named.iter().filter(is_gone).map(|name| format!("docs/data-plane.md: {name} is no test")).collect::<Vec<_>>(),
    );
}

/// What `cargo build` and `cargo test` make of the dependencies: each package with the features it is built with.
fn dependencies(edges: &str) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let tree =
        ["tree", "--workspace", "--locked", "--offline", "--prefix", "none", "--format", "{p} {f}", "--edges", edges];
    let output = std::process::Command::new(cargo).current_dir(root()).args(tree).output().expect("cargo runs");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo writes text");
    text.lines().map(|line| line.trim_end_matches(" (*)").trim_end().to_owned()).collect()
}

/// A dependency that tests give another feature is compiled a second time, and all that depends on it: DataFusion takes minutes.
#[test]
fn tests_build_the_dependencies_of_the_binary() {
    let tested = dependencies("normal,build,dev");
    let built = dependencies("normal,build");
    assert!(built.len() > 300, "cargo tree shows only {} packages", built.len());
    let differs = |package: &&String| !tested.contains(*package);
    let hint = "give the workspace manifest the features that a dev-dependency adds";
    let problems: Vec<String> =
        built.iter().filter(differs).map(|package| format!("{package}: built otherwise for tests; {hint}")).collect();
    report(&problems);
}
