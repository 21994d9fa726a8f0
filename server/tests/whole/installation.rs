//! The whole binary as a new user meets it: from an empty directory to answers, over a restart, and what it refuses.

use std::process::{Command, Stdio};

use crate::support::{Person, Server, Shop, flagmint};
use serde_json::{Value, json};

fn place() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(0o711);
    tempfile::Builder::new().permissions(permissions).tempdir().expect("a temporary directory")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_an_empty_directory_to_answers_and_over_a_restart() {
    let place = place();
    let data_dir = place.path().join("data");
    let mut server = Server::start(flagmint(&data_dir));
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    let first = shop.wait_until_served(&person.http, &server.url).await;
    for number in 0..50 {
        let (status, values) =
            shop.evaluate(&person.http, &server.url, &format!("user-{number}")).await.expect("an answer");
        assert_eq!((status, &values), (200, &json!({ "checkout": true })));
    }
    let metrics = format!("/flags/{}/metrics", shop.flag_id);
    let counted = |answer: &Value| answer["data"]["totals"]["evaluations"].as_u64();
    let answer = person.get_until(&metrics, |answer| counted(answer) >= Some(51)).await;
    assert!(counted(&answer) <= Some(50 + first), "{answer}");
    let evaluations = counted(&answer);

    // A change is in force within a second, which the test only bounds by its patience.
    person
        .post(
            &format!(
                "/projects/{}/flags/{}/environments/{}/rollouts",
                shop.project_id, shop.flag_id, shop.environment_id
            ),
            json!({ "strategy": "percentage", "percentage": 0 }),
        )
        .await;
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    let mut asked = 0;
    while shop.evaluate(&person.http, &server.url, "later").await.expect("an answer").1 != json!({ "checkout": false })
    {
        asked += 1;
        assert!(std::time::Instant::now() < deadline, "the rollout did not come into force");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let usage = person.get_until("/billing/usage", |usage| usage["apiCalls"]["used"].as_u64() > evaluations).await;
    assert!(usage["period"]["from"].is_string(), "{usage}");
    about_itself(&person).await;

    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    let server = Server::start(flagmint(&data_dir));
    let person = Person::sign_in(&server.url).await;
    let answer = person.get(&metrics).await;
    assert_eq!(counted(&answer), evaluations.map(|before| before + asked + 1), "nothing is lost by SIGTERM");
    let audit = Command::new(env!("CARGO_BIN_EXE_flagmint"))
        .args(["audit", "--json", "--url", &server.url, "--access-token", &person.token])
        .output()
        .expect("the audit runs");
    assert!(audit.status.success(), "{audit:?}");
}

async fn about_itself(person: &Person) {
    for (path, expected) in [
        ("/health/live", "live"),
        ("/health/ready", "in step"),
        ("/version", "flagmint"),
        ("/openapi.json", "/evaluator/evaluate"),
        ("/metrics", "flagmint_evaluator_request_us"),
    ] {
        let answer = person.http.get(format!("{}{path}", person.url)).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        let text = answer.text().await.expect("text");
        assert!(text.contains(expected), "{path}: {text}");
    }
    let unknown = person.http.get(format!("{}/nowhere", person.url)).send().await.expect("an answer");
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.json::<Value>().await.expect("JSON")["error"], "not_found");
}

fn end_of(mut command: Command) -> (Option<i32>, String) {
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().expect("flagmint runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_second_process_is_told_who_holds_the_directory_and_a_taken_port_is_named() {
    let place = place();
    let data_dir = place.path().join("data");
    let server = Server::start(flagmint(&data_dir));
    let (code, text) = end_of(flagmint(&data_dir));
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains(&server.child.id().to_string()), "{text}");

    let port = server.url.rsplit(':').next().expect("a port");
    let mut command = flagmint(&place.path().join("other"));
    command.args(["--admin-listen", &format!("127.0.0.1:{port}")]);
    let (code, text) = end_of(command);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("--admin-listen") && text.contains(port), "{text}");
}

#[test]
fn wrong_usage_is_named_with_the_nearest_right_one() {
    let cases: [(&[&str], &str); 4] = [
        (&["up", "--listn", "127.0.0.1:0"], "--listen"),
        (&["demo", "--duration", "5"], "20s"),
        (&["audit", "--data-dir", "/nowhere"], "/nowhere"),
        (&["config", "check", "--admin-password-file", "/nowhere"], "/nowhere"),
    ];
    for (arguments, expected) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flagmint"));
        command.args(arguments);
        let (code, text) = end_of(command);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagmint"));
    command.args(["config", "check"]).env("FLAGMINT_LISEN", "x");
    let (code, text) = end_of(command);
    assert_eq!(code, Some(2));
    assert!(text.contains("did you mean listen"), "{text}");
}
