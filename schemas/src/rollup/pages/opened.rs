//! Pages as the rows that they stand for, written column by column: a store that keeps rows opens each context of a busy log once.

use std::fmt::Write as _;
use std::iter::repeat_n;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};

use super::{ContextPage, PROFILE_TIME_DIGITS};
use crate::context_key::Pseudonym;
use crate::rollup::Table;
use crate::rollup::column::{CellError, CellValue};

impl ContextPage {
    /// The rows that a batch of pages stands for.
    ///
    /// # Errors
    /// If they are no pages, as [`Self::check`] says.
    pub fn opened(batch: &RecordBatch) -> Result<RecordBatch, CellError> {
        let pages = Self::from_batch(batch)?;
        let schema = Table::Contexts.schema();
        let columns = schema.fields().iter().map(|field| column(&pages, field.name())).collect();
        Ok(RecordBatch::try_new(schema, columns).expect("every column has its type"))
    }
}

fn column(pages: &[ContextPage], name: &str) -> ArrayRef {
    match name {
        "organization" => alike(pages, |page| &page.organization),
        "project" => alike(pages, |page| &page.project),
        "environment" => alike(pages, |page| &page.environment),
        "kind" => alike(pages, |page| &page.kind),
        "key" => keys(pages),
        "source" => alike(pages, |page| &page.source),
        "time_us" => alike(pages, |page| &page.time_us),
        "epoch" => alike(pages, |page| &page.epoch),
        "partition" => alike(pages, |page| &page.partition),
        "chunk" => alike(pages, |page| &page.chunk),
        "evaluations" => u64::to_array(pages.iter().flat_map(|page| &page.evaluations)),
        "first_seen_us" => i64::to_array(pages.iter().flat_map(|page| &page.first_seen_us)),
        "last_seen_us" => i64::to_array(pages.iter().flat_map(|page| &page.last_seen_us)),
        "profile" => profiles(pages),
        other => unreachable!("rows of contexts have no column {other}"),
    }
}

/// What all contexts of a page have in common.
fn alike<T: CellValue>(pages: &[ContextPage], of: impl Fn(&ContextPage) -> &T + Copy) -> ArrayRef {
    T::to_array(pages.iter().flat_map(|page| repeat_n(of(page), page.len())))
}

fn keys(pages: &[ContextPage]) -> ArrayRef {
    let rows = pages.iter().map(ContextPage::len).sum();
    let mut column = StringBuilder::with_capacity(rows, rows * (Pseudonym::PREFIX.len() + 32));
    for page in pages {
        for bytes in &page.pseudonyms {
            let spelled = Pseudonym::from_bytes(*bytes).spelled();
            column.append_value(std::str::from_utf8(&spelled).expect("hexadecimal digits"));
        }
        page.texts.iter().for_each(|text| column.append_value(text));
    }
    Arc::new(column.finish())
}

fn profiles(pages: &[ContextPage]) -> ArrayRef {
    let rows = pages.iter().map(ContextPage::len).sum();
    let shared = |page: &ContextPage| -> usize {
        page.profiles.iter().zip(&page.shared_by).map(|(profile, count)| profile.len() * *count as usize).sum()
    };
    let bytes: usize = pages.iter().map(shared).sum();
    let mut column = StringBuilder::with_capacity(rows, bytes + rows * PROFILE_TIME_DIGITS);
    for page in pages {
        let profiles = page.profiles.iter().zip(&page.shared_by);
        let profiles = profiles.flat_map(|(profile, count)| repeat_n(profile, *count as usize));
        for (known_us, profile) in page.known_us.iter().zip(profiles) {
            write!(column, "{known_us:0PROFILE_TIME_DIGITS$x}{profile}").expect("memory takes all text");
            // What was written before is a part of the value.
            column.append_value("");
        }
    }
    Arc::new(column.finish())
}
