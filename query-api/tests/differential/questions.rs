//! Random questions to every endpoint, and their answers as text.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use chrono::{DateTime, SecondsFormat};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;
use tower::ServiceExt;
use uuid::Uuid;

use crate::log::{self, ENVIRONMENTS, FLAGS_PER_PROJECT, PROJECTS};

/// A path with its query: whose it is stands first, as a project's number.
pub fn random(random: &mut StdRng, end_us: i64) -> String {
    let project = random.random_range(0..PROJECTS);
    let flag = log::flag(random.random_range(0..FLAGS_PER_PROJECT) * PROJECTS / 4 / PROJECTS * PROJECTS + project);
    let analytics = ["metrics", "evaluations", "response-time", "top-flags", "distribution"];
    let which = random.random_range(0..10);
    let path = match which {
        0..5 => format!("/projects/{}/analytics/{}", log::project(project), analytics[which]),
        5 | 6 => format!("/flags/{flag}/metrics"),
        7 => "/contexts/observed-contexts".to_owned(),
        8 => "/billing/usage".to_owned(),
        _ => "/audit/reconciliation".to_owned(),
    };
    let mut members = times(random, end_us);
    if which < 7 && random.random_bool(0.5) {
        members.push(format!("granularity={}", ["hour", "day"][random.random_range(0..2)]));
    }
    if which < 8 && random.random_bool(0.4) {
        // Of this project or, sometimes, of another.
        let own = random.random_range(0..ENVIRONMENTS / PROJECTS) * PROJECTS + project;
        members.push(format!("environment_id={}", log::environment(own)));
    }
    if which == 3 {
        members.push(format!("limit={}", random.random_range(1..20)));
    }
    if which == 7 {
        members.extend(search(random, project));
    }
    format!("{project} {path}?{}", members.join("&"))
}

/// None, a few days, a few hours to the minute, or a wrong order.
fn times(random: &mut StdRng, end_us: i64) -> Vec<String> {
    let time = |us: i64| {
        DateTime::from_timestamp_micros(us).unwrap().to_rfc3339_opts(SecondsFormat::Secs, true).replace('+', "%2B")
    };
    let back_us = |random: &mut StdRng, hours: i64| random.random_range(1..hours * 60) * 60_000_000;
    match random.random_range(0..10) {
        0..3 => vec![],
        3 | 4 => {
            let from = DateTime::from_timestamp_micros(end_us - back_us(random, 80)).unwrap().date_naive();
            vec![format!("from={from}")]
        }
        5..9 => {
            let to_us = end_us - back_us(random, 40) + 3_600_000_000;
            vec![format!("from={}", time(to_us - back_us(random, 40))), format!("to={}", time(to_us))]
        }
        _ => vec![format!("from={}", time(end_us)), format!("to={}", time(end_us - back_us(random, 10)))],
    }
}

fn search(random: &mut StdRng, project: u64) -> Vec<String> {
    let mut members = vec![];
    if random.random_bool(0.5) {
        members.push(format!("project_id={}", log::project(project)));
    }
    if random.random_bool(0.4) {
        members.push(format!(
            "q={}",
            ["b%C3%96hm-1", "free", "Pro", "nothing at all"][random.random_range(0..4)].replace(' ', "%20")
        ));
    }
    if random.random_bool(0.3) {
        members.push(format!("kind={}", ["user", "organization"][random.random_range(0..2)]));
    }
    if random.random_bool(0.3) {
        members.push(format!("source={}", ["SDK", "API"][random.random_range(0..2)]));
    }
    let fields = ["last_seen_at", "first_seen_at", "evaluations", "key", "kind"];
    members.push(format!("sortBy={}", fields[random.random_range(0..fields.len())]));
    members.push(format!("sortDirection={}", ["asc", "desc"][random.random_range(0..2)]));
    members.push(format!("limit={}&page={}", random.random_range(1..50), random.random_range(1..4)));
    members
}

/// Status and body.
pub async fn ask(api: &Router, question: &str, end_us: i64) -> String {
    let (project, path) = question.split_once(' ').unwrap();
    let organization = log::organization(project.parse().unwrap());
    let claims = json!({
        "sub": Uuid::nil(), "org": organization, "role": "admin", "sid": Uuid::nil(), "exp": end_us / 1_000_000 + 900, "iat": 0,
    });
    let key = EncodingKey::from_secret(&crate::postgres::SECRET);
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    let request = Request::get(path).header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
    let response = api.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    format!("{status} {}", String::from_utf8_lossy(&body))
}
