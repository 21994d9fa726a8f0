//! One origin for everything: the services' routes side by side, and what every role serves about itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tower::ServiceBuilder;
use tower::util::MapFutureLayer;
use tower_http::catch_panic::CatchPanicLayer;

use super::health::Health;
use crate::limits::REQUEST_MAX;
use crate::runtimes::answered_by;

/// What the routes about the process itself need.
#[derive(Clone)]
pub struct Own {
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// The state of each dependency.
    pub health: Arc<Health>,
    /// The merged OpenAPI document.
    pub openapi: Arc<Value>,
}

/// Health, metrics, version and OpenAPI: without a key.
pub fn own_routes(own: Own) -> Router {
    let quick = Router::new()
        .route("/health/live", get(async || Json(json!({ "status": "live" }))))
        .route("/version", get(version));
    let slow = Router::new()
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .with_state(own);
    quick.merge(answered_by(Handle::current(), slow))
}

/// Adds what all routes share: an answer for unknown paths, a time limit, and no panic that ends a connection.
pub fn finish(router: Router) -> Router {
    router.fallback(unknown_path).method_not_allowed_fallback(wrong_method).layer(
        // One stack, since a router boxes the future of each layer that it is given.
        ServiceBuilder::new()
            .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
                error(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "something unforeseen happened")
            }))
            .layer(MapFutureLayer::new(|answer: RouteFuture<Infallible>| within(REQUEST_MAX, answer))),
    )
}

/// The answer, or that it took longer than `max`. The answer is asked first and the clock after it: those that are there at once, as nearly all
/// for flags are, need no timer.
async fn within(
    max: Duration,
    answer: impl Future<Output = Result<Response, Infallible>>,
) -> Result<Response, Infallible> {
    let answered = tokio::time::timeout(max, answer).await;
    answered.unwrap_or_else(|_| Ok(StatusCode::SERVICE_UNAVAILABLE.into_response()))
}

async fn ready(State(own): State<Own>) -> Response {
    let (is_ready, report) = own.health.look().await;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

async fn metrics(State(own): State<Own>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], own.metrics.render()).into_response()
}

async fn version() -> Json<Value> {
    Json(json!({ "name": "flagmint", "version": env!("CARGO_PKG_VERSION") }))
}

async fn openapi(State(own): State<Own>) -> Json<Value> {
    Json(Value::clone(&own.openapi))
}

async fn unknown_path() -> Response {
    error(StatusCode::NOT_FOUND, "not_found", "there is no such path")
}

async fn wrong_method() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the path does not take this method")
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "statusCode": status.as_u16(), "error": code, "message": message }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn status(answer: impl Future<Output = Response>) -> StatusCode {
        let answer = async { Ok(answer.await) };
        within(Duration::from_millis(1), answer).await.unwrap_or_else(|never| match never {}).status()
    }

    #[tokio::test]
    async fn what_takes_too_long_is_given_up() {
        assert_eq!(status(std::future::pending()).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(async { StatusCode::NO_CONTENT.into_response() }).await, StatusCode::NO_CONTENT);
    }
}
