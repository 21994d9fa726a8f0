//! The servers of a distributed installation: Apache Kafka, ClickHouse, Postgres, and how to reach them.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use flagmint_log::limits::{KAFKA_PARTITIONS, KAFKA_RETENTION, KAFKA_SESSION_TIMEOUT};

use super::duration;
use crate::exit::Failure;

/// The servers. Each role uses those that it needs and takes no notice of the others, so that all can be started with the same settings.
#[derive(Clone, Debug, Default, Args)]
pub struct Servers {
    /// Kafka, the decision log.
    #[command(flatten)]
    pub kafka: Kafka,
    /// ClickHouse, the rollup store.
    #[command(flatten)]
    pub clickhouse: ClickHouse,
    /// A Postgres server: the configuration. `up` and `demo` bring their own if none is given.
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,
}

/// Apache Kafka.
#[derive(Clone, Debug, Args)]
pub struct Kafka {
    /// Brokers of the Apache Kafka that holds the decision log: host:port,host:port or kafka://host:port,host:port.
    #[arg(long, value_name = "URL")]
    pub kafka: Option<String>,
    /// A property of librdkafka, such as security.protocol=SASL_SSL; several in a variable or a file are parted by semicolons.
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ';')]
    pub kafka_property: Vec<String>,
    /// Topic of the decisions; made if it does not exist.
    #[arg(long, default_value = "flagmint-decisions", value_name = "NAME")]
    pub kafka_topic: String,
    /// Partitions of a new topic.
    #[arg(long, default_value_t = KAFKA_PARTITIONS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub kafka_partitions: u32,
    /// Copies of each partition of a new topic; the brokers' default if not given.
    #[arg(long, value_name = "N")]
    pub kafka_replicas: Option<u16>,
    /// How long a new topic keeps decisions.
    #[arg(long, default_value = "7d", value_name = "DURATION", value_parser = duration)]
    pub kafka_retention: Duration,
    /// Consumer group of the aggregators: those that share the partitions, and one ClickHouse.
    #[arg(long, default_value = "flagmint-aggregator", value_name = "NAME")]
    pub kafka_group: String,
    /// After this silence an aggregator's partitions go to the others.
    #[arg(long, default_value = "6s", value_name = "DURATION", value_parser = duration)]
    pub kafka_session_timeout: Duration,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            kafka: None,
            kafka_property: Vec::new(),
            kafka_topic: "flagmint-decisions".into(),
            kafka_partitions: KAFKA_PARTITIONS,
            kafka_replicas: None,
            kafka_retention: KAFKA_RETENTION,
            kafka_group: "flagmint-aggregator".into(),
            kafka_session_timeout: KAFKA_SESSION_TIMEOUT,
        }
    }
}

/// ClickHouse.
#[derive(Clone, Debug, Default, Args)]
pub struct ClickHouse {
    /// ClickHouse, the rollup store: http://user:password@host:8123/database.
    #[arg(long, value_name = "URL")]
    pub clickhouse: Option<String>,
    /// User of ClickHouse, instead of one in the URL.
    #[arg(long, value_name = "NAME")]
    pub clickhouse_user: Option<String>,
    /// Password of ClickHouse, instead of one in the URL.
    #[arg(long, value_name = "TEXT")]
    pub clickhouse_password: Option<String>,
}

impl Servers {
    /// The URL of Postgres.
    ///
    /// # Errors
    /// If it is not given.
    pub fn postgres(&self) -> Result<&str, Failure> {
        self.postgres.as_deref().ok_or_else(|| missing("--postgres", "postgres://user@host:5432/database"))
    }
}

/// An option that a role cannot do without.
fn missing(option: &str, example: &str) -> Failure {
    let variable = option.trim_start_matches("--").to_uppercase().replace('-', "_");
    Failure::Usage(format!("{option} is needed, such as {option} {example} (or FLAGMINT_{variable})"))
}

impl Kafka {
    /// The brokers, as the client library takes them.
    ///
    /// # Errors
    /// If they are not given or no list of hosts.
    pub fn brokers(&self) -> Result<&str, Failure> {
        let text = self.kafka.as_deref().ok_or_else(|| missing("--kafka", "host:9092"))?;
        let brokers = text.strip_prefix("kafka://").unwrap_or(text).trim_end_matches('/');
        let is_host = |host: &str| {
            host.rsplit_once(':').is_some_and(|(name, port)| {
                !name.is_empty() && !name.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        };
        match brokers.split(',').find(|host| !is_host(host.trim())) {
            None => Ok(brokers),
            // Not what was written: it may hold a password.
            Some(_) => Err(Failure::Usage(
                "--kafka: write host:port, several parted by commas; users and passwords go into --kafka-property"
                    .into(),
            )),
        }
    }

    /// The properties that go through to the client library.
    ///
    /// # Errors
    /// If one is not NAME=VALUE.
    pub fn properties(&self) -> Result<BTreeMap<String, String>, Failure> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').filter(|(name, _)| !name.trim().is_empty()).ok_or_else(|| {
                Failure::Usage(format!(
                    "--kafka-property: {:?} is not NAME=VALUE",
                    text.split('=').next().unwrap_or_default()
                ))
            })?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        };
        self.kafka_property.iter().map(pair).collect()
    }
}

impl ClickHouse {
    /// The URL of ClickHouse, with user and password in it.
    ///
    /// # Errors
    /// If it is not given, or both it and an option name a user.
    pub fn full_url(&self) -> Result<String, Failure> {
        let url = self.clickhouse.as_deref().ok_or_else(|| missing("--clickhouse", "http://host:8123/flagmint"))?;
        if self.clickhouse_user.is_none() && self.clickhouse_password.is_none() {
            return Ok(url.to_owned());
        }
        let Some((scheme, rest)) = url.split_once("://").filter(|(_, rest)| !rest.contains('@')) else {
            return Err(Failure::Usage(
                "--clickhouse: write http://host:8123/database; user and password are either in it or in the options"
                    .into(),
            ));
        };
        let user = encode(self.clickhouse_user.as_deref().unwrap_or("default"));
        let password = encode(self.clickhouse_password.as_deref().unwrap_or_default());
        Ok(format!("{scheme}://{user}:{password}@{rest}"))
    }
}

/// Percent-encodes all that could mean something in a URL.
fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_hosts_with_ports() {
        let brokers = |text: &str| {
            let kafka = Kafka { kafka: Some(text.into()), ..Kafka::default() };
            kafka.brokers().map(str::to_owned).map_err(|failure| failure.to_string())
        };
        assert_eq!(brokers("a:9092").unwrap(), "a:9092");
        assert_eq!(brokers("kafka://a:1,b.example:2/").unwrap(), "a:1,b.example:2");
        assert_eq!(brokers("[::1]:9092").unwrap(), "[::1]:9092");
        for wrong in [
            "",
            "a",
            "a:",
            "a:x",
            "a:0",
            ":9092",
            "http://a:9092",
            "a:9092,",
            "user:secret@a:9092",
            "kafka://a:1/topic",
        ] {
            assert!(brokers(wrong).unwrap_err().contains("host:port"), "{wrong}");
        }
        assert!(Kafka::default().brokers().unwrap_err().to_string().contains("FLAGMINT_KAFKA"));
    }

    #[test]
    fn credentials_go_into_the_url() {
        let url = |user: Option<&str>, password: Option<&str>, url: Option<&str>| {
            let text = |text: Option<&str>| text.map(str::to_owned);
            let clickhouse = text(url);
            ClickHouse { clickhouse, clickhouse_user: text(user), clickhouse_password: text(password) }.full_url()
        };
        assert_eq!(url(None, None, Some("http://a:b@h/d")).unwrap(), "http://a:b@h/d");
        assert_eq!(url(Some("w"), Some("p@s:s%/"), Some("https://h:1/d")).unwrap(), "https://w:p%40s%3As%25%2F@h:1/d");
        assert_eq!(url(None, Some("p"), Some("http://h")).unwrap(), "http://default:p@h");
        for failure in
            [url(Some("w"), None, Some("http://a@h")), url(Some("w"), None, Some("h")), url(None, None, None)]
        {
            assert!(matches!(failure, Err(Failure::Usage(_))), "{failure:?}");
        }
    }

    #[test]
    fn properties_are_pairs_and_what_is_not_is_not_shown() {
        let properties = |texts: &[&str]| {
            let kafka =
                Kafka { kafka_property: texts.iter().map(|text| (*text).to_owned()).collect(), ..Kafka::default() };
            kafka.properties().map_err(|failure| failure.to_string())
        };
        let found = properties(&["sasl.password=a=b", " linger.ms = 5 "]).unwrap();
        assert_eq!(found, BTreeMap::from([("sasl.password".into(), "a=b".into()), ("linger.ms".into(), "5".into())]));
        assert!(properties(&["=secret"]).unwrap_err().ends_with("\"\" is not NAME=VALUE"));
        assert!(properties(&["linger.ms"]).unwrap_err().contains("linger.ms"));
    }
}
