//! A real `flagmint up` as a child process, and a person who uses it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Connection as _;

pub const PASSWORD: &str = "correct horse battery staple";
pub const EMAIL: &str = "ada@example.org";

/// How long anything in these tests may take before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The right to load the machine: tests that do must not starve each other, or they measure that.
pub async fn machine() -> tokio::sync::MutexGuard<'static, ()> {
    static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    MACHINE.lock().await
}

/// A running server; killed when dropped.
pub struct Server {
    pub child: Child,
    pub url: String,
}

/// The binary with options that every test wants.
pub fn flagmint(data_dir: &Path) -> Command {
    flagmint_logging(data_dir, "warn")
}

/// The same with another level of what it says on standard error.
pub fn flagmint_logging(data_dir: &Path, level: &str) -> Command {
    let password = data_dir.with_extension("password");
    std::fs::write(&password, PASSWORD).expect("a password file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagmint"));
    command.args(["up", "--listen", "127.0.0.1:0", "--admin-email", EMAIL, "--log-level", level]);
    command.arg("--data-dir").arg(data_dir).arg("--admin-password-file").arg(password);
    command
}

impl Server {
    /// Starts and waits until it says where it serves.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("flagmint starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a first line");
        let url = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        assert!(url.starts_with("http://"), "flagmint did not start: {line:?}");
        Self { child, url }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        // SAFETY: the child is ours and has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "flagmint did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory and a database for one server after the other.
pub struct Place {
    directory: tempfile::TempDir,
    pub database: String,
}

impl Place {
    pub async fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory"), database: database().await }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn start(&self) -> Server {
        self.start_in(&self.data_dir())
    }

    /// The same database with data elsewhere.
    pub fn start_in(&self, data_dir: &Path) -> Server {
        let mut command = flagmint(data_dir);
        command.args(["--postgres", &self.database]);
        Server::start(command)
    }
}

/// Somebody signed in.
pub struct Person {
    pub http: reqwest::Client,
    pub url: String,
    pub token: String,
}

impl Person {
    pub async fn sign_in(url: &str) -> Self {
        let http = reqwest::Client::new();
        let body = json!({ "email": EMAIL, "password": PASSWORD });
        let answer = http.post(format!("{url}/users/login")).json(&body).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        let token = answer["data"]["accessToken"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        Self { http, url: url.to_owned(), token }
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.url)).json(&body);
        self.ask(path, request).await["data"].take()
    }

    pub async fn put(&self, path: &str, body: Value) -> Value {
        let request = self.http.put(format!("{}{path}", self.url)).json(&body);
        self.ask(path, request).await["data"].take()
    }

    pub async fn get(&self, path: &str) -> Value {
        self.ask(path, self.http.get(format!("{}{path}", self.url))).await
    }

    async fn ask(&self, path: &str, request: reqwest::RequestBuilder) -> Value {
        let answer = request.bearer_auth(&self.token).send().await.expect("an answer");
        assert!(
            answer.status().is_success(),
            "{path}: {} {}",
            answer.status(),
            answer.text().await.unwrap_or_default()
        );
        answer.json().await.expect("JSON")
    }

    /// Asks until `accept` is satisfied.
    pub async fn get_until(&self, path: &str, accept: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path).await;
            if accept(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{path} stayed {answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A project with one flag and a key without a limit.
pub struct Shop {
    pub flag_id: String,
    pub project_id: String,
    pub environment_id: String,
    pub key: String,
}

impl Shop {
    pub async fn open(person: &Person) -> Self {
        Self::open_as(person, "shop").await
    }

    /// A shop beside others.
    pub async fn open_as(person: &Person, project_key: &str) -> Self {
        let project = person.post("/projects", json!({ "name": "Shop", "projectKey": project_key })).await;
        let text = |value: &Value, member: &str| value[member].as_str().expect("text").to_owned();
        let project_id = text(&project, "id");
        let environments = person.get(&format!("/projects/{project_id}/environments")).await;
        let live =
            environments["data"].as_array().expect("a list").iter().find(|one| one["slug"] == "live").expect("live");
        let environment_id = text(live, "id");
        let flag = json!({ "name": "Checkout", "key": "checkout", "type": "boolean", "analytics_enabled": true });
        let flag_id = text(&person.post(&format!("/projects/{project_id}/flags"), flag).await, "id");
        let ask = json!({ "name": "test", "environment_id": environment_id, "rate_limit_per_minute": 0 });
        let key = text(&person.post(&format!("/api-keys/{project_id}"), ask).await, "key");
        Self { flag_id, project_id, environment_id, key }
    }

    /// Asks for all flags of one user; the status and the reply.
    pub async fn evaluate(
        &self,
        http: &reqwest::Client,
        url: &str,
        user: &str,
    ) -> Result<(u16, Value), reqwest::Error> {
        let body = json!({ "context": { "kind": "user", "key": user } });
        let answer =
            http.post(format!("{url}/evaluator/evaluate")).header("x-api-key", &self.key).json(&body).send().await?;
        let status = answer.status().as_u16();
        Ok((status, answer.json().await?))
    }

    /// Evaluates until the flag is served: its configuration is in force.
    pub async fn wait_until_served(&self, http: &reqwest::Client, url: &str) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        for asked in 1.. {
            if let Ok((200, values)) = self.evaluate(http, url, "first").await
                && values["checkout"].is_boolean()
            {
                return asked;
            }
            assert!(Instant::now() < deadline, "the flag is not served");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        unreachable!("the loop ends by itself")
    }
}

/// A fresh database on the Postgres that the tests are given.
pub async fn database() -> String {
    let server = std::env::var("FLAGMINT_TEST_POSTGRES")
        .expect("run `make test`, or `dev/servers/with-postgres cargo test …`: these tests need a PostgreSQL");
    let name = format!("flagmint_{:016x}", rand::random::<u64>());
    let (base, _) = server.rsplit_once('/').expect("a URL with a database");
    let mut connection = sqlx::PgConnection::connect(&server).await.expect("the test server");
    sqlx::query(&format!("CREATE DATABASE {name}")).execute(&mut connection).await.expect("a new database");
    format!("{base}/{name}")
}

/// Lets nobody into the database any more and ends who is in, or lets everybody in again.
pub async fn allow_connections(database: &str, allow: bool) {
    let (base, name) = database.rsplit_once('/').expect("a URL with a database");
    let mut connection =
        sqlx::PgConnection::connect(&format!("{base}/postgres")).await.expect("the server's own database");
    let alter = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allow}");
    sqlx::query(&alter).execute(&mut connection).await.expect("a known database");
    if !allow {
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query(terminate).bind(name).execute(&mut connection).await.expect("backends end");
    }
}
