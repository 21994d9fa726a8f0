//! Two instances on one Postgres: together they keep a key's limit, but for what they admit before they hear of each other.

mod support;

use flagmint_evaluator::configuration::ConfigurationSource;
use flagmint_evaluator::configuration::shared_rates::SharedRates;
use flagmint_evaluator::directory::{Directory, KeyFacts};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sqlx::{Connection as _, Executor as _};
use support::{KEY, Plane, facts};

const MIGRATION: &str = include_str!("../../control-plane/migrations/0040_key_rates.sql");

async fn database() -> String {
    let server = std::env::var("FLAGMINT_TEST_POSTGRES")
        .expect("run `make test`, or `dev/servers/with-postgres cargo test …`: these tests need a PostgreSQL");
    let name = format!("flagmint_{:016x}", rand::random::<u64>());
    let (base, _) = server.rsplit_once('/').expect("a URL with a database");
    let mut connection = sqlx::PgConnection::connect(&server).await.expect("the test server");
    connection.execute(format!("CREATE DATABASE {name}").as_str()).await.expect("a new database");
    let url = format!("{base}/{name}");
    let mut connection = sqlx::PgConnection::connect(&url).await.expect("the new database");
    connection.execute(MIGRATION).await.expect("the table");
    url
}

/// An instance with one key, and its part in the exchange.
struct Instance {
    plane: Plane,
    rates: SharedRates,
}

impl Instance {
    async fn start(url: &str, limit: u32) -> Self {
        let plane = Plane::start().await;
        plane.directory.put_key(KeyFacts { rate_limit_per_minute: limit, ..facts(KEY) });
        Self { plane, rates: ConfigurationSource::new(url).expect("a URL").shared_rates() }
    }

    fn directory(&self) -> &Directory {
        &self.plane.directory
    }

    /// Sends requests in the second `now_s`; how many are admitted.
    fn send(&self, requests: u32, now_s: u64) -> u32 {
        let key = self.directory().authenticate(KEY, 0).expect("the key");
        let limit = key.facts.rate_limit_per_minute;
        (0..requests).map(|_| u32::from(key.rate.admit(now_s, limit).admitted)).sum()
    }

    async fn exchange(&self, minute: u64) {
        self.rates.exchange(self.directory(), minute).await.expect("Postgres answers");
    }
}

#[tokio::test]
async fn what_the_others_admitted_is_not_admitted_again() {
    let url = database().await;
    let [a, b] = [Instance::start(&url, 100).await, Instance::start(&url, 100).await];
    assert_eq!((a.send(60, 600), b.send(30, 600)), (60, 30));
    a.exchange(10).await;
    b.exchange(10).await;
    assert_eq!(b.send(50, 601), 10, "60 there and 30 here");
    assert_eq!(a.send(50, 601), 40, "it has not asked since");
    a.exchange(10).await;
    assert_eq!((a.send(1, 602), b.send(1, 602)), (0, 0));
    assert_eq!((a.send(70, 660), b.send(70, 660)), (70, 70), "a new minute");
    for instance in [&a, &b, &a] {
        instance.exchange(11).await;
    }
    assert_eq!((a.send(1, 661), b.send(1, 661)), (0, 0));
}

/// The bound of docs/decisions: the limit, and what the others admitted within two exchanges.
#[tokio::test]
async fn the_limit_is_exceeded_by_no_more_than_two_intervals_of_the_others() {
    let url = database().await;
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let instances =
        [Instance::start(&url, 1000).await, Instance::start(&url, 1000).await, Instance::start(&url, 1000).await];
    for minute in 10..16 {
        let rate_max = random.random_range(1..200);
        let (mut admitted, mut sent) = (0, 0);
        for second in 0..50 {
            for instance in &instances {
                let requests = random.random_range(0..=rate_max);
                sent += requests;
                admitted += instance.send(requests, minute * 60 + second);
                // Instances exchange once in each second, at any time of it.
                instance.exchange(minute).await;
            }
        }
        let of_others = 2 * rate_max;
        let found = format!("{admitted} of {sent} at up to {rate_max} a second each");
        assert!(admitted >= sent.min(1000), "refused too early: {found}");
        assert!(admitted <= 1000 + 2 * of_others, "{found}");
    }
}
