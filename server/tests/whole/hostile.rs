//! Hostile and broken clients of the request/response endpoints: what each is answered, that the process lives, and that what was refused
//! is counted.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Person, Place, Server, Shop};

/// Sends bytes as they are; everything that comes back.
pub async fn raw(url: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.expect("a connection");
    // The server may refuse before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(crate::support::PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A counter or gauge of `/metrics`, by its name with labels; 0 if it is not there.
pub async fn metric(person: &Person, name: &str) -> f64 {
    let answer = person.http.get(format!("{}/metrics", person.url)).send().await.expect("an answer");
    let text = answer.text().await.expect("text");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_default()
}

const EVALUATE: &str = "/evaluator/evaluate";
const ONE: &str = "/ofrep/v1/evaluate/flags/checkout";
const ALL: &str = "/ofrep/v1/evaluate/flags";

/// One request of the table.
struct Case {
    what: &'static str,
    path: String,
    headers: Vec<u8>,
    body: Vec<u8>,
    status: u16,
    /// What the body says, somewhere.
    says: &'static str,
}

fn case(what: &'static str, path: &str, body: impl Into<Vec<u8>>, status: u16, says: &'static str) -> Case {
    Case { what, path: path.to_owned(), headers: Vec::new(), body: body.into(), status, says }
}

impl Case {
    fn header(mut self, line: &[u8]) -> Self {
        self.headers.extend_from_slice(line);
        self.headers.extend_from_slice(b"\r\n");
        self
    }

    fn bytes(&self, key: &str) -> Vec<u8> {
        let mut request = format!("POST {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n", self.path).into_bytes();
        if !self.headers.to_ascii_lowercase().windows(10).any(|window| window == b"x-api-key:") {
            request.extend_from_slice(format!("x-api-key: {key}\r\n").as_bytes());
        }
        request.extend_from_slice(&self.headers);
        request.extend_from_slice(format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes());
        request.extend_from_slice(&self.body);
        request
    }
}

fn context(text: &str) -> String {
    format!("{{\"context\":{text}}}")
}

fn bodies() -> Vec<Case> {
    let deep = context(&format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000)));
    let deep_objects = context(&format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)));
    let huge = context(&format!("{{\"a\":\"{}\"}}", "x".repeat(70_000)));
    let many: String = (0..4000).map(|number| format!("\"a{number}\":{number},")).collect();
    let mut cases = Vec::new();
    for path in [EVALUATE, ONE, ALL] {
        let parse = if path == EVALUATE { "parse_error" } else { "PARSE_ERROR" };
        let invalid = if path == EVALUATE { "invalid_context" } else { "INVALID_CONTEXT" };
        cases.extend([
            case("empty", path, "", 400, parse),
            case("no JSON", path, "context=1", 400, parse),
            case("half", path, "{\"context\":{\"a\"", 400, parse),
            case("bytes that are no UTF-8", path, b"{\"context\":{\"a\":\"\xff\xfe\"}}".as_slice(), 400, parse),
            case("lists 10,000 deep", path, deep.clone(), 400, parse),
            case("objects 10,000 deep", path, deep_objects.clone(), 400, parse),
            case("a lone surrogate", path, context("{\"a\":\"\\ud800\"}"), 400, parse),
            case("a number beyond the doubles", path, context("{\"a\":1e400}"), 400, parse),
            case("a list for a context", path, context("[]"), 400, invalid),
            case("a text for a context", path, context("\"x\""), 400, invalid),
            case("too large", path, huge.clone(), 413, "payload_too_large"),
            case("__proto__", path, context("{\"__proto__\":{\"key\":\"u\"},\"constructor\":1}"), 200, "checkout"),
            case("duplicate members", path, context("{\"a\":1,\"a\":{\"b\":2,\"b\":3}}"), 200, "checkout"),
            case(
                "numbers beyond 2^53",
                path,
                context("{\"a\":9007199254740993,\"b\":1e308,\"c\":-0}"),
                200,
                "checkout",
            ),
            case("NUL in a key", path, context("{\"kind\":\"user\",\"key\":\"a\\u0000b\"}"), 200, "checkout"),
            case("thousands of members", path, context(&format!("{{{many}\"z\":1}}")), 200, "checkout"),
        ]);
    }
    cases
}

fn headers() -> Vec<Case> {
    let encoded = "eyJraW5kIjoidXNlciIsImtleSI6ImgifQ=="; // {"kind":"user","key":"h"}
    vec![
        case("a context header that is no base64", EVALUATE, "{}", 400, "x-flagmint-context")
            .header(b"x-flagmint-context: %%%"),
        case("a context header that is no JSON", EVALUATE, "{}", 400, "x-flagmint-context")
            .header(b"x-flagmint-context: eHg="),
        case("a context header that is no UTF-8", EVALUATE, "{}", 400, "x-flagmint-context")
            .header(b"x-flagmint-context: \xff\xfe"),
        case("header and body that disagree", EVALUATE, context("{\"kind\":\"user\",\"key\":\"b\"}"), 200, "checkout")
            .header(format!("x-flagmint-context: {encoded}").as_bytes()),
        case("identity that is no UTF-8", EVALUATE, "{}", 200, "checkout").header(b"user-agent: \xff\xfe/1"),
        case("a bypass token that is none", EVALUATE, "{}", 200, "checkout").header(b"x-bypass-rate-limit: \xff"),
        case("a key that is no UTF-8", EVALUATE, "{}", 401, "invalid_api_key").header(b"x-api-key: ff_\xff"),
        case("a key that is no UTF-8, by OFREP", ALL, context("{}"), 401, "").header(b"X-API-Key: ff_\xff"),
        case("a bearer that is no UTF-8", ALL, context("{}"), 401, "")
            .header(b"x-api-key: \r\nauthorization: Bearer \xff"),
        case("a query that is no UTF-8", &format!("{ALL}?flagConfigEtag=%FF%FE"), context("{}"), 200, "checkout"),
        case("a flag key that is no UTF-8", &format!("{ALL}/%FF%FE"), context("{}"), 404, "FLAG_NOT_FOUND"),
        case(
            "a flag key of 8,000 characters",
            &format!("{ALL}/{}", "k".repeat(8000)),
            context("{}"),
            404,
            "FLAG_NOT_FOUND",
        ),
        case("an ETag that is none", ALL, context("{}"), 200, "checkout").header(b"if-none-match: \"\xff, W/"),
        case("a head of 500 kB", EVALUATE, "{}", 431, "").header(format!("x-a: {}", "x".repeat(500_000)).as_bytes()),
        case("200 headers", EVALUATE, "{}", 431, "").header("a: 1\r\n".repeat(200).trim_end().as_bytes()),
        case("a path of 70 kB", &format!("{ALL}/{}", "k".repeat(70_000)), context("{}"), 414, ""),
    ]
}

async fn refused(person: &Person) -> BTreeMap<u16, f64> {
    let mut counts = BTreeMap::new();
    for status in [400, 401, 404, 413] {
        let name = format!("flagmint_evaluator_refused_total{{status=\"{status}\"}} ");
        counts.insert(status, metric(person, &name).await);
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_is_answered_counted_and_survived() {
    let place = Place::new().await;
    let mut server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    shop.wait_until_served(&person.http, &server.url).await;
    let mut expected = refused(&person).await;
    for case in bodies().into_iter().chain(headers()) {
        let answer = raw(&server.url, &case.bytes(&shop.key)).await;
        let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        assert_eq!(status, case.status, "{} to {:.60}: {answer:.300}", case.what, case.path);
        assert!(body.contains(case.says), "{} to {:.60}: {answer:.300}", case.what, case.path);
        let is_ours = status != 431 && status != 414;
        assert!(!is_ours || head.contains("access-control-allow-origin: *"), "{}: {head}", case.what);
        if let Some(count) = expected.get_mut(&status) {
            *count += 1.0;
        }
        assert!(server.child.try_wait().expect("a child").is_none(), "{} ended the process", case.what);
    }
    assert_eq!(refused(&person).await, expected);
    let (status, values) = shop.evaluate(&person.http, &server.url, "u").await.expect("an answer");
    assert_eq!((status, values), (200, json!({ "checkout": true })));
}

async fn status_of(person: &Person, path: &str, key: &str) -> (u16, Value) {
    let request = person.http.post(format!("{}{path}", person.url)).header("x-api-key", key);
    let answer = request.json(&json!({ "context": { "targetingKey": "u" } })).send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_open_their_own_environment_only_and_end_when_they_end() {
    let place = Place::new().await;
    let server: Server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    shop.wait_until_served(&person.http, &server.url).await;
    let other = person.post("/projects", json!({ "name": "Other", "projectKey": "other" })).await;
    let other_id = other["id"].as_str().expect("an id");
    let environments = person.get(&format!("/projects/{other_id}/environments")).await;
    let ask = json!({ "name": "other", "environment_id": environments["data"][0]["id"], "rate_limit_per_minute": 0 });
    let key_of_other = person.post(&format!("/api-keys/{other_id}"), ask).await["key"].take();
    let key_of_other = key_of_other.as_str().expect("a key");
    let soon = (chrono::Utc::now() + chrono::Duration::seconds(3)).to_rfc3339();
    let ask = json!({ "name": "ends", "environment_id": shop.environment_id, "expires_at": soon });
    let ends = person.post(&format!("/api-keys/{}", shop.project_id), ask).await;
    let ends = ends["key"].as_str().expect("a key");

    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    let until = async |key: &str, expected: u16| {
        while status_of(&person, ALL, key).await.0 != expected {
            assert!(std::time::Instant::now() < deadline, "not {expected}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    until(key_of_other, 200).await;
    assert_eq!(status_of(&person, ONE, key_of_other).await.0, 404, "the flag is another environment's");
    assert_eq!(status_of(&person, ALL, key_of_other).await.1["flags"], json!([]));
    assert_eq!(status_of(&person, EVALUATE, key_of_other).await, (200, json!({})));
    until(ends, 401).await;
    assert_eq!(status_of(&person, EVALUATE, ends).await.1["error"], "invalid_api_key");
    assert_eq!(status_of(&person, ONE, &shop.key).await.0, 200);

    let keys = person.get(&format!("/api-keys/{}", shop.project_id)).await;
    let own = keys["data"]["data"].as_array().expect("a list").iter().find(|key| key["name"] == "test");
    let id = own.expect("the shop's")["id"].as_str().expect("an id");
    let path = format!("{}/api-keys/{}/{id}", server.url, shop.project_id);
    let revoked = person.http.delete(path).bearer_auth(&person.token).send().await.expect("an answer");
    assert!(revoked.status().is_success());
    until(&shop.key, 401).await;
    for path in [EVALUATE, ONE, ALL] {
        assert_eq!(status_of(&person, path, &shop.key).await.0, 401, "{path}");
    }
}
