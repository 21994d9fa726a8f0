//! The log in Kafka, on the brokers of `dev/servers/with-kafka`: the contract, bad input, the consumer group, the side topics.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing to unwrap has failed")]

mod bad_input;
mod conformance;
mod group;
mod side_topics;
mod support;
mod topic_made_again;
