//! A control plane of its own for each test, and what tests ask of it.

use std::net::SocketAddr;
use std::time::Duration;

use flagmint_control_plane::{
    ControlPlane, MeteredWrite, PlanChoice, Settings, bootstrap_admin, connect, migrate, router,
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use uuid::Uuid;

pub const EMAIL: &str = "admin@example.com";
pub const PASSWORD: &str = "correct horse battery";

/// How long anything asynchronous may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A running control plane with one organization on the unlimited plan, and its admin signed in.
pub struct Api {
    pub base: String,
    pub pool: PgPool,
    pub url: String,
    pub organization: Uuid,
    pub token: String,
    pub metered: mpsc::Receiver<MeteredWrite>,
    client: reqwest::Client,
}

/// A project with its two environments and one flag.
pub struct Sample {
    pub project: String,
    pub live: String,
    pub staging: String,
    pub flag: String,
    /// Of the flag, in order.
    pub variations: Vec<String>,
}

impl Sample {
    pub fn rules(&self) -> String {
        format!("/projects/{}/envs/{}/flags/{}/targeting-rules", self.project, self.live, self.flag)
    }

    pub fn rollouts(&self) -> String {
        format!("/projects/{}/flags/{}/environments/{}/rollouts", self.project, self.flag, self.live)
    }

    pub fn variations_path(&self) -> String {
        format!("/projects/{}/flags/{}/variations", self.project, self.flag)
    }

    pub fn segments(&self) -> String {
        format!("/projects/{}/segments", self.project)
    }
}

/// The URL of a new database, named by a UUID on the test server.
pub async fn new_database() -> String {
    let server = std::env::var("FLAGMINT_TEST_POSTGRES")
        .expect("FLAGMINT_TEST_POSTGRES holds a superuser's URL: run the tests under dev/servers/with-postgres");
    let name = format!("test_{}", Uuid::now_v7().simple());
    let options: PgConnectOptions = server.parse().unwrap();
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    sqlx::query(&format!("CREATE DATABASE {name}")).execute(&pool).await.unwrap();
    pool.close().await;
    let (address, _) = server.rsplit_once('/').expect("the URL ends with a database");
    format!("{address}/{name}")
}

/// Serves `plane` on a free port; the base URL.
pub async fn serve(plane: ControlPlane) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let service = router(plane).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    base
}

impl Api {
    pub async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    pub async fn start_with(settings: Settings) -> Self {
        let url = new_database().await;
        let pool = connect(&url).unwrap();
        migrate(&pool).await.unwrap();
        let made = bootstrap_admin(&pool, EMAIL, PASSWORD, "Example", PlanChoice::Unlimited).await.unwrap().unwrap();
        let (sender, metered) = mpsc::channel(1_000);
        let base = serve(ControlPlane::new(pool.clone(), settings, Some(sender))).await;
        let client = reqwest::Client::new();
        let mut api =
            Self { base, pool, url, organization: made.organization_id, token: String::new(), metered, client };
        api.token = api.token_of(made.user_id, made.organization_id, "admin", 900).await;
        api
    }

    /// A token as the contract says it is made, by whoever holds the installation's secret.
    pub async fn token_of(&self, user: Uuid, organization: Uuid, role: &str, lifetime_s: i64) -> String {
        let secret: Vec<u8> = self.one("SELECT access_token_secret FROM installation").await;
        let now = chrono::Utc::now().timestamp();
        let claims = json!({"sub": user, "org": organization, "role": role, "sid": Uuid::now_v7(),
            "iat": now, "exp": now + lifetime_s});
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_secret(&secret)).unwrap()
    }

    /// The token of a new member.
    pub async fn member(&self, organization: Uuid, role: &str) -> String {
        let user = Uuid::now_v7();
        self.run(&format!("INSERT INTO users (id, email, name) VALUES ('{user}', '{user}@example.com', 'x')")).await;
        self.run(&format!(
            "INSERT INTO memberships (id, organization_id, user_id, role)
             VALUES (gen_random_uuid(), '{organization}', '{user}', '{role}')"
        ))
        .await;
        self.token_of(user, organization, role, 900).await
    }

    /// The admin's token of a new organization.
    pub async fn other_organization(&self) -> String {
        let organization = Uuid::now_v7();
        self.run(&format!(
            "INSERT INTO organizations (id, name, plan_id)
             SELECT '{organization}', 'Other', id FROM plans WHERE name = 'Unlimited'"
        ))
        .await;
        self.member(organization, "admin").await
    }

    pub async fn use_plan(&self, name: &str) {
        self.run(&format!("UPDATE organizations SET plan_id = (SELECT id FROM plans WHERE name = '{name}')")).await;
    }

    pub async fn run(&self, sql: &str) {
        sqlx::query(sql).execute(&self.pool).await.unwrap();
    }

    pub async fn one<T>(&self, sql: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    pub async fn send(&self, method: Method, token: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["statusCode"], json!(status), "the status is repeated in {body}");
        (status, body)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send(Method::GET, &self.token, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(Method::POST, &self.token, path, Some(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(Method::PUT, &self.token, path, Some(&body)).await
    }

    /// `data` of what must be a 200.
    pub async fn got(&self, path: &str) -> Value {
        let (status, mut body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body["data"].take()
    }

    /// `data` of what must be a 201.
    pub async fn made(&self, path: &str, body: Value) -> Value {
        let (status, mut reply) = self.post(path, body.clone()).await;
        assert_eq!(status, 201, "{path} {body}: {reply}");
        reply["data"].take()
    }

    /// Posts what must be refused as invalid; the paths of the details.
    pub async fn refused(&self, method: Method, path: &str, body: &Value) -> Vec<String> {
        let (status, reply) = self.send(method, &self.token, path, Some(body)).await;
        assert_eq!((status, &reply["error"]), (400, &json!("validation_failed")), "{path} {body}: {reply}");
        let details = reply["details"].as_array().unwrap();
        details.iter().map(|detail| detail["path"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn project(&self, key: &str) -> Value {
        self.made("/projects", json!({"name": key, "projectKey": key})).await
    }

    /// A project with a flag of `flag_type`.
    pub async fn sample(&self, flag_type: &str) -> Sample {
        let project = self.project(&format!("p-{}", Uuid::now_v7().simple())).await;
        let id = text(&project["id"]);
        let flag = self.made(&format!("/projects/{id}/flags"), json!({"name": "Sample", "type": flag_type})).await;
        let flag = text(&flag["id"]);
        let variations = self.got(&format!("/projects/{id}/flags/{flag}/variations")).await;
        Sample {
            live: text(&project["environments"][0]["id"]),
            staging: text(&project["environments"][1]["id"]),
            variations: variations.as_array().unwrap().iter().map(|variation| text(&variation["id"])).collect(),
            project: id,
            flag,
        }
    }

    /// The published version and compiled configuration of an environment.
    pub async fn snapshot(&self, environment: &str) -> (i64, Value) {
        let sql = |column| format!("SELECT {column} FROM environment_snapshots WHERE environment_id = '{environment}'");
        let version: i64 = self.one(&sql("version")).await;
        let compiled: String = self.one(&sql("compiled")).await;
        let compiled: Value = serde_json::from_str(&compiled).unwrap();
        assert_eq!(compiled["version"], json!(version));
        (version, compiled)
    }

    pub async fn version(&self, environment: &str) -> i64 {
        self.snapshot(environment).await.0
    }

    /// How many audit entries of a type there are, all with an actor and a project.
    pub async fn audited(&self, event_type: &str) -> i64 {
        self.one(&format!(
            "SELECT count(*) FROM audit_entries WHERE event_type = '{event_type}' AND actor_id IS NOT NULL
             AND project_id IS NOT NULL AND organization_id IS NOT NULL"
        ))
        .await
    }

    pub async fn listen(&self, channel: &str) -> PgListener {
        let mut listener = PgListener::connect(&self.url).await.unwrap();
        listener.listen(channel).await.unwrap();
        listener
    }

    /// The writes metered until now. A write is metered before it is answered, so none is still under way.
    pub fn metered(&mut self) -> Vec<MeteredWrite> {
        std::iter::from_fn(|| self.metered.try_recv().ok()).collect()
    }
}

/// The payload of the next notification.
pub async fn notified(listener: &mut PgListener) -> String {
    let notification = tokio::time::timeout(PATIENCE, listener.recv()).await.expect("a notification arrives").unwrap();
    notification.payload().to_owned()
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

pub fn ids(values: &Value) -> Vec<String> {
    values.as_array().unwrap().iter().map(|value| text(&value["id"])).collect()
}
