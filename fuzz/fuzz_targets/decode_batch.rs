//! Decoding of batches never panics and never yields rows that contradict each other, whatever the bytes.
//!
//! Run (nightly, with cargo-fuzz installed), seeded with the golden files:
//!
//! ```sh
//! cd fuzz && mkdir -p corpus/decode_batch
//! (head -c 112 /dev/zero; cat ../schemas/fixtures/batch-v1.arrow) > corpus/decode_batch/arrow
//! (head -c 112 /dev/zero; cat ../schemas/fixtures/batch-v1.pb) > corpus/decode_batch/protobuf
//! (head -c 112 /dev/zero; cat ../schemas/fixtures/batch-v1.packed) > corpus/decode_batch/packed
//! cargo +nightly fuzz run decode_batch -- -max_total_time=600
//! ```
//!
//! The property tests of `schemas/src/batch/tests.rs` hold the same functions to the same rule on the stable compiler.
#![no_main]

use bytes::Bytes;
use flagmint_schemas::batch::{Batch, BatchHeader, BatchView, Codec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((header, payload)) = input.split_at_checked(BatchHeader::LEN) else { return };
    // As found, which tries the header's decoder; then with a header that lets the payload's decoders go far.
    if let Ok(header) = BatchHeader::decode(header) {
        decode(&header, payload);
    }
    let mut known = [0; BatchHeader::LEN];
    for codec in [Codec::Arrow, Codec::Protobuf, Codec::Packed, Codec::Short] {
        (known[0], known[1], known[2]) = (1, codec as u8, BatchHeader::SCHEMA as u8);
        let mut header = BatchHeader::decode(&known).expect("this header is valid");
        (header.calls, header.decisions) = (2, 3);
        decode(&header, payload);
    }
});

fn decode(header: &BatchHeader, payload: &[u8]) {
    let rows = Batch::decode(header, payload);
    let view = BatchView::decode(header, &Bytes::copy_from_slice(payload)).map(|view| view.to_batch());
    assert_eq!(rows, view);
    if let Ok(batch) = rows {
        assert_eq!(Batch::decode(header, &batch.encode(header.codec)), Ok(batch));
    }
}
