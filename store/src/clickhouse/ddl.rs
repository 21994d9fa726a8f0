//! The numbered migrations of `schemas/clickhouse/`, as statements for one server or for a cluster.

use crate::StoreError;

/// A migration: its number, its name, its text.
pub(super) struct Migration {
    pub(super) version: u32,
    pub(super) name: &'static str,
    text: &'static str,
}

/// All migrations, in order. A released one never changes.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "0001_rollups", text: include_str!("../../../schemas/clickhouse/0001_rollups.sql") },
    Migration {
        version: 2,
        name: "0002_dead_letters",
        text: include_str!("../../../schemas/clickhouse/0002_dead_letters.sql"),
    },
];

impl Migration {
    /// What comes before all others: the table that says which were applied.
    pub(super) const fn journal() -> Self {
        let text = "CREATE TABLE IF NOT EXISTS `migrations` {on_cluster}
            (`version` UInt32, `name` String, `applied` DateTime DEFAULT now())
            ENGINE = {engine MergeTree} ORDER BY `version`";
        Self { version: 0, name: "journal", text }
    }
}

/// Where tables live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    database: String,
    cluster: Option<String>,
}

/// Appended to a table's name for the part of it that one shard has.
const SHARD: &str = "_shard";

impl Layout {
    pub(super) fn new(database: &str, cluster: Option<&str>) -> Result<Self, StoreError> {
        for name in std::iter::once(database).chain(cluster) {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
                let rule = "a database or cluster has a name of letters, digits and underscores";
                return Err(StoreError::Fatal(format!("{name:?}: {rule}")));
            }
        }
        Ok(Self { database: database.to_owned(), cluster: cluster.map(str::to_owned) })
    }

    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// Whether what one statement stored all others see.
    pub(super) const fn is_one_server(&self) -> bool {
        self.cluster.is_none()
    }

    /// Behind the name in every statement that changes tables.
    pub(super) fn on_cluster(&self) -> String {
        self.cluster.as_ref().map_or_else(String::new, |cluster| format!("ON CLUSTER `{cluster}`"))
    }

    /// The table that holds the rows of `table`: itself, or each shard's part of it.
    pub(super) fn local(&self, table: &str) -> String {
        if self.cluster.is_some() { format!("{table}{SHARD}") } else { table.to_owned() }
    }

    /// The statements of a migration.
    pub(super) fn statements(&self, migration: &Migration) -> Vec<String> {
        let text: String =
            migration.text.lines().filter(|line| !line.starts_with("--")).fold(String::new(), |mut text, line| {
                text.push_str(line);
                text.push('\n');
                text
            });
        let statements = text.split(";\n").map(str::trim).filter(|statement| !statement.is_empty());
        statements.flat_map(|statement| self.render(statement)).collect()
    }

    fn render(&self, statement: &str) -> Vec<String> {
        let Some(cluster) = &self.cluster else {
            return vec![engines(&statement.replace(" {on_cluster}", ""), "")];
        };
        let statement = engines(&statement.replace("{on_cluster}", &self.on_cluster()), "Replicated");
        let Some(name) = statement.strip_prefix("CREATE TABLE IF NOT EXISTS `").and_then(|rest| rest.split('`').next())
        else {
            return vec![statement];
        };
        let local = self.local(name);
        // All rows of an environment are on one shard, so that each merges its own; the log's own tables are small.
        let key = if statement.contains("`environment`") { "cityHash64(`environment`)" } else { "0" };
        let distributed = format!(
            "CREATE TABLE IF NOT EXISTS `{name}` {} AS `{}`.`{local}`\nENGINE = Distributed(`{cluster}`, `{}`, `{local}`, {key})",
            self.on_cluster(),
            self.database,
            self.database,
        );
        vec![statement.replacen(&format!("`{name}`"), &format!("`{local}`"), 1), distributed]
    }
}

/// `{engine X}` becomes X, with a prefix.
fn engines(statement: &str, prefix: &str) -> String {
    match statement.split_once("{engine ") {
        Some((before, rest)) => {
            let (engine, after) = rest.split_once('}').expect("a brace that is opened in a migration is closed");
            format!("{before}{prefix}{engine}{after}")
        }
        None => statement.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use flagmint_schemas::rollup::{ContextPage, Role, Table};

    use super::super::rewrites::{Level, project_keys};
    use super::*;

    fn statements(cluster: Option<&str>) -> Vec<String> {
        let layout = Layout::new("flagmint", cluster).expect("good names");
        MIGRATIONS.iter().flat_map(|migration| layout.statements(migration)).collect()
    }

    #[test]
    fn migrations_are_numbered() {
        for (at, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, at + 1);
            assert!(migration.name.starts_with(&format!("{:04}_", migration.version)));
        }
    }

    #[test]
    fn tables_have_the_columns_of_the_rollups() {
        let all = statements(None);
        assert!(all.iter().all(|statement| !statement.contains(['{', '}'])), "{all:?}");
        for table in Table::ALL {
            for (suffix, is_base) in [("", true), ("_hour", false), ("_day", false)] {
                let head = format!("CREATE TABLE IF NOT EXISTS `{}{suffix}`", table.name());
                let Some(statement) = all.iter().find(|statement| statement.starts_with(&head)) else {
                    assert!(!is_base && (table == Table::Chunks || (suffix == "_hour" && !table.has_coarse_rows())));
                    continue;
                };
                let named = |line: &str| Some(line.strip_prefix("    `")?.split('`').next()?.to_owned());
                let found: Vec<String> = statement.lines().filter_map(named).collect();
                let wanted = table.columns().iter().filter(|column| is_base || column.role != Role::Chunk);
                let mut wanted: Vec<String> = wanted.map(|column| column.name.to_owned()).collect();
                wanted.extend((!is_base).then(|| "generation".to_owned()));
                if is_base && table == Table::Contexts {
                    wanted = ContextPage::schema().fields().iter().map(|field| field.name().clone()).collect();
                }
                assert_eq!(found, wanted, "{head}");
            }
        }
    }

    #[test]
    fn rows_of_projects_have_the_dimensions_that_questions_about_them_may_use() {
        let all = statements(None);
        for table in Table::ALL.into_iter().filter(|table| !project_keys(*table).is_empty()) {
            for level in Level::of(table) {
                let head = format!("CREATE TABLE IF NOT EXISTS `{}`", level.projects(table));
                let statement = all.iter().find(|statement| statement.starts_with(&head)).expect(&head);
                let named = |line: &str| Some(line.strip_prefix("    `")?.split('`').next()?.to_owned());
                let found: Vec<String> = statement.lines().filter_map(named).collect();
                let values = table.columns().iter().filter(|column| !column.role.is_key()).map(|column| column.name);
                let wanted: Vec<&str> =
                    project_keys(table).into_iter().chain(["time_us"]).chain(values).chain(["generation"]).collect();
                assert_eq!(found, wanted, "{head}");
            }
        }
    }

    #[test]
    fn coarse_tables_are_partitioned_by_what_a_generation_has_rows_of() {
        let all = statements(None);
        for (table, level) in
            Table::ALL.into_iter().flat_map(|table| Level::of(table).iter().map(move |level| (table, level)))
        {
            let names = [level.table(table), level.projects(table)];
            for name in &names[..if project_keys(table).is_empty() { 1 } else { 2 }] {
                let head = format!("CREATE TABLE IF NOT EXISTS `{name}`");
                let statement = all.iter().find(|statement| statement.starts_with(&head)).expect(&head);
                let span_us = level.generation_days(table) * crate::limits::DAY_US;
                assert!(
                    statement.contains(&format!("\nPARTITION BY (intDiv(`time_us`, {span_us}), `generation`)\n")),
                    "{head}"
                );
            }
        }
    }

    #[test]
    fn a_cluster_has_replicated_shards_behind_distributed_tables() {
        let (one, many) = (statements(None), statements(Some("c")));
        assert_eq!(many.len(), 2 * one.len());
        for pair in many.chunks(2) {
            assert!(
                pair[0].contains("_shard` ON CLUSTER `c`\n") && pair[0].contains("ENGINE = Replicated"),
                "{}",
                pair[0]
            );
            assert!(pair[1].contains("ON CLUSTER `c` AS `flagmint`.`"), "{}", pair[1]);
        }
        is_as_written(&many[1]);
        assert!(Layout::new("a b", None).is_err() && Layout::new("a", Some("`")).is_err());
    }

    fn is_as_written(distributed: &str) {
        let expected = "CREATE TABLE IF NOT EXISTS `decisions` ON CLUSTER `c` AS `flagmint`.`decisions_shard`\n\
            ENGINE = Distributed(`c`, `flagmint`, `decisions_shard`, cityHash64(`environment`))";
        assert_eq!(distributed, expected);
    }
}
