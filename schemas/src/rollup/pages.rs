//! Contexts in pages: how cells of `contexts` travel from the fold and, in ClickHouse, rest.
//!
//! What tells a context's cell from the next are a pseudonym and a few numbers; all the rest of a row (tenant, kind, chunk, mostly the profile as well) it
//! has in common with thousands. A page is one row for many cells that are alike in all dimensions but the key, their values side by side. Pages
//! merge nothing: cells of one context in several pages, or in one page twice, are merged by readers as rows are.

mod opened;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Int64Array, ListArray, RecordBatch, UInt32Array, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};

use super::Table;
use super::cells::ContextCell;
use super::column::{Cell, CellError, CellValue};
use crate::context_key::ContextKey;
use crate::ids::{EnvironmentId, OrganizationId, ProjectId};

/// Bytes of a pseudonym.
const PSEUDONYM_LEN: usize = 16;

/// Hexadecimal digits of the time that the text of a profile begins with.
const PROFILE_TIME_DIGITS: usize = 16;

/// Declares the columns of a page once for its schema and both conversions.
macro_rules! page {
    ($($(#[$field_doc:meta])* $field:ident: $type:ty;)+) => {
        /// Cells of contexts that are alike in all dimensions but the key.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct ContextPage {
            $($(#[$field_doc])* pub $field: $type,)+
        }

        impl ContextPage {
            /// The Arrow schema of pages; nothing in it is nullable.
            #[must_use]
            pub fn schema() -> SchemaRef {
                static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
                    let fields = vec![$(Field::new(stringify!($field), <$type as CellValue>::data_type(), false),)+];
                    Arc::new(Schema::new(fields))
                });
                Arc::clone(&SCHEMA)
            }

            /// Pages as one Arrow batch.
            #[must_use]
            pub fn to_batch(pages: &[Self]) -> RecordBatch {
                let arrays = vec![$(<$type as CellValue>::to_array(pages.iter().map(|page| &page.$field)),)+];
                RecordBatch::try_new(Self::schema(), arrays).expect("columns are declared once for both")
            }

            /// Pages of an Arrow batch.
            ///
            /// # Errors
            /// If a column is missing or of another type, or a page has not as many values of each as it has contexts.
            pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, CellError> {
                Self::check(batch)?;
                $(
                    let error = CellError { table: Table::Contexts.name(), column: stringify!($field) };
                    let array = batch.column_by_name(stringify!($field)).ok_or(error.clone())?;
                    let mut $field = <$type as CellValue>::from_array(array).ok_or(error)?.into_iter();
                )+
                let page = |_| Self { $($field: $field.next().expect("all columns of a batch are equally long"),)+ };
                Ok((0..batch.num_rows()).map(page).collect())
            }
        }
    };
}

page! {
    /// Tenant.
    organization: OrganizationId;
    /// Project.
    project: ProjectId;
    /// Environment.
    environment: EnvironmentId;
    /// `user`, `organization`, `multi` or empty.
    kind: String;
    /// `custom.source` as sent.
    source: String;
    /// Day of the events.
    time_us: i64;
    /// Log epoch.
    epoch: u64;
    /// Log partition.
    partition: u32;
    /// First offset of the chunk.
    chunk: u64;
    /// 1 if these are the chunk's last values, which come with those of all its contexts: pages that came before are of no use then.
    complete: u8;
    /// The keys of the first contexts: those that are pseudonyms, as the bytes that their digits spell.
    pseudonyms: Vec<[u8; PSEUDONYM_LEN]>;
    /// The keys of the other contexts.
    texts: Vec<String>;
    /// Decisions made for each.
    evaluations: Vec<u64>;
    /// When each was first seen, microseconds.
    first_seen_us: Vec<i64>;
    /// When each was last seen, microseconds.
    last_seen_us: Vec<i64>;
    /// When each had its profile, microseconds: the digits that a profile's text begins with.
    known_us: Vec<u64>;
    /// Profiles without those digits, each for as many contexts, one after the other, as `shared_by` says.
    profiles: Vec<String>;
    /// How many contexts have each profile.
    shared_by: Vec<u32>;
}

impl ContextPage {
    /// An empty page with memory for some contexts with pseudonyms.
    #[must_use]
    pub fn with_capacity(contexts: usize) -> Self {
        Self {
            pseudonyms: Vec::with_capacity(contexts),
            evaluations: Vec::with_capacity(contexts),
            first_seen_us: Vec::with_capacity(contexts),
            last_seen_us: Vec::with_capacity(contexts),
            known_us: Vec::with_capacity(contexts),
            ..Self::default()
        }
    }

    /// Number of contexts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.evaluations.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a context behind the others; a pseudonym must come before all texts.
    pub fn push(
        &mut self,
        key: &ContextKey,
        (evaluations, first_seen_us, last_seen_us): (u64, i64, i64),
        known_us: u64,
    ) {
        match key {
            ContextKey::Pseudonym(pseudonym) => self.pseudonyms.push(pseudonym.to_bytes()),
            ContextKey::Text(text) => self.texts.push(text.to_string()),
            ContextKey::None => self.texts.push(String::new()),
        }
        self.evaluations.push(evaluations);
        self.first_seen_us.push(first_seen_us);
        self.last_seen_us.push(last_seen_us);
        self.known_us.push(known_us);
    }

    /// Whether a batch is of pages, not of rows of `contexts`.
    #[must_use]
    pub fn are_in(batch: &RecordBatch) -> bool {
        batch.column_by_name("pseudonyms").is_some()
    }

    /// Refuses a batch that is no pages, or pages that cannot be opened.
    ///
    /// # Errors
    /// Names the column that is not as it must be.
    pub fn check(batch: &RecordBatch) -> Result<(), CellError> {
        let error = |column| CellError { table: Table::Contexts.name(), column };
        let (schema, expected) = (batch.schema(), Self::schema());
        let is_alike = |(field, wanted): (&Arc<Field>, &Arc<Field>)| {
            field.name() == wanted.name() && field.data_type() == wanted.data_type()
        };
        let are_alike = schema.fields().len() == expected.fields().len()
            && schema.fields().iter().zip(expected.fields()).all(is_alike);
        if !are_alike || batch.columns().iter().any(|column| column.logical_null_count() > 0) {
            return Err(error("pseudonyms"));
        }
        let list = |name: &'static str| batch.column_by_name(name).and_then(|array| array.as_list_opt::<i32>());
        let list = |name| list(name).ok_or(error(name));
        let (pseudonyms, texts, shared_by) = (list("pseudonyms")?, list("texts")?, list("shared_by")?);
        let profiles = list("profiles")?;
        let contexts = |page| pseudonyms.value_length(page) + texts.value_length(page);
        for name in ["evaluations", "first_seen_us", "last_seen_us", "known_us"] {
            let values = list(name)?;
            if (0..batch.num_rows()).any(|page| values.value_length(page) != contexts(page)) {
                return Err(error(name));
            }
        }
        let is_shared = |page| {
            let counts = shared_by.value(page);
            let all: u64 = counts.as_primitive::<UInt32Type>().values().iter().map(|count| u64::from(*count)).sum();
            all == contexts(page) as u64 && profiles.value_length(page) == shared_by.value_length(page)
        };
        if (0..batch.num_rows()).all(is_shared) { Ok(()) } else { Err(error("shared_by")) }
    }

    /// Pages that stand for rows of `contexts`, each complete by itself.
    ///
    /// # Errors
    /// If they are no such rows, or a profile does not begin with its time.
    pub fn closed(batch: &RecordBatch) -> Result<RecordBatch, CellError> {
        let cells = ContextCell::from_batch(batch)?;
        let mut pages: BTreeMap<_, Vec<(bool, &str, u64, &ContextCell)>> = BTreeMap::new();
        for cell in &cells {
            let ContextCell {
                organization, project, environment, kind, source, time_us, epoch, partition, chunk, ..
            } = cell;
            let alike = (organization, project, environment, kind, source, (time_us, epoch, partition, chunk));
            let error = CellError { table: Table::Contexts.name(), column: "profile" };
            let (known_us, profile) = known(&cell.profile).ok_or(error)?;
            let is_text = !matches!(ContextKey::of(&cell.key), ContextKey::Pseudonym(_));
            pages.entry(alike).or_default().push((is_text, profile, known_us, cell));
        }
        let pages: Vec<Self> = pages.into_values().map(Self::of).collect();
        Ok(Self::to_batch(&pages))
    }

    /// The page of some cells; there is at least one.
    fn of(mut cells: Vec<(bool, &str, u64, &ContextCell)>) -> Self {
        cells.sort_by_key(|(is_text, profile, ..)| (*is_text, *profile));
        let (.., first) = cells[0];
        let mut page = Self {
            organization: first.organization,
            project: first.project,
            environment: first.environment,
            kind: first.kind.clone(),
            source: first.source.clone(),
            time_us: first.time_us,
            epoch: first.epoch,
            partition: first.partition,
            chunk: first.chunk,
            complete: 1,
            ..Self::default()
        };
        for run in cells.chunk_by(|(_, a, ..), (_, b, ..)| a == b) {
            page.profiles.push(run[0].1.to_owned());
            page.shared_by.push(run.len() as u32);
            for (_, _, known_us, cell) in run {
                let values = (cell.evaluations, cell.first_seen_us, cell.last_seen_us);
                page.push(&ContextKey::of(&cell.key), values, *known_us);
            }
        }
        page
    }
}

/// The time that a profile's text begins with, and what follows.
fn known(profile: &str) -> Option<(u64, &str)> {
    let (digits, rest) = profile.split_at_checked(PROFILE_TIME_DIGITS)?;
    let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if !digits.bytes().all(is_digit) {
        return None;
    }
    Some((u64::from_str_radix(digits, 16).ok()?, rest))
}

fn list_type(item: DataType) -> DataType {
    DataType::List(item_field(item))
}

fn item_field(item: DataType) -> Arc<Field> {
    Arc::new(Field::new_list_field(item, false))
}

/// Lists of which `items` are all values, one after the other.
fn lists<'a, T: 'a>(rows: impl Iterator<Item = &'a Vec<T>>, items: ArrayRef) -> ArrayRef {
    let offsets = OffsetBuffer::from_lengths(rows.map(Vec::len));
    Arc::new(ListArray::new(item_field(items.data_type().clone()), offsets, items, None))
}

/// All values of some lists, one after the other, in memory that is taken once.
fn flat<'a, T: Copy + 'a>(rows: impl Iterator<Item = &'a Vec<T>> + Clone) -> Vec<T> {
    let mut all = Vec::with_capacity(rows.clone().map(Vec::len).sum());
    rows.for_each(|row| all.extend_from_slice(row));
    all
}

fn each<T>(array: &ArrayRef, read: impl Fn(&ArrayRef) -> Option<T>) -> Option<Vec<T>> {
    let lists = array.as_list_opt::<i32>()?;
    (0..lists.len()).map(|row| read(&lists.value(row))).collect()
}

/// Columns of lists of numbers.
macro_rules! numbers {
    ($($rust:ty => $array:ident;)+) => {$(
        impl CellValue for Vec<$rust> {
            fn data_type() -> DataType {
                list_type(<$rust>::data_type())
            }

            fn to_array<'a>(values: impl Iterator<Item = &'a Self> + Clone) -> ArrayRef {
                lists(values.clone(), Arc::new($array::from(flat(values))))
            }

            fn from_array(array: &ArrayRef) -> Option<Vec<Self>> {
                each(array, <$rust>::from_array)
            }
        }
    )+};
}

numbers! {
    u32 => UInt32Array;
    u64 => UInt64Array;
    i64 => Int64Array;
}

impl CellValue for Vec<String> {
    fn data_type() -> DataType {
        list_type(String::data_type())
    }

    fn to_array<'a>(values: impl Iterator<Item = &'a Self> + Clone) -> ArrayRef {
        lists(values.clone(), String::to_array(values.flatten()))
    }

    fn from_array(array: &ArrayRef) -> Option<Vec<Self>> {
        each(array, String::from_array)
    }
}

impl CellValue for Vec<[u8; PSEUDONYM_LEN]> {
    fn data_type() -> DataType {
        list_type(DataType::FixedSizeBinary(PSEUDONYM_LEN as i32))
    }

    fn to_array<'a>(values: impl Iterator<Item = &'a Self> + Clone) -> ArrayRef {
        let bytes = flat(values.clone()).into_flattened();
        lists(values, Arc::new(FixedSizeBinaryArray::new(PSEUDONYM_LEN as i32, bytes.into(), None)))
    }

    fn from_array(array: &ArrayRef) -> Option<Vec<Self>> {
        each(array, |values| {
            let values = values.as_fixed_size_binary_opt()?;
            (0..values.len()).map(|row| values.value(row).try_into().ok()).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn cell(key: &str, source: &str, number: u64, profile: &str) -> ContextCell {
        ContextCell {
            organization: OrganizationId(Uuid::from_u128(1)),
            project: ProjectId(Uuid::from_u128(2)),
            environment: EnvironmentId(Uuid::from_u128(3)),
            kind: "user".to_owned(),
            key: key.to_owned(),
            source: source.to_owned(),
            time_us: 86_400_000_000,
            epoch: 5,
            partition: 6,
            chunk: 7,
            evaluations: number,
            first_seen_us: -4,
            last_seen_us: i64::MAX - number as i64,
            profile: profile.to_owned(),
        }
    }

    #[test]
    fn pages_stand_for_the_rows_they_were_made_of() {
        let (bob, eve) = ("p1_00112233445566778899aabbccddeeff", "p1_ffffffffffffffffffffffffffffffff");
        let (old, new) = ("00000000000000ff{\"a\":1}", "fffffffffffffffe{\"a\":1}");
        let mut cells = vec![
            cell("user-7", "", 1, old),
            cell(bob, "", 2, new),
            cell(eve, "web", 3, "0000000000000000{}"),
            cell("", "", 4, old),
            cell(eve, "", u64::MAX, "0000000000000001{\"b\":\"ö\"}"),
            cell(bob, "", 5, old),
        ];
        let pages = ContextPage::closed(&ContextCell::to_batch(&cells)).expect("rows of contexts");
        let found = ContextPage::from_batch(&pages).expect("pages");
        let sizes = |page: &ContextPage| (page.pseudonyms.len(), page.texts.len(), page.shared_by.clone());
        assert_eq!(found.iter().map(sizes).collect::<Vec<_>>(), [(3, 2, vec![2, 1, 2]), (1, 0, vec![1])]);
        assert_eq!(ContextPage::to_batch(&found), pages);
        let order = |cell: &ContextCell| (cell.source.clone(), cell.key.clone(), cell.evaluations);
        // A part of a batch is read like all of it.
        for rows in [0..2, 1..2] {
            let opened = ContextPage::opened(&pages.slice(rows.start, rows.len())).expect("pages");
            let mut opened = ContextCell::from_batch(&opened).expect("rows");
            opened.sort_by_key(order);
            cells.retain(|cell| rows.start == 0 || cell.source == "web");
            cells.sort_by_key(order);
            assert_eq!(opened, cells);
        }
    }

    #[test]
    fn what_cannot_be_opened_is_refused() {
        let rows = |profile: &str| ContextCell::to_batch(&[cell("k", "", 1, profile)]);
        for profile in ["", "00000000000000f{}", "00000000000000FF{}", "+000000000000001{}", "000000000000000ö"] {
            assert_eq!(ContextPage::closed(&rows(profile)).expect_err(profile).column, "profile");
        }
        assert!(ContextPage::closed(&ContextPage::to_batch(&[])).is_err());
        let rows = rows("0000000000000001{}");
        assert!(!ContextPage::are_in(&rows) && ContextPage::check(&rows).is_err());
        let pages = ContextPage::closed(&rows).expect("rows of contexts");
        assert!(ContextPage::are_in(&pages) && ContextPage::check(&pages).is_ok());
        let page = ContextPage::from_batch(&pages).expect("pages").remove(0);
        type Damage = fn(&mut ContextPage);
        let damages: [(&str, Damage); 5] = [
            ("evaluations", |page| page.evaluations.push(1)),
            ("last_seen_us", |page| page.last_seen_us.clear()),
            ("evaluations", |page| page.texts.clear()),
            ("shared_by", |page| page.shared_by[0] = 2),
            ("shared_by", |page| page.profiles.push(String::new())),
        ];
        for (column, damage) in damages {
            let mut page = page.clone();
            damage(&mut page);
            let batch = ContextPage::to_batch(&[page]);
            assert_eq!(ContextPage::check(&batch).expect_err(column).column, column);
            assert!(ContextPage::opened(&batch).is_err());
        }
    }
}
