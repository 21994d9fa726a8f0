//! Config-sync over real HTTP, with a client that verifies, applies and checks as those in the field do: on a stream, and by REST.

mod support;

use std::time::Duration;

use flagmint_evaluator::config_sync::payload::Delta;
use flagmint_evaluator::directory::KeyFacts;
use flagmint_evaluator::http::Settings;
use flagmint_evaluator::quota::{Limit, Meter};
use flagmint_evaluator::serve::Limits;
use flagmint_schemas::context_key::ContextKey;
use flagmint_schemas::decision::{Transport, Trigger};
use flagmint_schemas::ids::{EnvironmentId, KeyId};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};
use support::clients::{Stream, calls, post_context, until};
use support::sync_client::{Effect, SyncClient, canonical};
use support::{CONFIGURATION, KEY, Plane, facts, identity};
use uuid::Uuid;

const DAY_MS: i64 = 86_400_000;

/// A stream whose events are given to a client.
struct Synced {
    stream: Stream,
    connection_id: String,
}

/// A session for `client`.
async fn session(plane: &Plane, client: &mut SyncClient) -> String {
    let url = format!("http://{}/auth/asl-handshake", plane.address);
    let answer = plane.http.post(url).header("x-api-key", KEY).json(&client.ask()).send().await.expect("an answer");
    let answer: Value = answer.json().await.expect("JSON");
    client.agree(&answer["data"])
}

impl Synced {
    async fn open(plane: &Plane, client: &mut SyncClient, ask: &str) -> Self {
        let session = session(plane, client).await;
        let mut stream = Stream::with_query(plane, &format!("sessionId={session}&{ask}")).await;
        let connected = stream.expect("connected").await;
        Self { stream, connection_id: connected["connectionId"].as_str().expect("an id").to_owned() }
    }

    /// Gives the next event to the client; its name and effect.
    async fn next(&mut self, client: &mut SyncClient) -> (String, Effect) {
        loop {
            let event = self.stream.next().await.expect("an event");
            if !event.name.is_empty() {
                assert_eq!(event.name, event.data["type"], "an event is named by its payload");
                return (event.name, client.receive(&event.data.to_string()));
            }
        }
    }
}

/// The configuration of one version as the control plane writes it.
fn compiled(version: u64, flags: &[Value], segments: &Map<String, Value>) -> String {
    json!({ "version": version, "flags": flags, "segments": segments }).to_string()
}

/// Publishes with its delta, as a change in Postgres does.
fn publish(plane: &Plane, before: &[Value], after: (&[Value], &Map<String, Value>), version: u64) {
    let (flags, segments) = after;
    let upserts: Vec<&Value> = flags.iter().filter(|flag| !before.contains(flag)).collect();
    let is_gone = |flag: &&Value| flags.iter().all(|other| other["key"] != flag["key"]);
    let deletes: Vec<&Value> = before.iter().filter(is_gone).map(|flag| &flag["key"]).collect();
    let delta = json!({ "upserts": upserts, "deletes": deletes, "segments": segments }).to_string();
    let key = plane.directory.authenticate(KEY, 0).expect("the key");
    key.environment.history.extend([Delta::parse(version, 5, &delta).expect("a delta")]);
    plane.publish(&compiled(version, flags, segments), version, true);
}

fn flag(name: &str, value: &Value) -> Value {
    json!({ "id": "00000000-0000-0000-0000-0000000000f9", "key": name, "type": "json", "is_active": true, "default_value": value,
        "targeting_rules": [], "variations": [], "rollouts": {}, "analytics_enabled": false })
}

/// What `GET /evaluator/config` says, as a client holds it.
async fn full(plane: &Plane) -> (u64, Vec<Value>) {
    let url = format!("http://{}/evaluator/config", plane.address);
    let answer = plane.http.get(url).header("x-api-key", KEY).send().await.expect("an answer");
    let mut data = answer.json::<Value>().await.expect("JSON")["data"].take();
    let mut flags = data["flags"].as_array_mut().expect("flags").split_off(0);
    flags.sort_by_key(|flag| flag["key"].as_str().map(str::to_owned));
    (data["version"].as_u64().expect("a version"), flags)
}

fn held(client: &SyncClient) -> (u64, Vec<Value>) {
    (client.version.unwrap_or_default(), client.flags.values().cloned().collect())
}

#[tokio::test]
async fn a_stream_brings_what_is_lacking_then_every_version() {
    let plane = Plane::start().await;
    let mut client = SyncClient::default();
    let before_ms = chrono::Utc::now().timestamp_millis();
    let mut synced = Synced::open(&plane, &mut client, "fullConfig=true").await;
    assert_eq!(synced.next(&mut client).await, ("lease".into(), Effect::WantsFull));
    assert_eq!(client.leased_version, 7);
    assert_eq!(synced.next(&mut client).await, ("fullConfig".into(), Effect::Replaced));
    assert_eq!(held(&client), full(&plane).await);
    assert!((before_ms + DAY_MS..before_ms + DAY_MS + 20_000).contains(&client.expires_at_ms));

    // As many at once as the hub may tell of in one round: still one by one.
    let (mut flags, none) = (Vec::new(), Map::new());
    for version in 8..13 {
        let next = [flag("a", &json!({ "n": version })), flag("b\u{2028}", &json!({ "1": 1e21, "0": -0.0 }))];
        publish(&plane, &flags, (&next, &none), version);
        flags = next.to_vec();
    }
    for version in 8..13 {
        assert_eq!(synced.next(&mut client).await, ("delta".into(), Effect::Applied));
        assert_eq!(client.version, Some(version));
    }
    // The first delta does not delete what only the test's configuration had.
    client.flags.retain(|key, _| key == "a" || key == "b\u{2028}");
    assert_eq!(held(&client), full(&plane).await);
    drop(synced);

    // Back again: nothing lacking, something lacking, and more lacking than is at hand.
    for (ask, expected) in [
        ("fullConfig=false&sinceVersion=12", vec![("lease", Effect::Renewed)]),
        ("fullConfig=false&sinceVersion=9", vec![("lease", Effect::Renewed), ("deltas", Effect::Stale)]),
        ("fullConfig=false&sinceVersion=6", vec![("lease", Effect::Renewed), ("fullConfig", Effect::Replaced)]),
        ("fullConfig=false&sinceVersion=13", vec![("lease", Effect::Renewed), ("fullConfig", Effect::Replaced)]),
        ("sinceVersion=none", vec![("lease", Effect::Renewed), ("fullConfig", Effect::Replaced)]),
    ] {
        let mut synced = Synced::open(&plane, &mut client, ask).await;
        for (name, effect) in expected {
            assert_eq!(synced.next(&mut client).await, (name.to_owned(), effect), "{ask}");
        }
        assert!(synced.stream.is_silent_for(Duration::from_millis(100)).await, "{ask}");
    }
    let mut behind = SyncClient::default();
    behind.version = Some(9);
    let mut synced = Synced::open(&plane, &mut behind, "fullConfig=false&sinceVersion=9").await;
    assert_eq!(synced.next(&mut behind).await.1, Effect::WantsFull);
    assert_eq!(synced.next(&mut behind).await, ("deltas".into(), Effect::Applied));
    assert_eq!(behind.version, Some(12));
}

#[tokio::test]
async fn any_sequence_of_publishes_ends_in_the_full_configuration() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let plane = Plane::start().await;
    let (mut flags, none): (Vec<Value>, _) = (Vec::new(), Map::new());
    plane.publish(&compiled(8, &flags, &none), 8, true);
    let mut client = SyncClient::default();
    let mut synced = Synced::open(&plane, &mut client, "fullConfig=true").await;
    synced.next(&mut client).await;
    synced.next(&mut client).await;
    let mut version = 8;
    for _ in 0..40 {
        for _ in 0..random.random_range(1..5) {
            let before = flags.clone();
            for _ in 0..random.random_range(1..4) {
                let name = format!("flag-{}", random.random_range(0..8));
                flags.retain(|flag| flag["key"] != name);
                if random.random_ratio(3, 4) {
                    let value = json!({ "n": random.random::<f64>() * 1e25, "s": format!("{}\u{2029}\u{1}", random.random::<char>()) });
                    flags.push(flag(&name, &value));
                }
            }
            version += 1;
            publish(&plane, &before, (&flags, &none), version);
        }
        if random.random_ratio(1, 5) {
            // The connection is lost; what was under way with it is, too.
            let since = client.version.expect("a version");
            synced = Synced::open(&plane, &mut client, &format!("fullConfig=false&sinceVersion={since}")).await;
            assert_eq!(synced.next(&mut client).await.0, "lease");
        }
        while client.version != Some(version) {
            let (name, effect) = synced.next(&mut client).await;
            assert!(matches!(effect, Effect::Applied | Effect::Renewed), "{name}: {effect:?}");
            assert!(client.leased_version <= version);
        }
        assert_eq!(held(&client), full(&plane).await);
    }
}

#[tokio::test]
async fn leases_are_renewed_for_the_version_that_was_sent() {
    let settings = Settings { lease_interval: Duration::from_millis(50), qa_routes: true, ..Settings::default() };
    let plane = Plane::start_with(settings, Limits::default()).await;
    let mut client = SyncClient::default();
    let mut synced = Synced::open(&plane, &mut client, "fullConfig=true").await;
    synced.next(&mut client).await;
    synced.next(&mut client).await;
    let advance = async |ms: i64| {
        let url = format!("http://{}/evaluator/v2/qa/config-sync/clock/advance", plane.address);
        let answer = plane.http.post(url).header("x-api-key", KEY).json(&json!({ "ms": ms })).send().await;
        assert_eq!(answer.expect("an answer").status(), 200);
    };
    let mut version = 7;
    for round in 0..20 {
        if round % 4 == 0 {
            version += 1;
            publish(&plane, &[], (&[flag("a", &json!({ "n": round }))], &Map::new()), version);
        }
        let sent = client.version;
        let (name, effect) = synced.next(&mut client).await;
        match name.as_str() {
            "lease" => assert_eq!((effect, Some(client.leased_version)), (Effect::Renewed, sent), "never ahead"),
            _ => assert_eq!((name.as_str(), effect), ("delta", Effect::Applied)),
        }
    }
    // A clock that is shifted shifts what leases say.
    let before_ms = client.expires_at_ms;
    advance(2 * DAY_MS).await;
    while client.expires_at_ms < before_ms + 2 * DAY_MS {
        synced.next(&mut client).await;
    }
}

#[tokio::test]
async fn the_rest_list_is_what_a_stream_would_begin_with() {
    let plane = Plane::start().await;
    let fetch = async |client: &mut SyncClient, more: &str| -> Vec<(String, Effect)> {
        let session = session(&plane, client).await;
        let url =
            format!("http://{}/evaluator/v2/flags/config?sessionId={session}{more}&wrapperName=laravel", plane.address);
        let answer = plane.http.get(url).header("x-api-key", KEY).send().await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()),
            (200, "application/json")
        );
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!((&body["statusCode"], &body["message"]), (&json!(200), &json!("Resource Found")));
        let payloads = body["data"]["payloads"].as_array().expect("a list");
        payloads
            .iter()
            .map(|one| (one["type"].as_str().expect("a type").to_owned(), client.receive(&one.to_string())))
            .collect()
    };
    let effects = |expected: &[(&str, Effect)]| {
        expected.iter().map(|(name, effect)| ((*name).to_owned(), *effect)).collect::<Vec<_>>()
    };
    let mut client = SyncClient::default();
    let first = [("lease", Effect::WantsFull), ("fullConfig", Effect::Replaced)];
    assert_eq!(fetch(&mut client, "").await, effects(&first));
    assert_eq!(held(&client), full(&plane).await);
    assert_eq!(fetch(&mut client, "&sinceVersion=7").await, effects(&[("lease", Effect::Renewed)]));
    let none = Map::new();
    publish(&plane, &[], (&[flag("a", &json!({}))], &none), 8);
    publish(&plane, &[], (&[flag("a", &json!({ "x": 1 }))], &none), 9);
    let caught_up = [("lease", Effect::WantsFull), ("deltas", Effect::Applied)];
    assert_eq!(fetch(&mut client, "&sinceVersion=7").await, effects(&caught_up));
    assert_eq!(client.version, Some(9));
    let lost = [("lease", Effect::Renewed), ("fullConfig", Effect::Replaced)];
    assert_eq!(fetch(&mut client, "&sinceVersion=1").await, effects(&lost));
    assert!(plane.recorded().await.is_empty(), "a fetch is no call");
}

#[tokio::test]
async fn sessions_are_good_once_for_their_key_and_only_with_a_mac_key() {
    let plane = Plane::start().await;
    let stranger = "ff_stranger";
    let other = EnvironmentId(Uuid::from_u128(33));
    plane.directory.put_key(KeyFacts { id: KeyId(Uuid::from_u128(9)), environment: other, ..facts(stranger) });
    let mut client = SyncClient::default();
    let fetch = async |key: &str, session: &str| -> (u16, Value) {
        let url = format!("http://{}/evaluator/v2/flags/config?sessionId={session}", plane.address);
        let answer = plane.http.get(url).header("x-api-key", key).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON")["error"].take())
    };
    let good = session(&plane, &mut client).await;
    assert_eq!(fetch("ff_unknown", &good).await, (401, json!("invalid_api_key")));
    assert_eq!(fetch(stranger, &good).await.0, 500, "an environment without configuration");
    assert_eq!(fetch(KEY, &good).await.0, 200);
    assert_eq!(fetch(KEY, &good).await, (401, json!("invalid_session")), "used");
    for bad in ["", "fm_asl_", "fm_asl_AAAA", "%ff%fe", "x".repeat(5000).as_str()] {
        assert_eq!(fetch(KEY, bad).await, (401, json!("invalid_session")), "{bad:.20}");
    }
    let plain = support::clients::session(&plane).await;
    assert_eq!(fetch(KEY, &plain).await, (400, json!("config_mac_required")));
    let plain = support::clients::session(&plane).await;
    let mut stream = Stream::with_query(&plane, &format!("sessionId={plain}&fullConfig=true")).await;
    stream.expect_error("config_mac_required").await;
    let used = session(&plane, &mut client).await;
    assert_eq!(fetch(KEY, &used).await.0, 200);
    let mut stream = Stream::with_query(&plane, &format!("sessionId={used}&fullConfig=true")).await;
    stream.expect_error("session_id_missing").await;
    let fresh = session(&plane, &mut client).await;
    let mut stream = Stream::with_query(&plane, &format!("sessionId={fresh}&fullConfig=true&context=%25%25")).await;
    stream.expect_error("invalid_context").await;
    let fresh = session(&plane, &mut client).await;
    plane.publish(CONFIGURATION, 8, false);
    assert_eq!(fetch(KEY, &fresh).await, (403, json!("subscription_inactive")));
    let mut stream = Stream::with_query(&plane, &format!("sessionId={fresh}&fullConfig=true")).await;
    stream.expect_error("subscription_inactive").await;
}

#[tokio::test]
async fn tampering_and_other_keys_are_noticed_by_clients() {
    let plane = Plane::start().await;
    let (mut client, mut other) = (SyncClient::default(), SyncClient::default());
    session(&plane, &mut other).await;
    let session = session(&plane, &mut client).await;
    let mut stream = Stream::with_query(&plane, &format!("sessionId={session}&fullConfig=true")).await;
    stream.expect("connected").await;
    let mut lease = stream.expect("lease").await;
    assert_eq!(other.receive(&lease.to_string()), Effect::BadSignature);
    let text = lease.to_string();
    lease["expiresAt"] = json!(lease["expiresAt"].as_i64().expect("a time") + 1);
    assert_eq!(client.receive(&lease.to_string()), Effect::BadSignature);
    assert_eq!(client.receive(&text), Effect::WantsFull);
    let config = stream.expect("fullConfig").await;
    assert!(canonical(&config).contains("\"compiledAt\":"), "{config}");
}

#[tokio::test]
async fn a_posted_context_is_telemetry_and_streams_are_metered_as_connections() {
    let plane = Plane::start().await;
    let mut client = SyncClient::default();
    let mut synced = Synced::open(&plane, &mut client, "fullConfig=true&platform=browser&sdkVersion=2.2.0").await;
    synced.next(&mut client).await;
    synced.next(&mut client).await;
    let context = json!({ "kind": "user", "key": "planted-user", "plan": "pro" });
    assert_eq!(post_context(&plane, &synced.connection_id, &context).await.0, 202);
    assert!(synced.stream.is_silent_for(Duration::from_millis(600)).await, "no flags");
    plane.directory.put_key(KeyFacts { revoked: true, ..facts(KEY) });
    synced.stream.expect_error("invalid_api_key").await;
    drop(synced);
    until("closed", || plane.open_streams() == 0).await;
    let batches = plane.recorded().await;
    let calls = calls(&batches);
    let found: Vec<_> = calls
        .iter()
        .map(|(call, caller)| {
            assert_eq!((caller.transport, call.api_calls, call.decisions), (Transport::ConfigSync, 0, 0));
            (caller.trigger, call.connections)
        })
        .collect();
    assert_eq!(found, [(Trigger::Connect, 1), (Trigger::Context, 0)]);
    let contexts: Vec<_> = batches.iter().flat_map(|(_, batch)| &batch.contexts).collect();
    assert!(contexts.len() == 1 && matches!(contexts[0].key, ContextKey::Pseudonym(_)), "{contexts:?}");
}

#[tokio::test]
async fn the_limit_of_api_calls_does_not_stop_it_that_of_connections_does() {
    let plane = Plane::start().await;
    let mut client = SyncClient::default();
    let reach = |meter| {
        let limit = Limit { meter, until_us: i64::MAX, plan: "free".into() };
        plane.directory.set_limits([(identity().organization, vec![limit])].into());
    };
    reach(Meter::ApiCalls);
    let mut synced = Synced::open(&plane, &mut client, "fullConfig=true").await;
    assert_eq!(synced.next(&mut client).await.0, "lease");
    assert_eq!(post_context(&plane, &synced.connection_id, &json!({ "kind": "user", "key": "u" })).await.0, 202);
    reach(Meter::Connections);
    let mut refused = Synced::open(&plane, &mut client, "fullConfig=true").await;
    let message = refused.stream.expect("quota_exceeded").await;
    assert_eq!((&message["error"], message.get("data")), (&json!("QUOTA_EXCEEDED"), None));
    assert_eq!(refused.stream.next().await, None);
    let session = session(&plane, &mut client).await;
    let url = format!("http://{}/evaluator/v2/flags/config?sessionId={session}", plane.address);
    assert_eq!(plane.http.get(url).header("x-api-key", KEY).send().await.expect("an answer").status(), 200);
}
