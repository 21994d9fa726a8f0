//! Records that could not be read are kept once each, byte for byte.

use flagmint_store::clickhouse::{ClickHouseStore, DeadLetter, migrate};

use crate::support::{self, sql};

#[tokio::test]
async fn a_dead_letter_is_kept_once_as_it_is() {
    let options = support::database();
    migrate(&options).await.expect("a schema");
    let store = ClickHouseStore::open(&options).await.expect("a store");
    let letter = DeadLetter {
        epoch: u64::MAX,
        partition: 3,
        offset: 7,
        append_time_us: now_us(),
        reason: "no such codec",
        header: &[0, 255, 10],
        payload: &[],
        payload_bytes: 1 << 40,
    };
    for letter in [letter, letter, DeadLetter { offset: 8, payload: &[9, 0], ..letter }] {
        store.keep_dead_letter(letter).await.expect("it is kept");
    }
    let found = "SELECT epoch, partition, offset, reason, hex(header), hex(payload), payload_bytes \
        FROM dead_letters FINAL ORDER BY offset";
    let expected = format!(
        "{0}\t3\t7\tno such codec\t00FF0A\t\t{1}\n{0}\t3\t8\tno such codec\t00FF0A\t0900\t{1}",
        u64::MAX,
        1_u64 << 40
    );
    assert_eq!(sql(&options, found).await, expected);
}

/// Now, so that retention leaves the letters alone.
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_micros()).expect("before the year 294247")
}
