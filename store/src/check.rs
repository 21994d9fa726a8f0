//! Questions are checked against the table before anything is planned, and rows before any is stored, so that a wrong one is refused with
//! its reason.

use arrow::array::{Array as _, RecordBatch};
use arrow::datatypes::DataType;
use flagmint_schemas::rollup::{Column, ContextPage, Role, Table};

use crate::{Filter, Period, RollupQuery, StoreError};

/// Refuses questions that the table cannot answer.
pub(crate) fn check(query: &RollupQuery) -> Result<(), StoreError> {
    let table = query.table;
    if query.organization.is_some() && table.column("organization").is_none() {
        return refuse(table, "organization", "is no column: its rows belong to no tenant");
    }
    for filter in &query.filters {
        let (name, wanted) = match filter {
            Filter::IdIn(name, _) => (name, DataType::FixedSizeBinary(16)),
            Filter::CodeIn(name, _) => (name, DataType::UInt8),
            Filter::TextIs(name, _) => (name, DataType::Utf8),
        };
        let fits = |column: &Column| column.role == Role::Dimension && column.data_type() == wanted;
        if !table.column(name).is_some_and(fits) {
            return refuse(table, name, "is no dimension of the filter's type");
        }
    }
    if let Period::Spans([first, second]) = query.period
        && !(first < second && first <= query.time_us.start)
    {
        return refuse(table, "time_us", "lies before the spans, or they are in no order");
    }
    let groupable = rewritten_keys(table);
    for (at, name) in query.group_by.iter().enumerate() {
        if !groupable.contains(name) || query.group_by[..at].contains(name) {
            return refuse(table, name, "cannot be grouped by, or is named twice");
        }
    }
    let values: Vec<&str> = query.wanted().map(|column| column.name).collect();
    if let Some(wanted) = &query.values
        && (*wanted != values || values.is_empty())
    {
        return refuse(table, &wanted.join(", "), "are not some of its values in its order");
    }
    let answered = |name: &str| {
        table.column(name).filter(|column| match column.role {
            Role::Time => query.period != Period::Whole,
            Role::Dimension | Role::Chunk => query.group_by.contains(&column.name),
            _ => values.contains(&column.name),
        })
    };
    let texts = query.having.iter().flat_map(|having| &having.columns);
    for name in texts {
        if answered(name).is_none_or(|column| column.data_type() != DataType::Utf8) {
            return refuse(table, name, "is no text in the answer");
        }
    }
    let order = query.page.iter().flat_map(|page| &page.order_by);
    for (name, _) in order {
        if answered(name).is_none() {
            return refuse(table, name, "is not in the answer");
        }
    }
    Ok(())
}

/// Refuses rows that are not in the schema of the table, and pages of contexts that cannot be opened.
pub(crate) fn rows(table: Table, batch: &RecordBatch) -> Result<(), StoreError> {
    if table == Table::Contexts && ContextPage::are_in(batch) {
        return ContextPage::check(batch).map_err(|error| StoreError::Refuse(error.to_string()));
    }
    let (schema, expected) = (batch.schema(), table.schema());
    let are_alike = schema.fields().len() == expected.fields().len()
        && schema
            .fields()
            .iter()
            .zip(expected.fields())
            .all(|(field, wanted)| field.name() == wanted.name() && field.data_type() == wanted.data_type());
    if !are_alike || batch.columns().iter().any(|column| column.null_count() > 0) {
        return Err(StoreError::Refuse(format!("rows are not in the schema of table {}", table.name())));
    }
    Ok(())
}

fn refuse(table: Table, name: &str, why: &str) -> Result<(), StoreError> {
    Err(StoreError::Refuse(format!("{name} of table {} {why}", table.name())))
}

/// What rewritten rows keep apart: rows of files are final, so the chunk is of no use any more, unless the table has no
/// dimensions and is about the chunks themselves.
pub(crate) fn rewritten_keys(table: Table) -> Vec<&'static str> {
    let of = |role| table.columns().iter().filter(move |column| column.role == role).map(|column| column.name);
    let dimensions: Vec<_> = of(Role::Dimension).collect();
    if dimensions.is_empty() { of(Role::Chunk).collect() } else { dimensions }
}
