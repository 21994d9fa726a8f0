//! Micro-benchmarks, generators and the side-by-side harness.

pub mod batches;
pub mod events;

use flagmint_schemas::batch::Caller;
use flagmint_schemas::decision::{Transport, Trigger};
use flagmint_schemas::ids::KeyId;
use uuid::Uuid;

/// The application that calls in all of them.
#[must_use]
pub fn caller() -> Caller {
    Caller {
        key: KeyId(Uuid::from_u128(77 << 90)),
        transport: Transport::Rest,
        trigger: Trigger::Evaluate,
        source: "SDK".into(),
        sdk_name: "flagmint-node".into(),
        sdk_version: "3.2.1".into(),
        platform: "nodejs".into(),
        wrapper: String::new(),
    }
}
