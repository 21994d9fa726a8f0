//! How one record looks in a segment file.
//!
//! All integers are little-endian.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0-3 | magic | `FMLF` |
//! | 4-7 | length | bytes of header and payload together |
//! | 8-11 | crc32c | of everything else in the frame, seeded with epoch and partition |
//! | 12-15 | header length | bytes of the header alone |
//! | 16-23 | offset | of the record in its partition |
//! | 24-31 | append time | microseconds since the Unix epoch |
//! | 32-35 | group position | file position where the commit group of this frame begins |
//! | 36- | header, payload | |
//!
//! The seed makes a frame of another log or partition (a copied file, a payload that itself contains frames) invalid here.
//! The group position tells a torn tail from damage: a group is written only after the one before is durable, so a valid frame whose
//! group begins behind a hole proves that the hole was once durable.

use bytes::Bytes;

use crate::{Record, limits};

/// Bytes before the header.
pub(super) const HEAD_BYTES: usize = 36;
/// First bytes of each frame.
pub(super) const MAGIC: [u8; 4] = *b"FMLF";

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub length: usize,
    pub crc: u32,
    pub header_length: usize,
    pub offset: u64,
    pub append_time_us: i64,
    pub group_position: u32,
}

impl Head {
    /// Reads the fixed part; `None` if this cannot be the start of a frame. The checksum is not looked at.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        let word = |at: usize| u32::from_le_bytes(*head[at..].first_chunk().expect("inside the head"));
        let long = |at: usize| u64::from_le_bytes(*head[at..].first_chunk().expect("inside the head"));
        let length = word(4) as usize;
        let header_length = word(12) as usize;
        (head[..4] == MAGIC && length <= limits::RECORD_BYTES && header_length <= length).then(|| Self {
            length,
            crc: word(8),
            header_length,
            offset: long(16),
            append_time_us: long(24).cast_signed(),
            group_position: word(32),
        })
    }

    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> usize {
        HEAD_BYTES + self.length
    }

    /// The record, sharing the memory of `frame`, which is exactly this frame.
    pub fn record(&self, partition: u32, frame: &Bytes) -> Record {
        let body = HEAD_BYTES + self.header_length;
        Record {
            partition,
            offset: self.offset,
            append_time_us: self.append_time_us,
            header: frame.slice(HEAD_BYTES..body),
            payload: frame.slice(body..),
        }
    }
}

/// Seed of the checksums of one partition.
pub(super) fn seed(epoch: u64, partition: u32) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&epoch.to_le_bytes()), &partition.to_le_bytes())
}

fn checksum(seed: u32, frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &frame[..8]), &frame[12..])
}

/// The head of the frame `bytes` starts with, if all of it is there and undamaged.
pub(super) fn verify(seed: u32, bytes: &[u8]) -> Option<Head> {
    let head = Head::parse(bytes)?;
    let frame = bytes.get(..head.frame_bytes())?;
    (checksum(seed, frame) == head.crc).then_some(head)
}

/// Bytes a record takes in the file.
pub(super) fn frame_bytes(header: &[u8], payload: &[u8]) -> usize {
    HEAD_BYTES + header.len() + payload.len()
}

/// Place and time of a frame to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub offset: u64,
    pub append_time_us: i64,
    pub group_position: u32,
}

/// Appends the frame of one record to `buffer`. Header and payload together are at most [`limits::RECORD_BYTES`].
pub(super) fn encode(buffer: &mut Vec<u8>, seed: u32, stamp: Stamp, header: &[u8], payload: &[u8]) {
    let word = |bytes: usize| u32::try_from(bytes).expect("record size is checked on append").to_le_bytes();
    let start = buffer.len();
    buffer.extend_from_slice(&MAGIC);
    buffer.extend_from_slice(&word(header.len() + payload.len()));
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&word(header.len()));
    buffer.extend_from_slice(&stamp.offset.to_le_bytes());
    buffer.extend_from_slice(&stamp.append_time_us.to_le_bytes());
    buffer.extend_from_slice(&stamp.group_position.to_le_bytes());
    buffer.extend_from_slice(header);
    buffer.extend_from_slice(payload);
    let crc = checksum(seed, &buffer[start..]);
    buffer[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAMP: Stamp = Stamp { offset: 7, append_time_us: -3, group_position: 99 };

    fn frame(header: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut buffer = Vec::new();
        encode(&mut buffer, seed(1, 2), STAMP, header, payload);
        buffer
    }

    #[test]
    fn layout_is_fixed() {
        let expected = concat!(
            "464d4c46",
            "03000000",
            "eb47ebdd",
            "01000000",
            "0700000000000000",
            "fdffffffffffffff",
            "63000000",
            "61",
            "6263"
        );
        let hex: String = frame(b"a", b"bc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected, "a changed layout needs a new format version");
    }

    #[test]
    fn frames_of_other_logs_and_partitions_are_invalid() {
        let frame = frame(b"h", b"p");
        assert!(verify(seed(1, 2), &frame).is_some());
        assert!(verify(seed(1, 3), &frame).is_none());
        assert!(verify(seed(2, 2), &frame).is_none());
    }

    proptest! {
        #[test]
        fn round_trip(header in prop::collection::vec(any::<u8>(), 0..50), payload in prop::collection::vec(any::<u8>(), 0..500)) {
            let frame = Bytes::from(frame(&header, &payload));
            let record = verify(seed(1, 2), &frame).expect("valid").record(2, &frame);
            prop_assert_eq!((record.offset, record.append_time_us), (STAMP.offset, STAMP.append_time_us));
            prop_assert_eq!((&record.header[..], &record.payload[..]), (&header[..], &payload[..]));
        }

        #[test]
        fn any_flipped_bit_is_noticed(payload in prop::collection::vec(any::<u8>(), 0..100), bit in any::<prop::sample::Index>()) {
            let mut frame = frame(b"head", &payload);
            let bit = bit.index(frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(verify(seed(1, 2), &frame), None);
        }

        #[test]
        fn any_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(verify(seed(1, 2), &bytes), None);
        }
    }
}
