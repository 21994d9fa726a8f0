//! The column of contexts' keys: texts to Arrow and in every payload, keys to whoever writes or reads one, so that pseudonyms are spelled
//! out for neither.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;

use super::column::{Column, Source};
use super::packed::{Form, Packed, Packer};
use super::texts::{self, DIGITS, ID_BYTES};
use crate::context_key::{ContextKey, Pseudonym};

/// Keys of contexts.
#[derive(Clone, Debug)]
pub struct ContextKeys(Vec<ContextKey>);

impl From<StringArray> for ContextKeys {
    fn from(texts: StringArray) -> Self {
        Self((0..arrow::array::Array::len(&texts)).map(|row| ContextKey::of(texts.value(row))).collect())
    }
}

impl Column for ContextKeys {
    type Item<'a> = &'a ContextKey;
    type View<'a> = &'a [ContextKey];

    fn data_type() -> DataType {
        StringArray::data_type()
    }

    fn collect<'a>(items: impl Iterator<Item = &'a ContextKey>) -> Self {
        Self(items.cloned().collect())
    }

    fn read(source: &mut impl Source, rows: usize) -> Result<Self, String> {
        StringArray::read(source, rows).map(Self::from)
    }

    fn pack<'a>(items: impl ExactSizeIterator<Item = &'a ContextKey> + Clone, packer: &mut Packer<'_>) {
        let are_pseudonyms = || items.clone().all(|key| matches!(key, ContextKey::Pseudonym(_)));
        // One row is packed as any text: the form for many is there for what they share.
        if packer.form == Form::Short && items.len() > 1 && are_pseudonyms() {
            packer.out.extend_from_slice(&[DIGITS, Pseudonym::PREFIX.len() as u8]);
            packer.out.extend_from_slice(Pseudonym::PREFIX.as_bytes());
            for key in items {
                if let ContextKey::Pseudonym(pseudonym) = key {
                    packer.out.extend_from_slice(&pseudonym.to_bytes());
                }
            }
        } else {
            let spelled: Vec<String> = items.map(ContextKey::to_string).collect();
            texts::pack(spelled.iter().map(String::as_str), packer);
        }
    }

    fn unpack(source: &mut Packed, rows: usize) -> Result<Self, String> {
        const PREFIX: &[u8] = Pseudonym::PREFIX.as_bytes();
        let start = [&[DIGITS, PREFIX.len() as u8], PREFIX].concat();
        if source.form == Form::Full || !source.rest().starts_with(&start) {
            return texts::unpack(source, rows).map(Self::from);
        }
        source.take(start.len())?;
        let (ids, _) = source.take(rows.checked_mul(ID_BYTES).ok_or("too many rows")?)?.as_chunks();
        Ok(Self(ids.iter().map(|&id| ContextKey::Pseudonym(Pseudonym::from_bytes(id))).collect()))
    }

    fn view(&self) -> &[ContextKey] {
        &self.0
    }

    fn array(&self) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(self.0.iter().map(ContextKey::to_string)))
    }
}
