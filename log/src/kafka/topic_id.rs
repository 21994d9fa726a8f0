//! The id that Kafka gives each topic when it is created: asked for through the C interface, as the Rust client does not tell it.

use std::ffi::CString;
use std::os::raw::c_int;
use std::ptr;

use rdkafka::bindings as c;

use super::client::Broker;
use crate::{LogError, limits};

/// The 128 bits that tell this topic from others of the same name, earlier or later.
pub(super) async fn topic_id(broker: &Broker, topic: &str) -> Result<u128, LogError> {
    let name = CString::new(topic).map_err(|_nul| LogError::Refuse(format!("{topic:?} is no name of a topic")))?;
    let found = broker
        .blocking(move |client| {
            // SAFETY: the client outlives the call; everything made in `describe` is destroyed there.
            Ok(unsafe { describe(client.native_ptr(), &name) })
        })
        .await?;
    found.ok_or_else(|| LogError::Retry(format!("the brokers did not tell the id of topic {topic}")))
}

/// Asks and waits for the answer; none if there is none or it is an error.
///
/// # Safety
/// `client` must be a live client.
unsafe fn describe(client: *mut c::rd_kafka_t, name: &CString) -> Option<u128> {
    let timeout_ms = c_int::try_from(limits::KAFKA_REQUEST_TIMEOUT.as_millis()).expect("seconds");
    let mut names = [name.as_ptr()];
    // SAFETY: as the interface asks for: the names live until the collection has copied them, the result belongs to the event, and
    // all that was made here is destroyed once.
    unsafe {
        let topics = c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let queue = c::rd_kafka_queue_new(client);
        let options = c::rd_kafka_AdminOptions_new(client, c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        c::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
        c::rd_kafka_DescribeTopics(client, topics, options, queue);
        let event = c::rd_kafka_queue_poll(queue, timeout_ms);
        let id = if event.is_null() { None } else { id_in(event) };
        if !event.is_null() {
            c::rd_kafka_event_destroy(event);
        }
        c::rd_kafka_AdminOptions_destroy(options);
        c::rd_kafka_queue_destroy(queue);
        c::rd_kafka_TopicCollection_destroy(topics);
        id
    }
}

/// The id in an answer.
///
/// # Safety
/// `event` must be a live event.
unsafe fn id_in(event: *mut c::rd_kafka_event_t) -> Option<u128> {
    // SAFETY: the pointers are checked, and read before the event is destroyed.
    unsafe {
        let result = c::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let topics = c::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count != 1 {
            return None;
        }
        let error = c::rd_kafka_TopicDescription_error(*topics);
        let is_error =
            !error.is_null() && c::rd_kafka_error_code(error) != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        let id = c::rd_kafka_TopicDescription_topic_id(*topics);
        if is_error || id.is_null() {
            return None;
        }
        let high = c::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
        let low = c::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
        Some(u128::from(high) << 64 | u128::from(low))
    }
}

/// The epoch of a log: FNV-1a over the topic's id and the operator's bump.
pub(super) fn epoch(topic_id: u128, bump: u32) -> u64 {
    let bytes = topic_id.to_be_bytes().into_iter().chain(bump.to_be_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_topic_or_bump_is_another_epoch() {
        let epochs = [epoch(1, 0), epoch(2, 0), epoch(1, 1), epoch(1 << 64, 0), epoch(u128::MAX, u32::MAX)];
        let distinct: std::collections::BTreeSet<u64> = epochs.into_iter().collect();
        assert_eq!(distinct.len(), epochs.len());
        assert_eq!(epoch(1, 0), epoch(1, 0));
    }
}
