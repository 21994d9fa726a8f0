//! Tokens, roles, hostile ids and malformed members.

use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::analytics::ANALYTICS;
use crate::support::{World, ids, token};

fn project_paths(project: impl std::fmt::Display, query: &str) -> Vec<String> {
    ANALYTICS.iter().map(|name| format!("/projects/{project}/analytics/{name}?{query}")).collect()
}

/// Every endpoint, with ids of our own.
fn all_paths() -> Vec<String> {
    let mut paths = project_paths(ids::PROJECT, "");
    paths.push(format!("/flags/{}/metrics", ids::CHECKOUT));
    paths.extend(["/contexts/observed-contexts", "/billing/usage", "/audit/reconciliation"].map(str::to_owned));
    paths
}

#[tokio::test]
async fn without_a_good_token_nothing_is_told() {
    let world = World::new(10).await;
    let expired = format!("Bearer {}", token(ids::ORGANIZATION, "admin", 1_000_000));
    for path in all_paths() {
        for (authorization, error) in [("", "unauthorized"), ("Bearer x", "unauthorized"), (&*expired, "token_expired")]
        {
            let (status, body) = world.get_with(authorization, &path).await;
            assert_eq!((status, &body["error"]), (StatusCode::UNAUTHORIZED, &json!(error)), "{path} {body}");
            assert_eq!(body["statusCode"], 401);
        }
    }
}

#[tokio::test]
async fn each_row_has_its_lowest_role() {
    let world = World::new(11).await;
    for path in all_paths() {
        let lowest = match &*path {
            "/billing/usage" => 1,
            "/audit/reconciliation" => 2,
            _ => 0,
        };
        for (rank, role) in ["viewer", "editor", "admin"].into_iter().enumerate() {
            let expected = if rank < lowest { StatusCode::FORBIDDEN } else { StatusCode::OK };
            let (status, body) = world.get_as(ids::ORGANIZATION, role, &path).await;
            assert_eq!(status, expected, "{role} {path} {body}");
        }
    }
}

#[tokio::test]
async fn what_belongs_to_others_does_not_exist() {
    let world = World::new(12).await;
    let mut paths = Vec::new();
    for project in [ids::OTHER_PROJECT, Uuid::from_u128(0xFF), ids::LIVE, Uuid::nil()] {
        paths.extend(project_paths(project, ""));
        paths.push(format!("/contexts/observed-contexts?project_id={project}"));
    }
    for environment in [ids::OTHER_LIVE, ids::EMPTY_LIVE, Uuid::from_u128(0xFF), ids::PROJECT] {
        paths.extend(project_paths(ids::PROJECT, &format!("environment_id={environment}")));
        paths.push(format!("/flags/{}/metrics?environment_id={environment}", ids::CHECKOUT));
        paths.push(format!("/contexts/observed-contexts?project_id={}&environment_id={environment}", ids::PROJECT));
    }
    for flag in [ids::OTHER_FLAG, Uuid::from_u128(0xFF), ids::ON, Uuid::nil()] {
        paths.push(format!("/flags/{flag}/metrics"));
    }
    paths.push(format!("/contexts/observed-contexts?environment_id={}", ids::OTHER_LIVE));
    for path in paths {
        let (status, body) = world.get_as(ids::ORGANIZATION, "admin", &path).await;
        assert_eq!((status, &body["error"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{path} {body}");
    }
    // And the other way round: nothing of ours, by any endpoint.
    for path in all_paths().into_iter().filter(|path| path.contains("/projects/") || path.contains("/flags/")) {
        assert_eq!(world.get_as(ids::OTHER_ORGANIZATION, "admin", &path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let (_, usage) = world.get_as(ids::OTHER_ORGANIZATION, "admin", "/billing/usage").await;
    assert_eq!((&usage["apiCalls"]["used"], &usage["observedContexts"]["used"]), (&json!(0), &json!(0)));
    let (_, audit) = world.get_as(ids::OTHER_ORGANIZATION, "admin", "/audit/reconciliation").await;
    assert_eq!((&audit["data"]["hours"], &audit["data"]["holds"]), (&json!([]), &json!(true)));
}

#[tokio::test]
async fn malformed_members_are_named() {
    let world = World::new(13).await;
    let check = async |path: &str, members: &[&str]| {
        let (status, body) = world.get_as(ids::ORGANIZATION, "admin", path).await;
        assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("validation_failed")), "{path} {body}");
        let named: Vec<&Value> = body["details"].as_array().unwrap().iter().map(|detail| &detail["path"]).collect();
        assert_eq!(json!(named), json!(members), "{path}");
    };
    let period = [
        ("from=x&to=y&granularity=z&environment_id=1", &["granularity", "to", "from", "environment_id"][..]),
        ("from=2026-03-02&to=2026-03-01", &["from"]),
        ("from=2025-01-01", &["from"]),
        ("from=2026-01-01&granularity=hour", &["from"]),
        ("from=2026-03-01%00", &["from"]),
        ("environment_id=%27%20OR%201%3D1", &["environment_id"]),
    ];
    for (query, members) in period {
        for path in project_paths(ids::PROJECT, query) {
            check(&path, members).await;
        }
        check(&format!("/flags/{}/metrics?{query}", ids::CHECKOUT), members).await;
    }
    for limit in ["0", "101", "-1", "x", "", "99999999999999999999"] {
        check(&format!("/projects/{}/analytics/top-flags?limit={limit}", ids::PROJECT), &["limit"]).await;
        check(&format!("/contexts/observed-contexts?limit={limit}"), &["limit"]).await;
    }
    let long = "x".repeat(513);
    for (query, member) in [
        ("page=0", "page"),
        ("offset=-1", "offset"),
        ("sortBy=profile", "sortBy"),
        ("sortDirection=up", "sortDirection"),
        ("project_id=1", "project_id"),
        ("environment_id=1", "environment_id"),
        (&*format!("q={long}"), "q"),
        ("from=tomorrow", "from"),
    ] {
        check(&format!("/contexts/observed-contexts?{query}"), &[member]).await;
    }
    check("/audit/reconciliation?to=never", &["to"]).await;
    check("/flags/1/metrics", &["flagId"]).await;
    check("/projects/x%2Fy/analytics-metrics", &["projectId"]).await;
    // Unknown members are ignored.
    let path = format!("/flags/{}/metrics?colour=red&limit=x&from=2026-03-14", ids::CHECKOUT);
    assert_eq!(world.get_as(ids::ORGANIZATION, "viewer", &path).await.0, StatusCode::OK);
}
