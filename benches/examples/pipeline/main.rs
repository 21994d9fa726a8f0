//! Fills a Kafka topic with decision events, as Flagmint's evaluators write them or as those that count with other systems do.
//!
//! `pipeline FORM TOPIC EVENTS PER_CALL USERS` with FORM one of `flagmint` (batches of 1,000 decisions of one environment), `json` (one event a record),
//! `json200` (200 lines a record), `arrow1000` (1,000 rows of an Arrow stream a record). The events are the same in every form: same seed. What
//! then counts them is started by `benches/peers/pipeline/compare`, which also provides the Kafka named in FLAGMINT_TEST_KAFKA.

mod flagmint;
mod rival;

use flagmint_benches::events::Events;

#[tokio::main(worker_threads = 1)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [form, topic, events, per_call, users] = arguments.as_slice() else {
        panic!("usage: pipeline flagmint|json|json200|arrow1000 TOPIC EVENTS PER_CALL USERS");
    };
    let number = |text: &String| text.parse::<u64>().expect("a number");
    let brokers = std::env::var("FLAGMINT_TEST_KAFKA").expect("run this under dev/servers/with-kafka");
    let total = number(events);
    let events = Events::new(total, number(per_call), number(users));
    let bytes = match form.as_str() {
        "flagmint" => flagmint::fill(&brokers, topic, events).await,
        "json" => rival::fill(&brokers, topic, events, 1, rival::json).await,
        "json200" => rival::fill(&brokers, topic, events, 200, rival::json).await,
        "arrow1000" => rival::fill(&brokers, topic, events, 1000, rival::arrow).await,
        other => panic!("form {other} is not known"),
    };
    println!("{{\"form\":\"{form}\",\"events\":{total},\"bytes_per_event\":{:.1}}}", bytes as f64 / total as f64);
}
