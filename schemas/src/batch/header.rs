//! The header of a log record: enough to route, deduplicate and account for a batch without decoding it.
//!
//! Fixed layout, little-endian, [`BatchHeader::LEN`] bytes: version u8, codec u8, schema u16, flags u8, pseudonym key u24, producer u128,
//! sequence u64, organization, project, environment (16 bytes each, as in a UUID), decisions u32, calls u32, event time
//! min, max, low watermark i64.

use thiserror::Error;
use uuid::Uuid;

use crate::ids::{EnvironmentId, OrganizationId, ProjectId};

/// How the payload is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// Arrow IPC record batches without schema.
    Arrow = 1,
    /// Protobuf rows, for small batches.
    Protobuf = 2,
    /// Packed columns; read, but not written any more.
    Packed = 3,
    /// Packed columns that spend less on what does not vary.
    Short = 4,
}

/// The header of one batch or heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// How the payload is encoded.
    pub codec: Codec,
    /// Version of the columns.
    pub schema: u16,
    /// New at each process start.
    pub producer: u128,
    /// Counts the records of this producer in this partition, from 0, heartbeats included.
    pub sequence: u64,
    /// The tenant; `NONE` in a heartbeat.
    pub organization: OrganizationId,
    /// The project; `NONE` in a heartbeat.
    pub project: ProjectId,
    /// The environment; `NONE` in a heartbeat.
    pub environment: EnvironmentId,
    /// Rows of `Batch::decisions`; 0 in a heartbeat.
    pub decisions: u32,
    /// Rows of `Batch::calls`; 0 in a heartbeat.
    pub calls: u32,
    /// Earliest event time of the calls, microseconds.
    pub event_time_min_us: i64,
    /// Latest event time of the calls, microseconds.
    pub event_time_max_us: i64,
    /// Every call of this producer in this partition's environments received before this has been appended, microseconds.
    pub low_watermark_us: i64,
    /// The producer says goodbye: it has appended all it will ever append to this partition.
    pub closing: bool,
    /// Under which of the environment's keys the pseudonyms were made, by its number, [`Self::PSEUDONYM_KEYS_MAX`] at most; 0 in a heartbeat, and
    /// where it is not known.
    pub pseudonym_key: u32,
}

/// Why a header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Too short or too long.
    #[error("batch header has {0} bytes, not {expected}", expected = BatchHeader::LEN)]
    Length(usize),
    /// Written by another version.
    #[error("batch header version {0} is not known")]
    Version(u8),
    /// Not one of ours.
    #[error("codec {0} is not known")]
    Codec(u8),
}

const VERSION: u8 = 1;
const FLAG_CLOSING: u8 = 1;

impl BatchHeader {
    /// Encoded size in bytes.
    pub const LEN: usize = 112;

    /// Where the bytes of the environment stand.
    pub const ENVIRONMENT: std::ops::Range<usize> = 64..80;

    /// The largest number of a pseudonym key.
    pub const PSEUDONYM_KEYS_MAX: u32 = (1 << 24) - 1;

    /// The version of the columns written today.
    pub const SCHEMA: u16 = 1;

    /// A record without rows: its first one of this producer, with a watermark that vouches for nothing.
    #[must_use]
    pub const fn heartbeat(producer: u128) -> Self {
        Self {
            codec: Codec::Protobuf,
            schema: Self::SCHEMA,
            producer,
            sequence: 0,
            organization: OrganizationId::NONE,
            project: ProjectId::NONE,
            environment: EnvironmentId::NONE,
            decisions: 0,
            calls: 0,
            event_time_min_us: 0,
            event_time_max_us: 0,
            low_watermark_us: 0,
            closing: false,
            pseudonym_key: 0,
        }
    }

    /// Whether this is a heartbeat: no rows, only a watermark.
    #[must_use]
    pub const fn is_heartbeat(&self) -> bool {
        self.environment.is_none()
    }

    /// The encoded header.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&[VERSION, self.codec as u8]);
        put(&self.schema.to_le_bytes());
        put(&[if self.closing { FLAG_CLOSING } else { 0 }]);
        put(&self.pseudonym_key.min(Self::PSEUDONYM_KEYS_MAX).to_le_bytes()[..3]);
        put(&self.producer.to_le_bytes());
        put(&self.sequence.to_le_bytes());
        put(self.organization.0.as_bytes());
        put(self.project.0.as_bytes());
        put(self.environment.0.as_bytes());
        put(&self.decisions.to_le_bytes());
        put(&self.calls.to_le_bytes());
        put(&self.event_time_min_us.to_le_bytes());
        put(&self.event_time_max_us.to_le_bytes());
        put(&self.low_watermark_us.to_le_bytes());
        out
    }

    /// Reads an encoded header.
    ///
    /// # Errors
    /// If the length, the version or the codec is not known.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().map_err(|_| HeaderError::Length(bytes.len()))?;
        let mut reader = Reader(bytes);
        let version = reader.take::<1>()[0];
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let codec = match reader.take::<1>()[0] {
            1 => Codec::Arrow,
            2 => Codec::Protobuf,
            3 => Codec::Packed,
            4 => Codec::Short,
            other => return Err(HeaderError::Codec(other)),
        };
        let schema = u16::from_le_bytes(reader.take());
        let flags = reader.take::<1>()[0];
        let [low, middle, high] = reader.take();
        let pseudonym_key = u32::from_le_bytes([low, middle, high, 0]);
        Ok(Self {
            codec,
            schema,
            closing: flags & FLAG_CLOSING != 0,
            pseudonym_key,
            producer: u128::from_le_bytes(reader.take()),
            sequence: u64::from_le_bytes(reader.take()),
            organization: OrganizationId(Uuid::from_bytes(reader.take())),
            project: ProjectId(Uuid::from_bytes(reader.take())),
            environment: EnvironmentId(Uuid::from_bytes(reader.take())),
            decisions: u32::from_le_bytes(reader.take()),
            calls: u32::from_le_bytes(reader.take()),
            event_time_min_us: i64::from_le_bytes(reader.take()),
            event_time_max_us: i64::from_le_bytes(reader.take()),
            low_watermark_us: i64::from_le_bytes(reader.take()),
        })
    }
}

/// Takes fixed-size pieces off a slice whose whole length was checked.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (piece, rest) = self.0.split_first_chunk::<N>().expect("the layout adds up to LEN");
        self.0 = rest;
        *piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BatchHeader {
        BatchHeader {
            codec: Codec::Arrow,
            schema: BatchHeader::SCHEMA,
            producer: 7 << 100,
            sequence: 9,
            organization: OrganizationId(Uuid::from_u128(1)),
            project: ProjectId(Uuid::from_u128(2)),
            environment: EnvironmentId(Uuid::from_u128(3)),
            decisions: 12,
            calls: 1,
            event_time_min_us: -5,
            event_time_max_us: 6,
            low_watermark_us: i64::MAX,
            closing: true,
            pseudonym_key: 0x0012_3456,
        }
    }

    #[test]
    fn round_trips() {
        assert_eq!(BatchHeader::decode(&header().encode()), Ok(header()));
        for pseudonym_key in [0, 1, BatchHeader::PSEUDONYM_KEYS_MAX] {
            let plain = BatchHeader { closing: false, pseudonym_key, ..header() };
            assert_eq!(BatchHeader::decode(&plain.encode()), Ok(plain));
        }
    }

    #[test]
    fn a_number_that_has_no_room_disturbs_nothing_else() {
        let decoded = BatchHeader::decode(&BatchHeader { pseudonym_key: u32::MAX, ..header() }.encode());
        assert_eq!(decoded, Ok(BatchHeader { pseudonym_key: BatchHeader::PSEUDONYM_KEYS_MAX, ..header() }));
    }

    #[test]
    fn the_environment_is_where_it_is_said_to_be() {
        let bytes = header().encode();
        assert_eq!(bytes[BatchHeader::ENVIRONMENT], *header().environment.0.as_bytes());
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let mut bytes = header().encode();
        assert_eq!(BatchHeader::decode(&bytes[1..]), Err(HeaderError::Length(111)));
        bytes[1] = 9;
        assert_eq!(BatchHeader::decode(&bytes), Err(HeaderError::Codec(9)));
        bytes[0] = 2;
        assert_eq!(BatchHeader::decode(&bytes), Err(HeaderError::Version(2)));
    }
}
