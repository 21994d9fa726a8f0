//! The log in Kafka, on the brokers of `dev/servers/with-kafka`: the contract, bad input, the consumer group, the side topics,
//! brokers that fail.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing to unwrap has failed")]

mod bad_input;
mod conformance;
mod failover;
mod group;
#[expect(dead_code, reason = "the fault suite uses the rest")]
mod relay;
mod side_topics;
mod support;
mod topic_made_again;
mod watchdog;
