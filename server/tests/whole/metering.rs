//! What counts as an API call (data-plane.md 10.1), read back through BIL-1.

use serde_json::{Value, json};

use crate::support::{Person, Place, Shop};

/// One installation whose calls nobody else makes.
pub struct Metered {
    pub person: Person,
    pub shop: Shop,
    /// Expected so far.
    used: Used,
}

/// What meters show, or by how much something raises them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub calls: u64,
    pub connections: u64,
    pub track_events: u64,
}

impl Used {
    fn of(usage: &Value) -> Self {
        let used = |meter: &str| usage[meter]["used"].as_u64().unwrap_or_else(|| panic!("{meter} of {usage}"));
        Self { calls: used("apiCalls"), connections: used("connections"), track_events: used("trackEvents") }
    }

    fn raised(self, by: Self) -> Self {
        Self {
            calls: self.calls + by.calls,
            connections: self.connections + by.connections,
            track_events: self.track_events + by.track_events,
        }
    }
}

impl Metered {
    /// Checks that what was just done, called `what`, counted `calls` and nothing else.
    pub async fn expect(&mut self, what: &str, calls: u64) {
        self.expect_used(what, Used { calls, ..Used::default() }).await;
    }

    /// Checks that what was just done, called `what`, raised the meters by this much: a call that counts one is made after it, and once
    /// that shows, so would what came before. What the meters then say.
    pub async fn expect_used(&mut self, what: &str, used: Used) -> Value {
        let (status, _) = self.shop.evaluate(&self.person.http, &self.person.url, "marker").await.expect("an answer");
        assert_eq!(status, 200);
        self.used = self.used.raised(used).raised(Used { calls: 1, ..Used::default() });
        let calls = self.used.calls;
        let usage = self.person.get_until("/billing/usage", |usage| Used::of(usage).calls >= calls).await;
        assert_eq!(Used::of(&usage), self.used, "{what} counts {used:?}");
        usage
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> reqwest::Response {
        let mut request = self.person.http.post(format!("{}{path}", self.person.url)).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer")
    }

    pub async fn keyed(&self, path: &str, body: &str) -> u16 {
        self.post(path, &[("x-api-key", &self.shop.key)], body).await.status().as_u16()
    }

    /// A management request as somebody signed in; the status.
    pub async fn manage(&self, path: &str, body: Value) -> u16 {
        let request = self.person.http.post(format!("{}{path}", self.person.url)).bearer_auth(&self.person.token);
        request.json(&body).send().await.expect("an answer").status().as_u16()
    }
}

pub async fn metered(place: &Place) -> (crate::support::Server, Metered) {
    let server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    // Several flags, so that decisions and calls differ.
    for number in 0..4 {
        let flag = json!({ "name": format!("flag {number}"), "type": "boolean", "analytics_enabled": true });
        person.post(&format!("/projects/{}/flags", shop.project_id), flag).await;
    }
    let calls = shop.wait_until_served(&person.http, &server.url).await;
    // Asked for before the key was known there: refused, and so not counted.
    let usage = person.get_until("/billing/usage", |usage| Used::of(usage).calls > 5).await;
    let used = Used::of(&usage);
    assert!((6..=5 + calls).contains(&used.calls), "five flags made, {calls} evaluations asked for: {usage}");
    (server, Metered { person, shop, used })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_answered_call_is_one_unit_however_many_decisions() {
    let place = Place::new().await;
    let (_server, mut metered) = metered(&place).await;
    metered.expect("nothing", 0).await;
    for (path, body) in [
        ("/evaluator/evaluate", "{}"),
        ("/evaluator/evaluate/evaluator/evaluate", "{}"),
        ("/ofrep/v1/evaluate/flags/checkout", "{\"context\":{}}"),
        ("/ofrep/v1/evaluate/flags", "{\"context\":{}}"),
    ] {
        for _ in 0..3 {
            assert_eq!(metered.keyed(path, body).await, 200, "{path}");
        }
        metered.expect(path, 3).await;
    }
    let all = "/ofrep/v1/evaluate/flags";
    let body = "{\"context\":{\"targetingKey\":\"u\"}}";
    let answer = metered.post(all, &[("x-api-key", &metered.shop.key)], body).await;
    let etag = answer.headers()["etag"].to_str().expect("text").to_owned();
    metered.expect("the call that fetched an ETag", 1).await;
    for _ in 0..3 {
        let headers = [("x-api-key", metered.shop.key.as_str()), ("if-none-match", &etag)];
        assert_eq!(metered.post(all, &headers, body).await.status(), 304);
    }
    metered.expect("304", 0).await;
    let evaluations = format!("/flags/{}/metrics", metered.shop.flag_id);
    let answer = metered.person.get(&evaluations).await;
    let decisions = answer["data"]["totals"]["evaluations"].as_u64().expect("a count");
    // Of the calls so far, five made flags; each of the others decided this one, and no 304 did.
    assert_eq!(decisions, metered.used.calls - 5, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_asked_or_read_costs_nothing() {
    let place = Place::new().await;
    let (_server, mut metered) = metered(&place).await;
    let long = "x".repeat(70_000);
    let cases = [
        ("/evaluator/evaluate", "[]", 400),
        ("/evaluator/evaluate", "{\"context\":7}", 400),
        ("/evaluator/evaluate", long.as_str(), 413),
        ("/ofrep/v1/evaluate/flags/checkout", "{}", 400),
        ("/ofrep/v1/evaluate/flags/no-such", "{\"context\":{}}", 404),
        ("/ofrep/v1/evaluate/flags", "x", 400),
    ];
    for (path, body, status) in cases {
        assert_eq!(metered.keyed(path, body).await, status, "{path} {body:.20}");
    }
    for path in ["/evaluator/evaluate", "/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/checkout"] {
        assert_eq!(metered.post(path, &[("x-api-key", "ff_no")], "{\"context\":{}}").await.status(), 401);
    }
    metered.expect("refused calls", 0).await;
    let Shop { project_id, environment_id, flag_id, .. } = &metered.shop;
    for path in [
        "/health/live".to_owned(),
        "/health/ready".to_owned(),
        "/version".to_owned(),
        "/projects".to_owned(),
        format!("/projects/{project_id}/flags"),
        format!("/projects/{project_id}/flags/{flag_id}"),
        format!("/projects/{project_id}/environments/{environment_id}/flags"),
        format!("/flags/{flag_id}/metrics"),
    ] {
        metered.person.get(&path).await;
    }
    Person::sign_in(&metered.person.url).await;
    metered.expect("reads, health checks and signing in", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_management_write_that_succeeds_is_one_unit() {
    let place = Place::new().await;
    let (_server, mut metered) = metered(&place).await;
    let Shop { project_id, environment_id, flag_id, .. } = &metered.shop;
    let flags = format!("/projects/{project_id}/flags");
    let segments = format!("/projects/{project_id}/segments");
    let rollouts = format!("{flags}/{flag_id}/environments/{environment_id}/rollouts");
    let rules = format!("/projects/{project_id}/envs/{environment_id}/flags/{flag_id}/targeting-rules");
    let variations_path = format!("{flags}/{flag_id}/variations");
    let variations = metered.person.get(&variations_path).await["data"].take();
    let condition = json!({ "attribute": "country", "operator": "eq", "value": "IE", "logical_op": "AND" });
    let rule = json!({ "kind": "custom", "name": "r", "conditions": [condition], "variation_id": variations[0]["id"] });
    let segment_rule = json!({ "type": "rule", "attribute": "country", "operator": "eq", "value": "IE" });
    let segment = json!({ "name": "Irish", "key": "irish", "logical_op": "AND", "rules": [segment_rule] });
    let writes = [
        ("a flag", flags.clone(), json!({ "name": "Another", "key": "another", "type": "boolean" })),
        ("a rollout", rollouts.clone(), json!({ "strategy": "percentage", "percentage": 50 })),
        ("a targeting rule", rules.clone(), rule),
        ("a segment", segments.clone(), segment.clone()),
    ];
    for (what, path, body) in writes {
        assert_eq!(metered.manage(&path, body).await, 201, "{what}");
        metered.expect(what, 1).await;
    }
    metered.person.put(&variations_path, json!({ "updates": variations })).await;
    metered.expect("variations", 1).await;

    let Shop { project_id, .. } = &metered.shop;
    let refused = [
        (flags.clone(), json!({ "name": "" }), 400),
        (flags, json!({ "name": "Another", "key": "another", "type": "boolean" }), 409),
        (rollouts, json!({ "strategy": "percentage", "percentage": 101 }), 400),
        (rules, json!({}), 400),
        (segments, segment, 409),
        (format!("/projects/{}/flags", uuid::Uuid::new_v4()), json!({ "name": "x", "type": "boolean" }), 404),
    ];
    let uncounted = [
        (format!("/api-keys/{project_id}"), json!({ "name": "k", "environment_id": metered.shop.environment_id }), 201),
        ("/projects".to_owned(), json!({ "name": "Second", "projectKey": "second" }), 201),
    ];
    for (path, body, status) in refused.into_iter().chain(uncounted) {
        assert_eq!(metered.manage(&path, body.clone()).await, status, "{path} {body}");
    }
    metered.expect("refused writes, keys and projects", 0).await;
}
