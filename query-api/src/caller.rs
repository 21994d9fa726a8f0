//! Who asks: the access token that the control plane signed, and the lowest role a row of the tables names.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use flagmint_schemas::ids::OrganizationId;
use flagmint_store::RollupStore;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use crate::QueryApi;
use crate::error::ApiError;

/// What a user may do, in rising order (management API 1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Viewer,
    Editor,
    Admin,
}

/// The claims that matter here.
#[derive(Debug, Deserialize)]
struct Claims {
    org: OrganizationId,
    role: Role,
    exp: i64,
}

/// The organization of a caller who may read analytics.
#[derive(Debug)]
pub(crate) struct Viewer(pub(crate) OrganizationId);

/// The organization of a caller who may change configuration.
#[derive(Debug)]
pub(crate) struct Editor(pub(crate) OrganizationId);

/// The organization of a caller who may see billing and audit.
#[derive(Debug)]
pub(crate) struct Admin(pub(crate) OrganizationId);

/// Extracts one kind of caller.
macro_rules! caller {
    ($($role:ident),+) => {$(
        impl<S: RollupStore> FromRequestParts<QueryApi<S>> for $role {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, api: &QueryApi<S>) -> Result<Self, ApiError> {
                let token = bearer(&parts.headers)?;
                let claims = verify(token, api.directory().access_token_key().await?, api.now().timestamp())?;
                if claims.role < Role::$role { Err(ApiError::Forbidden) } else { Ok(Self(claims.org)) }
            }
        }
    )+};
}

caller!(Viewer, Editor, Admin);

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    header
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or(ApiError::Unauthorized("An access token is required"))
}

fn verify(token: &str, key: &DecodingKey, now_s: i64) -> Result<Claims, ApiError> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false; // Below, by the clock that all answers are given by.
    let claims = jsonwebtoken::decode::<Claims>(token, key, &validation)
        .map_err(|_| ApiError::Unauthorized("The access token is not valid"))?
        .claims;
    if claims.exp <= now_s { Err(ApiError::TokenExpired) } else { Ok(claims) }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;

    fn sign(secret: &[u8], role: &str, exp: i64) -> String {
        let claims = json!({"sub": uuid::Uuid::nil(), "org": uuid::Uuid::from_u128(7), "role": role,
            "sid": uuid::Uuid::nil(), "exp": exp, "iat": 0});
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    #[test]
    fn only_fresh_tokens_of_this_installation_are_good() {
        let key = DecodingKey::from_secret(b"secret");
        let check = |token: &str| verify(token, &key, 1000).map(|claims| claims.role);
        let good = sign(b"secret", "editor", 1001);
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
        assert_eq!(check(&good), Ok(Role::Editor));
        assert_eq!(check(&sign(b"secret", "editor", 1000)), Err(ApiError::TokenExpired));
        for bad in [sign(b"other", "admin", 2000), sign(b"secret", "owner", 2000), unsigned, String::new()] {
            assert!(matches!(check(&bad), Err(ApiError::Unauthorized(_))), "{bad}");
        }
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        let check = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            bearer(&headers).map(str::to_owned).ok()
        };
        assert_eq!(check("bearer  x.y.z"), Some("x.y.z".to_owned()));
        assert_eq!((check("Basic x"), check("Bearer")), (None, None));
    }
}
