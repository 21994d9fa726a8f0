//! Clients from the field against the whole binary: OpenFeature's for OFREP, and a tester that reads our OpenAPI document.
//!
//! The programs are in `server/tests/clients`; `dev/servers/clients install` installs what they need.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::support::{PATIENCE, Person, Place, Shop};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the server is a folder of the workspace")
}

/// Where the clients are installed.
fn installed() -> PathBuf {
    let output = std::process::Command::new(root().join("dev/servers/clients")).arg("path").output().expect("a shell");
    let path = PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim());
    assert!(
        path.is_dir(),
        "run `dev/setup tests`: the clients that these tests drive are not installed in {}",
        path.display()
    );
    path
}

fn program(name: &str) -> PathBuf {
    root().join("server/tests/clients").join(name)
}

/// Creates a flag whose two variations have these values, with a rollout or a rule that may name the variations' ids `A` and `B`.
async fn flag(person: &Person, shop: &Shop, ask: Value, values: Option<[Value; 2]>, then: Option<(&str, Value)>) {
    let flags = format!("/projects/{}/flags", shop.project_id);
    let flag = person.post(&flags, ask).await;
    let id = flag["id"].as_str().expect("an id");
    let variations_path = format!("{flags}/{id}/variations");
    let mut variations = person.get(&variations_path).await["data"].take();
    if let Some(values) = values {
        for (variation, value) in variations.as_array_mut().expect("a list").iter_mut().zip(values) {
            variation["value"] = value;
        }
        person.put(&variations_path, json!({ "updates": variations })).await;
    }
    if let Some((what, body)) = then {
        let id_of = |index: usize| variations[index]["id"].as_str().expect("an id").to_owned();
        let body =
            body.to_string().replace("\"A\"", &format!("{:?}", id_of(0))).replace("\"B\"", &format!("{:?}", id_of(1)));
        let path = match what {
            "rule" => format!("/projects/{}/envs/{}/flags/{id}/targeting-rules", shop.project_id, shop.environment_id),
            _ => format!("{flags}/{id}/environments/{}/rollouts", shop.environment_id),
        };
        person.post(&path, serde_json::from_str(&body).expect("JSON")).await;
    }
}

fn rule(country: &str) -> Option<(&'static str, Value)> {
    let condition = json!({ "attribute": "country", "operator": "eq", "value": country, "logical_op": "AND" });
    Some(("rule", json!({ "kind": "custom", "name": country, "conditions": [condition], "variation_id": "A" })))
}

/// The flags that the programs ask for.
async fn flags(person: &Person, shop: &Shop) {
    let metadata = json!({ "team": "web", "nested": { "a": 1 } });
    let of =
        |key: &str, flag_type: &str| json!({ "name": key, "key": key, "type": flag_type, "analytics_enabled": true });
    let welcome = json!({ "name": "Welcome", "key": "welcome", "type": "boolean", "metadata": metadata });
    flag(person, shop, welcome, None, None).await;
    let halves = json!({ "strategy": "variant", "variants": [{ "variation_id": "A", "weight": 50 }, { "variation_id": "B", "weight": 50 }] });
    flag(person, shop, of("button", "string"), Some([json!("green"), json!("blue")]), Some(("rollout", halves))).await;
    flag(person, shop, of("size", "number"), Some([json!(20), json!(50)]), None).await;
    let prices = [json!({ "monthly": 29, "tags": ["a", null] }), json!({ "monthly": 25 })];
    flag(person, shop, of("pricing", "json"), Some(prices), None).await;
    flag(person, shop, of("irish", "boolean"), None, rule("IE")).await;
    flag(person, shop, of("later", "boolean"), None, rule("nowhere")).await;
    let mut halted = of("halted", "boolean");
    halted["is_active"] = false.into();
    flag(person, shop, halted, None, None).await;
}

async fn served(person: &Person, shop: &Shop) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !shop.evaluate(&person.http, &person.url, "u").await.is_ok_and(|(_, values)| values["halted"].is_boolean()) {
        assert!(std::time::Instant::now() < deadline, "the flags do not come into force");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn output(mut command: Command) -> String {
    let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output.expect("the client ends").expect("the client starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn node(name: &str, url: &str, key: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(program(name)).arg(installed()).args([url, key]);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openfeature_clients_agree_with_each_other_and_with_rest() {
    let place = Place::new().await;
    let server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    flags(&person, &shop).await;
    served(&person, &shop).await;

    let on_node: Value = serde_json::from_str(&output(node("server.mjs", &server.url, &shop.key)).await).expect("JSON");
    let mut python = Command::new(installed().join("python/bin/python"));
    python.arg(program("client.py")).args([&server.url, &shop.key]);
    let on_python: Value = serde_json::from_str(&output(python).await).expect("JSON");
    assert_eq!(on_node, on_python);
    assert_eq!(on_node, in_a_page(&person, &shop).await);

    for (number, (user, found)) in on_node.as_object().expect("users").iter().enumerate() {
        let country = if number % 2 == 1 { "IE" } else { "DE" };
        let body = json!({ "context": { "kind": "user", "key": user, "country": country } });
        let request = person.http.post(format!("{}/evaluator/evaluate", server.url)).header("x-api-key", &shop.key);
        let values: Value = request.json(&body).send().await.expect("an answer").json().await.expect("JSON");
        for (flag, details) in found.as_object().expect("flags") {
            assert_eq!(values[flag], details["value"], "{user} {flag}");
        }
    }
    let colours: std::collections::BTreeSet<_> =
        on_node.as_object().expect("users").values().map(|found| found["button"]["value"].to_string()).collect();
    assert_eq!(colours.len(), 2, "20 users are split");
}

/// What the web client found; the flag `later` is changed under it, which it must see by polling with ETags.
async fn in_a_page(person: &Person, shop: &Shop) -> Value {
    let mut child =
        node("web.mjs", &person.url, &shop.key).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("node starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = async || tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("a pipe");
    let found = line().await.expect("the page ended early; its complaint is above");
    let flags = person.get(&format!("/projects/{}/flags?limit=100", shop.project_id)).await;
    let later = flags["data"]["data"].as_array().expect("a list").iter().find(|flag| flag["key"] == "later");
    let id = later.expect("made above")["id"].as_str().expect("an id");
    let variations = person.get(&format!("/projects/{}/flags/{id}/variations", shop.project_id)).await;
    let (_, rule) = rule("IE").expect("a rule");
    let rule = rule.to_string().replace("\"A\"", &variations["data"][0]["id"].to_string());
    let path = format!("/projects/{}/envs/{}/flags/{id}/targeting-rules", shop.project_id, shop.environment_id);
    person.post(&path, serde_json::from_str(&rule).expect("JSON")).await;
    let statuses: Value = serde_json::from_str(&line().await.expect("the change is not seen")).expect("JSON");
    assert!(statuses["304"].as_u64() >= Some(1), "{statuses}");
    serde_json::from_str(&found).expect("JSON")
}

/// Nothing that the OpenAPI document allows, or forbids, brings a reply of 5xx or one that the document does not describe.
///
/// The management API admits 600 requests a minute, so it gets few examples of each operation here; `FLAGMINT_TEST_EXAMPLES` asks for
/// more of everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_are_as_the_openapi_document_says() {
    let place = Place::new().await;
    let mut server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    shop.wait_until_served(&person.http, &server.url).await;
    let asked = std::env::var("FLAGMINT_TEST_EXAMPLES").ok();
    let examples = |few: &str| asked.clone().unwrap_or_else(|| few.to_owned());
    let (many, few) = (examples("25"), examples("10"));
    let data_plane = "^/(evaluator|ofrep|auth|ws)/";
    let runs = [
        ["--include-path-regex", data_plane, "--phases", "examples,coverage,fuzzing", "--max-examples", many.as_str()],
        ["--exclude-path-regex", data_plane, "--phases", "examples,fuzzing", "--max-examples", few.as_str()],
    ];
    for run in runs {
        let reports = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(installed().join("python/bin/python"));
        command.args(["-m", "schemathesis.cli", "run", &format!("{}/openapi.json", server.url)]).args(run);
        command.args(["--seed", "2026", "--no-shrink", "--continue-on-failure", "--warnings", "off"]);
        command.args(["--request-timeout", "20", "-H", &format!("authorization: Bearer {}", person.token)]);
        command.args(["-H", &format!("x-api-key: {}", shop.key), "--checks", CHECKS]).current_dir(reports.path());
        println!("{}", output(command).await);
        assert!(server.child.try_wait().expect("a child").is_none(), "the server is alive");
    }
}

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance";
