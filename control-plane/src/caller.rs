//! Who calls: the access token, the general rate limit and the lowest role a row of the tables names.

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use uuid::Uuid;

use crate::ControlPlane;
use crate::error::ApiError;
use crate::token::Role;

/// The user a request is made for.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The user.
    pub user: Uuid,
    /// The organization that everything asked for must belong to.
    pub organization: Uuid,
}

/// A caller who may read.
#[derive(Debug)]
pub struct Viewer(pub Caller);

/// A caller who may change configuration.
#[derive(Debug)]
pub struct Editor(pub Caller);

/// A caller who may also change what an environment logs.
#[derive(Debug)]
pub struct Admin(pub Caller);

impl FromRequestParts<ControlPlane> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ControlPlane) -> Result<Self, ApiError> {
        caller(parts, state, Role::Admin).await.map(Self)
    }
}

impl FromRequestParts<ControlPlane> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ControlPlane) -> Result<Self, ApiError> {
        caller(parts, state, Role::Viewer).await.map(Self)
    }
}

impl FromRequestParts<ControlPlane> for Editor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ControlPlane) -> Result<Self, ApiError> {
        caller(parts, state, Role::Editor).await.map(Self)
    }
}

async fn caller(parts: &Parts, state: &ControlPlane, least: Role) -> Result<Caller, ApiError> {
    let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or(ApiError::Unauthorized("An access token is required"))?;
    let claims = state.token_keys().await?.verify(token)?;
    state.admit_request(claims.sub)?;
    if claims.role < least {
        return Err(ApiError::Forbidden);
    }
    Ok(Caller { user: claims.sub, organization: claims.org })
}
