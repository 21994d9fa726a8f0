//! Users: signing in and staying signed in (management API 16).
//!
//! Access tokens are checked by their signature alone, by every role of the installation, and live 15 minutes; refresh
//! tokens are kept as hashes and replaced at each use.

use chrono::Utc;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::ControlPlane;
use crate::db::{FromRow, Tx, query};
use crate::error::ApiError;
use crate::token::{Claims, Role, random_text, text_hash};

pub(crate) mod login;
pub(crate) mod refresh_token;

/// Who signed in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct User {
    id: Uuid,
    email: String,
    name: String,
    role: Role,
    organization_id: Uuid,
}

/// An access token, and what renews it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tokens {
    /// For `Authorization: Bearer`.
    #[serde(rename = "accessToken")]
    access_token: String,
    /// Good for one use.
    #[serde(rename = "refreshToken")]
    refresh_token: String,
    /// Seconds until the access token expires.
    #[serde(rename = "expiresIn")]
    expires_in: u64,
}

/// A user with the membership that tokens speak of.
#[derive(Debug, FromRow)]
struct Member {
    id: Uuid,
    email: String,
    name: String,
    password_hash: Option<String>,
    organization_id: Uuid,
    role: String,
}

/// Makes the next pair of tokens of a session.
async fn issue(plane: &ControlPlane, tx: &mut Tx, session: Uuid, member: &Member) -> Result<Tokens, ApiError> {
    let settings = plane.settings();
    let refresh_token = random_text("fmr_");
    let now = Utc::now();
    query("INSERT INTO refresh_tokens (token_hash, session_id, expires_at) VALUES ($1, $2, $3)")
        .bind(text_hash(&refresh_token))
        .bind(session)
        .bind(now + settings.refresh_token_lifetime)
        .execute(&mut **tx)
        .await?;
    let expires_in = settings.access_token_lifetime.as_secs();
    let iat = now.timestamp();
    let exp = iat.saturating_add_unsigned(expires_in);
    let role = Role::named(&member.role);
    let claims = Claims { sub: member.id, org: member.organization_id, role, sid: session, exp, iat };
    Ok(Tokens { access_token: plane.token_keys().await?.sign(&claims)?, refresh_token, expires_in })
}
