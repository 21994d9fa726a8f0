//! What all our Kafka clients share: where their messages go, and requests that must not block the runtime.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use super::options::KafkaOptions;
use crate::{LogError, limits};

/// Pause before a partition whose leader is changing is asked for again.
const MOVING_PAUSE: Duration = Duration::from_millis(20);

/// How long one try to connect takes: after each it is looked at whether trying on makes sense.
const CONNECT_TRY: Duration = Duration::from_secs(1);

/// Events of the library that are taken in at once, at most.
const EVENTS_MAX: u32 = 100;

/// Takes what the client library says.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    /// What was said last about a connection that failed.
    complaint: Arc<Mutex<Option<(RDKafkaErrorCode, String)>>>,
}

impl Context {
    fn complaint(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, message, "Kafka client");
            }
            // Said of `enable.gapless.guarantee` at each start: nothing that a reader could do anything about.
            RDKafkaLogLevel::Warning if facility == "CONFWARN" && message.contains(" is experimental") => {
                tracing::debug!(facility, message, "Kafka client");
            }
            // Connections that come and go are errors to the library, even while another broker is there.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(facility, message, "Kafka client"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(facility, message, "Kafka client");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        // "All brokers are down" follows every cause and explains nothing.
        if code != RDKafkaErrorCode::AllBrokersDown {
            *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some((code, reason.to_owned()));
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, _opaque: ()) {}
}

/// The client for everything but records. It produces nothing; it is a producer because those hand on what the library says.
#[derive(Clone)]
pub(super) struct Broker {
    client: Arc<BaseProducer<Context>>,
    addresses: Arc<str>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Broker {
    /// Connects, or says why that was not possible within some time.
    pub(super) async fn connect(options: &KafkaOptions, within: Duration) -> Result<Self, LogError> {
        let client = BaseProducer::from_config_and_context(&options.client(), Context::default())
            .map_err(|error| LogError::Refuse(format!("the Kafka client cannot be set up: {error}")))?;
        let broker = Self { client: Arc::new(client), addresses: options.brokers.as_str().into() };
        let deadline = Instant::now() + within;
        loop {
            match broker.blocking(|client| client.fetch_metadata(None, CONNECT_TRY)).await {
                Ok(_metadata) => return Ok(broker),
                Err(LogError::Retry(_)) if Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What the brokers know of all topics. Asking for one that does not exist would create it where brokers do so by themselves.
    pub(super) async fn metadata(&self) -> Result<Metadata, LogError> {
        self.blocking(|client| client.fetch_metadata(None, limits::KAFKA_CONNECT_TIMEOUT)).await
    }

    /// First kept and next offset of a partition, as of now.
    pub(super) async fn watermarks(&self, topic: &str, partition: u32) -> Result<std::ops::Range<u64>, LogError> {
        let (topic, partition) = (topic.to_owned(), i32::try_from(partition).expect("counted by Kafka as i32"));
        let ask = move |client: &Client<Context>| {
            let deadline = Instant::now() + limits::KAFKA_REQUEST_TIMEOUT;
            loop {
                match client.fetch_watermarks(&topic, partition, limits::KAFKA_REQUEST_TIMEOUT) {
                    Err(error) if is_moving(&error) && Instant::now() < deadline => std::thread::sleep(MOVING_PAUSE),
                    result => return result,
                }
            }
        };
        let (low, high) = self.blocking(ask).await?;
        Ok(offset(low)..offset(high))
    }

    /// Whether a broker answers within a second. Blocks.
    pub(super) fn is_answering(&self) -> bool {
        self.client.client().fetch_metadata(None, Duration::from_secs(1)).is_ok()
    }

    /// Makes a request where it may block.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Client<Context>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, LogError> {
        let client = self.client.clone();
        let done = tokio::task::spawn_blocking(move || {
            let result = request(client.client());
            // What the library has to say about it, and to keep its queue from growing.
            (0..EVENTS_MAX).for_each(|_| client.poll(Duration::ZERO));
            result
        });
        match done.await {
            Ok(result) => result.map_err(|error| self.explain(&error)),
            Err(error) => Err(LogError::Retry(format!("a request to Kafka ended early: {error}"))),
        }
    }

    /// What a person should do about a failed request.
    pub(super) fn explain(&self, error: &KafkaError) -> LogError {
        use RDKafkaErrorCode as Code;
        let addresses = &self.addresses;
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        let is_unreached = matches!(
            code,
            Code::OperationTimedOut | Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve
        );
        // A request that never left: why there is no connection says more.
        let complaint = self.client.client().context().complaint().filter(|_| is_unreached);
        let (code, detail) = complaint.unwrap_or_else(|| (code, error.to_string()));
        match code {
            Code::Authentication | Code::SaslAuthenticationFailed => LogError::Refuse(format!(
                "the Kafka brokers at {addresses} do not accept the credentials: {detail}; check sasl.mechanism, sasl.username and sasl.password"
            )),
            Code::SSL => LogError::Refuse(format!(
                "no TLS connection to the Kafka brokers at {addresses}: {detail}; check security.protocol and ssl.ca.location"
            )),
            Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::GroupAuthorizationFailed => {
                LogError::Refuse(format!("Kafka at {addresses} does not allow this ({detail}): grant the user more"))
            }
            _ if is_unreached => LogError::Retry(format!(
                "no Kafka broker answers at {addresses}: {detail}; check the addresses, and that security.protocol is what the brokers expect there"
            )),
            _ => LogError::Retry(format!("Kafka at {addresses} did not do what was asked: {detail}")),
        }
    }
}

/// Whether a partition has no leader that knows itself as such: for moments after its creation and while it changes.
fn is_moving(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    // The library says the last by itself when its own copy of the metadata does not have a new partition yet.
    matches!(
        code,
        Some(
            Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
        )
    )
}

/// An offset as Kafka tells it.
pub(super) fn offset(raw: i64) -> u64 {
    u64::try_from(raw).unwrap_or_default()
}
