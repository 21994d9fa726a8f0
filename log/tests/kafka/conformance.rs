//! The log in Kafka keeps the contract of a decision log.

use flagmint_log::conformance::{PARTITIONS, Subject};
use flagmint_log::{KafkaLog, KafkaOptions, limits};

use crate::support::options;

struct Kafka {
    options: KafkaOptions,
}

impl Kafka {
    fn new() -> Self {
        Self { options: KafkaOptions { partitions: PARTITIONS, ..options("conformance") } }
    }
}

impl Subject for Kafka {
    type Log = KafkaLog;

    async fn open(&self) -> KafkaLog {
        KafkaLog::open(self.options.clone()).await.expect("a log in Kafka")
    }

    fn too_large_bytes(&self) -> usize {
        limits::RECORD_BYTES + 1
    }
}

flagmint_log::conformance_suite!(Kafka::new());
