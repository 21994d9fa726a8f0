//! USR-1, USR-2 and what a token lets one do.

use std::time::Duration;

use flagmint_control_plane::{PlanChoice, Settings, bootstrap_admin};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::support::{Api, EMAIL, PASSWORD, text};

#[tokio::test]
async fn signs_in_and_the_token_works() {
    let api = Api::start().await;
    let (status, reply) = api.post("/users/login", json!({"email": " Admin@Example.com", "password": PASSWORD})).await;
    assert_eq!(status, 200, "{reply}");
    let data = &reply["data"];
    assert_eq!(data["expiresIn"], json!(900));
    assert_eq!(data["user"]["email"], json!(EMAIL));
    assert_eq!(data["user"]["role"], json!("admin"));
    assert_eq!(data["user"]["organization_id"], json!(api.organization));
    let token = text(&data["accessToken"]);
    assert_eq!(api.send(Method::GET, &token, "/projects", None).await.0, 200);
    let stored: i64 = api.one("SELECT count(*) FROM refresh_tokens WHERE length(token_hash) = 32").await;
    assert_eq!(stored, 1);
    let audited: i64 = api.one("SELECT count(*) FROM audit_entries WHERE event_type = 'user.login_success'").await;
    assert_eq!(audited, 1);
}

#[tokio::test]
async fn unknown_mail_and_bad_password_are_told_the_same() {
    let api = Api::start().await;
    let known = api.post("/users/login", json!({"email": EMAIL, "password": "wrong password"})).await;
    let unknown = api.post("/users/login", json!({"email": "nobody@example.com", "password": "wrong password"})).await;
    assert_eq!(known.0, 401);
    assert_eq!(known, unknown);
    let audited: i64 = api.one("SELECT count(*) FROM audit_entries WHERE event_type = 'user.login_failed'").await;
    assert_eq!(audited, 1);
}

#[tokio::test]
async fn the_sixth_attempt_in_a_minute_is_refused_even_if_right() {
    let api = Api::start().await;
    for _ in 0..5 {
        assert_eq!(api.post("/users/login", json!({"email": EMAIL, "password": "wrong password"})).await.0, 401);
    }
    let body = json!({"email": EMAIL, "password": PASSWORD});
    let response = reqwest::Client::new().post(format!("{}/users/login", api.base)).json(&body).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 429);
    let wait_s: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=65).contains(&wait_s), "{wait_s}");
    // Another mail has a limit of its own.
    assert_eq!(api.post("/users/login", json!({"email": "x@example.com", "password": "y"})).await.0, 401);
}

#[tokio::test]
async fn behind_a_proxy_each_client_has_its_own_limit() {
    let api = Api::start_with(Settings { trust_proxy: true, ..Settings::default() }).await;
    let attempt = async |forwarded: &str| {
        let body = json!({"email": EMAIL, "password": "wrong password"});
        let request = reqwest::Client::new().post(format!("{}/users/login", api.base)).json(&body);
        request.header("x-forwarded-for", forwarded).send().await.unwrap().status().as_u16()
    };
    for invented in 0..5 {
        assert_eq!(attempt(&format!("10.0.0.{invented}, 192.0.2.1")).await, 401);
    }
    assert_eq!(attempt("10.0.0.9, 192.0.2.1").await, 429);
    assert_eq!(attempt("192.0.2.2").await, 401);
}

#[tokio::test]
async fn refresh_tokens_are_replaced_and_a_replay_ends_the_session() {
    let api = Api::start().await;
    let (_, reply) = api.post("/users/login", json!({"email": EMAIL, "password": PASSWORD})).await;
    let refresh = async |token: &str| api.post("/users/refresh-token", json!({"refreshToken": token})).await;
    let first = text(&reply["data"]["refreshToken"]);
    let (status, reply) = refresh(&first).await;
    assert_eq!(status, 200, "{reply}");
    let second = text(&reply["data"]["refreshToken"]);
    assert_ne!(first, second);
    assert_eq!(api.send(Method::GET, &text(&reply["data"]["accessToken"]), "/projects", None).await.0, 200);
    assert_eq!(refresh(&first).await.0, 401); // The replay.
    assert_eq!(refresh(&second).await.0, 401); // Its session is over.
    for unknown in ["", "fmr_", "x"] {
        assert_eq!(refresh(unknown).await.0, 401);
    }
}

#[tokio::test]
async fn of_two_who_come_with_one_token_one_gets_in_and_the_session_ends() {
    let api = Api::start().await;
    let (_, reply) = api.post("/users/login", json!({"email": EMAIL, "password": PASSWORD})).await;
    let body = json!({"refreshToken": reply["data"]["refreshToken"]});
    let (a, b) =
        tokio::join!(api.post("/users/refresh-token", body.clone()), api.post("/users/refresh-token", body.clone()));
    let mut statuses = [a.0, b.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401]);
    let ended: bool = api.one("SELECT ended_at IS NOT NULL FROM sessions").await;
    assert!(ended);
}

#[tokio::test]
async fn tokens_end() {
    let short = Settings { refresh_token_lifetime: Duration::ZERO, ..Settings::default() };
    let api = Api::start_with(short).await;
    let (_, reply) = api.post("/users/login", json!({"email": EMAIL, "password": PASSWORD})).await;
    let (status, _) = api.post("/users/refresh-token", json!({"refreshToken": reply["data"]["refreshToken"]})).await;
    assert_eq!(status, 401);

    let expired = api.token_of(Uuid::now_v7(), api.organization, "admin", -1).await;
    let (status, reply) = api.send(Method::GET, &expired, "/projects", None).await;
    assert_eq!((status, &reply["error"]), (401, &json!("token_expired")));
    let (status, reply) = api.send(Method::GET, "nonsense", "/projects", None).await;
    assert_eq!((status, &reply["error"]), (401, &json!("unauthorized")));
    let bare = reqwest::get(format!("{}/projects", api.base)).await.unwrap();
    assert_eq!(bare.status().as_u16(), 401);
}

#[tokio::test]
async fn a_role_changed_is_in_the_next_token() {
    let api = Api::start().await;
    let (_, reply) = api.post("/users/login", json!({"email": EMAIL, "password": PASSWORD})).await;
    api.run("UPDATE memberships SET role = 'viewer'").await;
    let (_, reply) = api.post("/users/refresh-token", json!({"refreshToken": reply["data"]["refreshToken"]})).await;
    let (status, reply) = api.send(Method::GET, &text(&reply["data"]["accessToken"]), "/projects", None).await;
    assert_eq!((status, &reply["error"]), (403, &json!("forbidden")));
}

#[tokio::test]
async fn six_hundred_requests_a_minute_are_enough_for_one_user() {
    let api = Api::start().await;
    let viewer = api.member(api.organization, "viewer").await;
    let mut refused = 0;
    for _ in 0..601 {
        refused += u32::from(api.send(Method::GET, &viewer, "/projects", None).await.0 == 429);
    }
    assert_eq!(refused, 1);
    assert_eq!(api.get("/projects").await.0, 200);
}

#[tokio::test]
async fn validation() {
    let api = Api::start().await;
    let long = "x".repeat(300);
    for (body, paths) in [
        (json!({}), vec!["email"]),
        (json!({"email": EMAIL}), vec!["password"]),
        (json!({"email": 1, "password": "x"}), vec!["email"]),
        (json!({"email": "", "password": ""}), vec!["email", "password"]),
        (json!({"email": long, "password": long}), vec!["email", "password"]),
        (json!({"email": "a\u{0}", "password": "x"}), vec!["email"]),
    ] {
        assert_eq!(api.refused(Method::POST, "/users/login", &body).await, paths, "{body}");
    }
}

#[tokio::test]
async fn the_first_user_is_made_once() {
    let api = Api::start().await;
    let again = bootstrap_admin(&api.pool, "b@example.com", PASSWORD, "B", PlanChoice::Unlimited).await.unwrap();
    assert_eq!(again, None);
    let users: i64 = api.one("SELECT count(*) FROM users").await;
    assert_eq!(users, 1);
    api.run("TRUNCATE audit_entries, memberships, sessions, refresh_tokens, users CASCADE").await;
    for (email, password, plan) in [
        ("nobody", PASSWORD, PlanChoice::Unlimited),
        ("a@example.com", "short", PlanChoice::Unlimited),
        ("a@example.com", PASSWORD, PlanChoice::Named("None".to_owned())),
    ] {
        bootstrap_admin(&api.pool, email, password, "A", plan).await.unwrap_err();
    }
    let (a, b) = tokio::join!(
        bootstrap_admin(&api.pool, "a@example.com", PASSWORD, "A", PlanChoice::Named("Free".to_owned())),
        bootstrap_admin(&api.pool, "b@example.com", PASSWORD, "B", PlanChoice::Unlimited),
    );
    assert_eq!([a.unwrap(), b.unwrap()].iter().flatten().count(), 1);
}
