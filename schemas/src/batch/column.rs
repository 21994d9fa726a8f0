//! The columns of the tables of a batch: how each type is read from, and written to, an Arrow record batch or its packed form.
//!
//! All columns are without nulls; "none" has a value of its own in each.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, Int64Array, StringArray, UInt8Array, UInt32Array, UInt64Array};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType};
use uuid::Uuid;

use super::packed::{Packed, Packer, pack_ids, pack_numbers, unpack_ids, unpack_numbers};
use super::texts;

/// Bytes of a 128-bit id; big-endian, as in a UUID.
const ID_BYTES: usize = 16;

/// Where a column's buffers come from: a verified record batch message.
pub trait Source {
    /// The next buffer of the message, of any length.
    fn next_buffer(&mut self) -> Result<Buffer, String>;

    /// Starts the next column, which must have `rows` rows and no nulls.
    fn next_column(&mut self, rows: usize) -> Result<(), String>;
}

/// One column type.
pub trait Column: Sized {
    /// One value.
    type Item<'a>;
    /// What readers see of the column.
    type View<'a>
    where
        Self: 'a;

    /// The Arrow type.
    fn data_type() -> DataType;

    /// Builds the column.
    fn collect<'a>(items: impl Iterator<Item = Self::Item<'a>>) -> Self;

    /// Takes the column's buffers.
    fn read(source: &mut impl Source, rows: usize) -> Result<Self, String>;

    /// Appends the column in its packed form.
    fn pack<'a>(items: impl ExactSizeIterator<Item = Self::Item<'a>> + Clone, packer: &mut Packer<'_>);

    /// Takes the column from its packed form.
    fn unpack(source: &mut Packed, rows: usize) -> Result<Self, String>;

    /// What readers see.
    fn view(&self) -> Self::View<'_>;

    /// As a column of a record batch.
    fn array(&self) -> ArrayRef;
}

/// `rows` values of type `T`, or why not.
fn scalars<T: ArrowNativeType>(buffer: Buffer, rows: usize) -> Result<ScalarBuffer<T>, String> {
    let expected = rows.checked_mul(size_of::<T>());
    if expected != Some(buffer.len()) {
        return Err(format!("{} bytes for {rows} values", buffer.len()));
    }
    if !buffer.as_ptr().addr().is_multiple_of(align_of::<T>()) {
        return Err("values are not aligned".into());
    }
    Ok(ScalarBuffer::new(buffer, 0, rows))
}

macro_rules! scalar_column {
    ($($array:ty, $native:ty, $data_type:expr;)+) => {$(
        impl Column for $array {
            type Item<'a> = $native;
            type View<'a> = &'a [$native];

            fn data_type() -> DataType {
                $data_type
            }

            fn collect<'a>(items: impl Iterator<Item = Self::Item<'a>>) -> Self {
                Self::from_iter_values(items)
            }

            fn read(source: &mut impl Source, rows: usize) -> Result<Self, String> {
                source.next_column(rows)?;
                source.next_buffer()?;
                Ok(Self::new(scalars(source.next_buffer()?, rows)?, None))
            }

            fn pack<'a>(items: impl ExactSizeIterator<Item = Self::Item<'a>> + Clone, packer: &mut Packer<'_>) {
                pack_numbers(items, packer);
            }

            fn unpack(source: &mut Packed, rows: usize) -> Result<Self, String> {
                Ok(Self::new(unpack_numbers::<$native>(source, rows)?.into(), None))
            }

            fn view(&self) -> &[$native] {
                self.values()
            }

            fn array(&self) -> ArrayRef {
                Arc::new(self.clone())
            }
        }
    )+};
}

scalar_column! {
    UInt8Array, u8, DataType::UInt8;
    UInt32Array, u32, DataType::UInt32;
    UInt64Array, u64, DataType::UInt64;
    Int64Array, i64, DataType::Int64;
}

/// 128-bit ids.
impl Column for FixedSizeBinaryArray {
    type Item<'a> = Uuid;
    type View<'a> = &'a [[u8; ID_BYTES]];

    fn data_type() -> DataType {
        DataType::FixedSizeBinary(ID_BYTES as i32)
    }

    fn collect<'a>(items: impl Iterator<Item = Self::Item<'a>>) -> Self {
        let bytes: Vec<u8> = items.flat_map(Uuid::into_bytes).collect();
        Self::new(ID_BYTES as i32, bytes.into(), None)
    }

    fn read(source: &mut impl Source, rows: usize) -> Result<Self, String> {
        source.next_column(rows)?;
        source.next_buffer()?;
        let buffer = source.next_buffer()?;
        if rows.checked_mul(ID_BYTES) != Some(buffer.len()) {
            return Err(format!("{} bytes for {rows} ids", buffer.len()));
        }
        Self::try_new(ID_BYTES as i32, buffer, None).map_err(|error| error.to_string())
    }

    fn pack<'a>(items: impl ExactSizeIterator<Item = Self::Item<'a>> + Clone, packer: &mut Packer<'_>) {
        pack_ids(items.map(|id| id.as_u128()), packer);
    }

    fn unpack(source: &mut Packed, rows: usize) -> Result<Self, String> {
        let ids: Vec<u128> = unpack_ids(source, rows)?.into_iter().map(u128::to_be).collect();
        Self::try_new(ID_BYTES as i32, Buffer::from_vec(ids), None).map_err(|error| error.to_string())
    }

    fn view(&self) -> Self::View<'_> {
        self.value_data().as_chunks().0
    }

    fn array(&self) -> ArrayRef {
        Arc::new(self.clone())
    }
}

/// A column of texts.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a>(&'a StringArray);

impl<'a> Texts<'a> {
    /// The text of a row.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn get(self, row: usize) -> &'a str {
        self.0.value(row)
    }
}

impl Column for StringArray {
    type Item<'a> = &'a str;
    type View<'a> = Texts<'a>;

    fn data_type() -> DataType {
        DataType::Utf8
    }

    fn collect<'a>(items: impl Iterator<Item = Self::Item<'a>>) -> Self {
        Self::from_iter_values(items)
    }

    fn read(source: &mut impl Source, rows: usize) -> Result<Self, String> {
        source.next_column(rows)?;
        source.next_buffer()?;
        let offsets: ScalarBuffer<i32> = scalars(source.next_buffer()?, rows + 1)?;
        let values = source.next_buffer()?;
        let is_ascending = offsets.is_sorted();
        let is_inside = offsets[0] == 0 && usize::try_from(offsets[rows]) == Ok(values.len());
        if !(is_ascending && is_inside) {
            return Err("text offsets are not ascending from 0 to the end".into());
        }
        Self::try_new(OffsetBuffer::new(offsets), values, None).map_err(|error| error.to_string())
    }

    fn pack<'a>(items: impl ExactSizeIterator<Item = Self::Item<'a>> + Clone, packer: &mut Packer<'_>) {
        texts::pack(items, packer);
    }

    fn unpack(source: &mut Packed, rows: usize) -> Result<Self, String> {
        texts::unpack(source, rows)
    }

    fn view(&self) -> Texts<'_> {
        Texts(self)
    }

    fn array(&self) -> ArrayRef {
        Arc::new(self.clone())
    }
}
