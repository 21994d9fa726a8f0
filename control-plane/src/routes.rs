//! Every route of the control plane, and the OpenAPI document of the same.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use crate::error::ApiError;
use crate::limits::MAX_BODY_BYTES;
use crate::{
    ControlPlane, attributes, environments, flags, keys, projects, rollouts, rules, segments, users, variations,
};

/// The control plane's routes. For rate limits per address, serve with
/// [`into_make_service_with_connect_info`](Router::into_make_service_with_connect_info).
pub fn router(state: ControlPlane) -> Router {
    Router::new()
        .route("/users/login", post(users::login::login))
        .route("/users/refresh-token", post(users::refresh_token::refresh_token))
        .route("/projects", post(projects::create::create).get(projects::list::list))
        .route("/projects/{projectId}", get(projects::get::get))
        .route("/projects/{projectId}/environments", get(projects::list_environments::list_environments))
        .route("/projects/{projectId}/environments/{envId}", put(environments::update::update))
        .route(
            "/projects/{projectId}/environments/{envId}/pseudonym-key",
            delete(environments::destroy_pseudonym_key::destroy_pseudonym_key),
        )
        .route("/projects/{projectId}/flags", post(flags::create::create).get(flags::list::list))
        .route("/projects/{projectId}/flags/{flagId}", get(flags::get::get))
        .route("/projects/{projectId}/environments/{envId}/flags", get(flags::list_in_environment::list_in_environment))
        .route(
            "/projects/{projectId}/flags/{flagId}/variations",
            get(variations::list::list).put(variations::update::update),
        )
        .route(
            "/projects/{projectId}/envs/{envId}/flags/{flagId}/targeting-rules",
            post(rules::create::create).get(rules::list::list),
        )
        .route(
            "/projects/{projectId}/flags/{flagId}/environments/{envId}/rollouts",
            post(rollouts::create::create).get(rollouts::list::list),
        )
        .route("/projects/{projectId}/segments", post(segments::create::create).get(segments::list::list))
        .route("/api/attributes", post(attributes::create::create).get(attributes::list::list))
        .route(
            "/api/attributes/{key}",
            get(attributes::get::get).put(attributes::update::update).delete(attributes::delete::delete),
        )
        .route("/api/attributes/{key}/deactivate", put(attributes::deactivate::deactivate))
        .route("/api-keys/{projectId}", post(keys::create::create).get(keys::list::list))
        .route("/api-keys/{projectId}/{keyId}", delete(keys::revoke::revoke))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(state)
}

/// A panic ends its request, not the process.
fn panicked(cause: Box<dyn std::any::Any + Send>) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref::<&str>().copied());
    ApiError::Internal(format!("panic: {}", text.unwrap_or("unknown"))).into_response()
}

#[derive(OpenApi)]
#[openapi(paths(
    users::login::login,
    users::refresh_token::refresh_token,
    projects::create::create,
    projects::list::list,
    projects::get::get,
    projects::list_environments::list_environments,
    environments::update::update,
    environments::destroy_pseudonym_key::destroy_pseudonym_key,
    flags::create::create,
    flags::list::list,
    flags::get::get,
    flags::list_in_environment::list_in_environment,
    variations::list::list,
    variations::update::update,
    rules::create::create,
    rules::list::list,
    rollouts::create::create,
    rollouts::list::list,
    segments::create::create,
    segments::list::list,
    attributes::create::create,
    attributes::list::list,
    attributes::get::get,
    attributes::update::update,
    attributes::deactivate::deactivate,
    attributes::delete::delete,
    keys::create::create,
    keys::list::list,
    keys::revoke::revoke,
))]
struct Document;

/// The OpenAPI document of [`router`]'s routes.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    document.components.get_or_insert_default().add_security_scheme("access_token", SecurityScheme::Http(scheme));
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_documented_and_nothing_else() {
        let document = serde_json::to_value(openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let source = include_str!("routes.rs");
        let router = &source[..source.find("DefaultBodyLimit::max").unwrap()];
        for path in paths.keys() {
            assert!(router.contains(&format!("\"{path}\"")), "{path} has no route");
        }
        assert_eq!(router.matches(".route(").count(), paths.len());
        let operations: usize = paths.values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(operations, 29);
        assert!(document["components"]["securitySchemes"]["access_token"].is_object());
    }
}
