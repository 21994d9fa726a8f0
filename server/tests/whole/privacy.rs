//! What an installation keeps of the people it decides for: a full run with planted keys and addresses, by every way that leads in,
//! and then a look at every byte that it wrote. Without the opt-in to raw logging, none of them is there; with it, they are.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::DataType;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flagmint_log::{DecisionLog as _, LocalLog, Options};
use flagmint_schemas::batch::{Batch, BatchHeader};
use futures::{SinkExt as _, StreamExt as _};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::{PATIENCE, Person, Server, Shop, flagmint_logging, machine};

/// In every planted key, address and text, and in nothing else.
const MARK: &str = "pl4nted";

/// A planted context: every member that holds a person, in the shapes that contexts have. A badge is private by the organization's
/// schema, the others by their names.
fn contexts() -> Vec<Value> {
    let email = format!("{MARK}@example.com");
    let user = json!({ "kind": "user", "key": format!("{MARK}-user"), "email": email, "Name": MARK, "country": "IE" });
    let organization = json!({ "kind": "organization", "key": format!("{MARK}-org"), "address": MARK });
    let long = format!("{MARK} {}", "x".repeat(64));
    vec![
        user.clone(),
        organization.clone(),
        json!({ "kind": "multi", "user": user, "organization": organization }),
        json!({ "user.key": format!("{MARK}-flat"), "user.phone": MARK, "organization.key": format!("{MARK}-org") }),
        json!({ "user": { "key": format!("{MARK}-nested"), "lastName": MARK }, "custom": { "email": email } }),
        json!({ "user_id": format!("{MARK}-id"), "targetingKey": format!("{MARK}-target"), "userKey": MARK, "IP": MARK }),
        json!({ "user.badge": MARK, "Badge": MARK, "device.badge": MARK, "custom": { "BADGE": [MARK] } }),
        json!({ "kind": "multi", "user": { "key": "u", "badge": MARK }, "organization": { "key": "o", "badge": MARK } }),
        json!({ "kind": "user", "key": format!("{MARK}-deep"), "bio": long, "list": [email], "object": { "a": [MARK] } }),
    ]
}

/// Sends everything planted by every route; all of it is accepted, but for what is sent to be refused.
async fn plant(http: &reqwest::Client, url: &str, key: &str) {
    let post = |path: &str| http.post(format!("{url}{path}")).header("x-api-key", key);
    for context in contexts() {
        let body = json!({ "context": context });
        let by_body = post("/evaluator/evaluate").json(&body);
        let header = STANDARD.encode(context.to_string());
        let by_header = post("/evaluator/evaluate").header("x-flagmint-context", header).json(&json!({}));
        for request in [by_body, by_header] {
            assert_eq!(request.send().await.expect("an answer").status(), 200);
        }
    }
    for context in contexts() {
        let body = json!({ "context": context });
        for path in ["/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/checkout"] {
            assert_eq!(post(path).json(&body).send().await.expect("an answer").status(), 200);
        }
    }
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let event = |kind: &str| {
        json!({ "flagKey": "checkout", "kind": kind, "eventName": MARK, "variationValue": MARK, "timestamp": now,
            "userKey": format!("{MARK}-user"), "extra": { "message": format!("{MARK}@example.com"), "name": MARK } })
    };
    let events = json!({ "events": [event("evaluation"), event("custom"), event("error"), event(MARK)] });
    let answer: Value =
        post("/evaluator/events").json(&events).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(answer["data"], json!({ "accepted": 3, "dropped": 1 }));
    // What cannot be read is refused, and not written down either.
    let bad =
        [format!("{{\"context\":{{\"key\":\"{MARK}\""), format!("[\"{MARK}\"]"), format!("{{\"context\":\"{MARK}\"}}")];
    for path in ["/evaluator/evaluate", "/evaluator/events", "/ofrep/v1/evaluate/flags"] {
        for body in &bad {
            assert_eq!(post(path).body(body.clone()).send().await.expect("an answer").status(), 400);
        }
    }
}

/// The same over streams and sockets: contexts in URLs and headers, posted, and sent as messages.
async fn plant_on_connections(http: &reqwest::Client, url: &str, key: &str) {
    let in_query = |context: &Value| {
        STANDARD.encode(context.to_string()).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
    };
    for context in contexts().into_iter().chain([json!([MARK])]) {
        let answer = http.post(format!("{url}/auth/asl-handshake")).header("x-api-key", key).send().await;
        let answer: Value = answer.expect("an answer").json().await.expect("JSON");
        let session = answer["data"]["sessionId"].as_str().expect("a session");
        let query = format!("sessionId={session}&context={}", in_query(&context));
        let mut stream = http.get(format!("{url}/evaluator/v2/flags/stream?{query}")).send().await.expect("a stream");
        let mut text = String::new();
        while !text.contains("event: flags") && !text.contains("event: error") {
            text += std::str::from_utf8(&stream.chunk().await.expect("a chunk").expect("more")).expect("UTF-8");
        }
        let id = text.split("\"connectionId\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        assert_eq!(id.is_empty(), context.is_array(), "{text}");
        let body = json!({ "connectionId": id, "context": context });
        let posted = http.post(format!("{url}/evaluator/v2/flags/context")).header("x-api-key", key).json(&body).send();
        assert_eq!(posted.await.expect("an answer").status(), if context.is_array() { 400 } else { 202 });
    }
    let socket_url = format!("{}/ws/sdk?apiKey={key}", url.replace("http", "ws"));
    let mut request = socket_url.into_client_request().expect("a request");
    let header = STANDARD.encode(contexts()[0].to_string());
    request.headers_mut().insert("x-flagmint-context", header.parse().expect("a header"));
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.expect("an upgrade");
    let is_flags = |message: &Message| message.to_text().is_ok_and(|text| text.contains("\"flags\""));
    while !is_flags(&socket.next().await.expect("a message").expect("a message")) {}
    for context in contexts() {
        for text in
            [json!([MARK]).to_string(), MARK.to_owned(), json!({ "type": "context", "context": MARK }).to_string()]
        {
            socket.send(Message::text(text)).await.expect("sent");
        }
        let message = json!({ "type": "context", "context": context }).to_string();
        socket.send(Message::text(message)).await.expect("sent");
        while !is_flags(&socket.next().await.expect("a message").expect("a message")) {}
    }
    socket.close(None).await.expect("closed");
}

/// Files below a directory in which the mark stands as it is.
fn marked(directory: &Path) -> Vec<PathBuf> {
    files(directory).into_iter().filter(|path| has_mark(&std::fs::read(path).unwrap_or_default())).collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let (mut pending, mut found) = (vec![directory.to_owned()], Vec::new());
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
            let path = entry.path();
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file() {
                found.push(path);
            }
        }
    }
    found
}

fn has_mark(bytes: &[u8]) -> bool {
    bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes())
}

/// Rows of all Parquet files, and whether one of their texts has the mark once it is unpacked.
fn rollups_marked(directory: &Path) -> (usize, bool) {
    let (mut rows, mut is_marked) = (0, false);
    for path in files(directory).into_iter().filter(|path| path.extension().is_some_and(|end| end == "parquet")) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("a file")).expect("Parquet");
        for batch in reader.build().expect("Parquet") {
            let batch = batch.expect("rows");
            rows += batch.num_rows();
            for column in batch.columns() {
                is_marked |= match column.data_type() {
                    DataType::Utf8 => column.as_string::<i32>().iter().flatten().any(|text| text.contains(MARK)),
                    DataType::Binary => column.as_binary::<i32>().iter().flatten().any(has_mark),
                    other => {
                        let is_plain = other.is_primitive() || matches!(other, DataType::FixedSizeBinary(_));
                        assert!(is_plain, "a column of {other} is not looked into");
                        column.as_fixed_size_binary_opt().is_some_and(|ids| ids.iter().flatten().any(has_mark))
                    }
                };
            }
        }
    }
    (rows, is_marked)
}

/// Looks at each batch in the log of an installation that is not running.
async fn look_at_log(data_dir: &Path, mut look: impl FnMut(BatchHeader, Batch)) {
    let log = LocalLog::open(Options::new(data_dir.join("log"), 1)).expect("the log");
    let bounds = log.bounds(0).await.expect("bounds");
    let mut next = bounds.start;
    while next < bounds.end {
        for record in log.read(0, next, 1 << 20).await.expect("records") {
            next = record.offset + 1;
            let header = BatchHeader::decode(&record.header).expect("a header");
            if !header.is_heartbeat() {
                look(header, Batch::decode(&header, &record.payload).expect("a batch"));
            }
        }
    }
}

/// Records of such a log, and whether the mark is in one.
async fn log_marked(data_dir: &Path) -> (usize, bool) {
    let (mut records, mut is_marked) = (0, false);
    look_at_log(data_dir, |_, batch| {
        records += 1;
        is_marked |= format!("{batch:?}").contains(MARK);
    })
    .await;
    (records, is_marked)
}

struct Run {
    place: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let permissions = std::fs::Permissions::from_mode(0o711);
        Self { place: tempfile::Builder::new().permissions(permissions).tempdir().expect("a temporary directory") }
    }

    fn data_dir(&self) -> PathBuf {
        self.place.path().join("data")
    }

    fn log_lines(&self) -> PathBuf {
        self.place.path().join("lines")
    }

    /// Everything embedded, and every line that it says in a file.
    fn start(&self) -> Server {
        let lines = File::options().append(true).create(true).open(self.log_lines()).expect("a file");
        let mut command = flagmint_logging(&self.data_dir(), "debug");
        command.stderr(Stdio::from(lines));
        Server::start(command)
    }

    /// Decisions enough to close the chunk with what was planted, so that its cells go into Parquet files.
    fn close_chunk(&self, url: &str, key: &str) {
        let is_parquet = |path: &PathBuf| path.extension().is_some_and(|end| end == "parquet");
        for seconds in [8, 16, 32, 64] {
            let mut load = Command::new(env!("CARGO_BIN_EXE_flagmint"));
            load.args(["load", "--url", url, "--key", key, "--connections", "16", "--contexts", "250000"]);
            load.args(["--duration", &format!("{seconds}s")]).stdout(Stdio::null());
            assert!(load.status().expect("the load runs").success());
            let deadline = Instant::now() + Duration::from_secs(12);
            while Instant::now() < deadline {
                if files(&self.data_dir().join("rollups")).iter().any(is_parquet) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        panic!("no chunk became full");
    }
}

async fn send(person: &Person, method: Method, path: &str, body: Value) {
    let request = person.http.request(method, format!("{}{path}", person.url)).bearer_auth(&person.token).json(&body);
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text().await.unwrap_or_default());
}

/// What the attributes called `badge` are.
fn badge(private: bool) -> Value {
    let operators = ["eq", "in"];
    json!({ "key": "user.badge", "label": "Badge", "type": "string", "category": "user", "operators": operators, "private": private })
}

/// Evaluates for `user` until its badge is kept as is expected: as it came, or as a pseudonym.
async fn wait_until_kept(person: &Person, shop: &Shop, user: &str, is_expected: impl Fn(&str) -> bool) -> String {
    let context = json!({ "context": { "kind": "user", "key": user, "badge": "B-77" } });
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ask = person.http.post(format!("{}/evaluator/evaluate", person.url)).header("x-api-key", &shop.key);
        assert_eq!(ask.json(&context).send().await.expect("an answer").status(), 200);
        let rows = person.get(&format!("/contexts/observed-contexts?environment_id={}", shop.environment_id)).await;
        let rows = rows["data"]["data"].as_array().expect("rows").clone();
        let badge = rows.iter().find_map(|row| row["attributes"]["badge"].as_str()).unwrap_or_default();
        if is_expected(badge) {
            return badge.to_owned();
        }
        assert!(Instant::now() < deadline, "the badge is kept as {badge:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Keys under which a user was observed, asked for by the raw key.
async fn observed(person: &Person, user: &str) -> Vec<String> {
    let answer = person.get(&format!("/contexts/observed-contexts?q={user}")).await;
    let rows = answer["data"].as_array().or_else(|| answer["data"]["data"].as_array()).expect("rows").clone();
    rows.iter().map(|row| row["key"].as_str().expect("a key").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_in_the_log_the_rollups_or_a_line_unless_the_environment_opted_in() {
    let _alone = machine().await;
    let run = Run::new();
    let mut server = run.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    shop.wait_until_served(&person.http, &server.url).await;
    person.post("/api/attributes", badge(true)).await;
    wait_until_kept(&person, &shop, "probe", |badge| badge.starts_with("p1_")).await;
    plant(&person.http, &server.url, &shop.key).await;
    plant_on_connections(&person.http, &server.url, &shop.key).await;
    run.close_chunk(&server.url, &shop.key);
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    let (records, is_in_log) = log_marked(&run.data_dir()).await;
    assert!(records > 0 && !is_in_log, "the log has the mark, or nothing");
    let (rows, is_in_rollups) = rollups_marked(&run.data_dir().join("rollups"));
    assert!(rows > 100_000 && !is_in_rollups, "the rollups have the mark, or only {rows} rows");
    assert_eq!(marked(&run.data_dir()), Vec::<PathBuf>::new(), "as raw bytes");
    let lines = std::fs::read_to_string(run.log_lines()).expect("text");
    assert!(lines.lines().count() > 10, "it said something at level debug: {lines}");
    assert!(!lines.contains(MARK), "{:?}", lines.lines().find(|line| line.contains(MARK)));
    for secret in [&shop.key[3..], "fm_asl_"] {
        assert!(!lines.contains(secret), "an SDK key or a session is in a line: {secret}");
    }
    let keeps_key = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(shop.key.len()).any(|window| window == shop.key.as_bytes())
    };
    assert_eq!(files(&run.data_dir()).into_iter().find(keeps_key), None, "the SDK key is kept");

    // With the opt-in, they are: the search above would find them.
    let server_again = run.start();
    let person = Person::sign_in(&server_again.url).await;
    let environment = format!("/projects/{}/environments/{}", shop.project_id, shop.environment_id);
    send(&person, Method::PUT, &environment, json!({ "log_raw_context": true })).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        plant(&person.http, &server_again.url, &shop.key).await;
        if observed(&person, MARK).await.iter().any(|key| key.contains(MARK)) {
            break;
        }
        assert!(Instant::now() < deadline, "raw logging does not come into force");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut server = server_again;
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(log_marked(&run.data_dir()).await.1);
    assert!(!marked(&run.data_dir()).is_empty());
    let lines = std::fs::read_to_string(run.log_lines()).expect("text");
    assert!(!lines.contains(MARK), "raw logging is about the decision log, not about lines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attribute_is_private_from_the_mark_on_in_every_project_of_its_organization() {
    let run = Run::new();
    let server = run.start();
    let person = Person::sign_in(&server.url).await;
    let shops = [Shop::open(&person).await, Shop::open_as(&person, "second").await];
    for shop in &shops {
        shop.wait_until_served(&person.http, &server.url).await;
        wait_until_kept(&person, shop, "somebody", |badge| badge == "B-77").await;
    }
    person.post("/api/attributes", badge(true)).await;
    let mut kept = Vec::new();
    for shop in &shops {
        kept.push(wait_until_kept(&person, shop, "somebody", |badge| badge.starts_with("p1_")).await);
    }
    assert_ne!(kept[0], kept[1], "each environment has a key of its own");
    // Not offered any more, it is private still; without the mark it is not.
    person.put("/api/attributes/user.badge/deactivate", json!({})).await;
    let later = Shop::open_as(&person, "third").await;
    later.wait_until_served(&person.http, &server.url).await;
    wait_until_kept(&person, &later, "somebody", |badge| badge.starts_with("p1_")).await;
    person.put("/api/attributes/user.badge", json!({ "private": false })).await;
    for shop in &shops {
        wait_until_kept(&person, shop, "somebody", |badge| badge == "B-77").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_key_leaves_nobody_to_be_found() {
    let run = Run::new();
    let mut server = run.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    shop.wait_until_served(&person.http, &server.url).await;
    let user = format!("{MARK}-user");
    let found = async |not: &[String]| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            shop.evaluate(&person.http, &server.url, &user).await.expect("an answer");
            let keys = observed(&person, &user).await;
            if keys.len() == 1 && !not.contains(&keys[0]) {
                return keys[0].clone();
            }
            assert!(Instant::now() < deadline, "observed as {keys:?}, not {not:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let before = found(&[]).await;
    assert!(before.starts_with("p1_"), "{before}");
    let path = format!("/projects/{}/environments/{}/pseudonym-key", shop.project_id, shop.environment_id);
    send(&person, Method::DELETE, &path, json!({})).await;
    // Whoever knows the raw key finds what comes from now on, and nothing of before.
    let after = found(std::slice::from_ref(&before)).await;
    assert!(after.starts_with("p1_") && after != before);
    let all = observed(&person, "").await;
    assert!(all.contains(&before) && all.contains(&after), "what was counted stays counted: {all:?}");
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    let mut numbers = std::collections::BTreeSet::new();
    look_at_log(&run.data_dir(), |header, batch| {
        for (key, number) in [(&before, 1), (&after, 2)] {
            let is_in_it = batch.contexts.iter().any(|context| format!("{}", context.key) == *key);
            assert!(!is_in_it || header.pseudonym_key == number, "a record says of {key} that it is of {header:?}");
            numbers.extend(is_in_it.then_some(number));
        }
    })
    .await;
    assert_eq!(Vec::from_iter(numbers), [1, 2], "both keys are named");
}
