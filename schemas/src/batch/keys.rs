//! The columns of contexts' keys and of users' hashes.
//!
//! Keys are texts to Arrow and in every payload, keys to whoever writes or reads one, so that pseudonyms are spelled out for neither. Hashes
//! of users' keys are numbers, which are left out of a payload where they are the keys' own.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, UInt64Array};
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

/// In place of a width and base: every hash is the one of its row's key.
const OF_KEYS: u8 = 0x0f;

/// Hashes of users' keys, 0 for none.
#[derive(Clone, Debug)]
pub struct UserHashes {
    hashes: UInt64Array,
    /// They were left out, and are those of the keys.
    are_of_keys: bool,
}

impl UserHashes {
    /// Fills in what was left out.
    pub(super) fn derive(&mut self, keys: &ContextKeys) {
        if self.are_of_keys {
            // Not even a damaged payload may end a reader: a text that should tell a user tells none.
            let hashes = keys.0.iter().map(|key| key.user_hash().unwrap_or(0));
            *self = UInt64Array::from_iter_values(hashes).into();
        }
    }
}

impl From<UInt64Array> for UserHashes {
    fn from(hashes: UInt64Array) -> Self {
        Self { hashes, are_of_keys: false }
    }
}

impl Column for UserHashes {
    /// A hash, and the key of the same row.
    type Item<'a> = (u64, &'a ContextKey);
    type View<'a> = &'a [u64];

    fn data_type() -> DataType {
        UInt64Array::data_type()
    }

    fn collect<'a>(items: impl Iterator<Item = (u64, &'a ContextKey)>) -> Self {
        UInt64Array::from_iter_values(items.map(|(hash, _)| hash)).into()
    }

    fn read(source: &mut impl Source, rows: usize) -> Result<Self, String> {
        UInt64Array::read(source, rows).map(Self::from)
    }

    fn pack<'a>(items: impl ExactSizeIterator<Item = (u64, &'a ContextKey)> + Clone, packer: &mut Packer<'_>) {
        let mut hashes = items.clone();
        if packer.form == Form::Short && hashes.all(|(hash, key)| key.user_hash() == Some(hash)) {
            packer.out.push(OF_KEYS);
        } else {
            UInt64Array::pack(items.map(|(hash, _)| hash), packer);
        }
    }

    fn unpack(source: &mut Packed, rows: usize) -> Result<Self, String> {
        if source.form == Form::Short && source.rest().first() == Some(&OF_KEYS) {
            source.take(1)?;
            return Ok(Self { hashes: UInt64Array::from_iter_values([]), are_of_keys: true });
        }
        UInt64Array::unpack(source, rows).map(Self::from)
    }

    fn view(&self) -> &[u64] {
        self.hashes.values()
    }

    fn array(&self) -> ArrayRef {
        self.hashes.array()
    }
}
