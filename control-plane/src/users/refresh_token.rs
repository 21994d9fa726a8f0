//! USR-2: `POST /users/refresh-token`.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Member, Tokens, issue};
use crate::ControlPlane;
use crate::db::{FromRow, Tx, query, query_as};
use crate::error::{ApiError, ErrorBody};
use crate::reply::{Envelope, Reply, ok};
use crate::request::Body;
use crate::token::text_hash;

/// What renews a session.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Renewal {
    #[serde(rename = "refreshToken")]
    refresh_token: String,
}

#[derive(FromRow)]
struct Known {
    session_id: Uuid,
    user_id: Uuid,
    expires_at: DateTime<Utc>,
    used_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
}

const REFUSED: ApiError = ApiError::Unauthorized("The refresh token is not valid");

/// Replaces both tokens. A token used twice was stolen from one of its users: its session ends.
#[utoipa::path(post, path = "/users/refresh-token", tag = "Users", request_body = Renewal, responses(
    (status = 200, body = Envelope<Tokens>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
))]
pub(crate) async fn refresh_token(State(plane): State<ControlPlane>, Body(request): Body<Renewal>) -> Reply<Tokens> {
    let hash = text_hash(&request.refresh_token);
    let mut tx = plane.pool().begin().await?;
    // The session's row is the lock: of two who come with one token, the second sees it used.
    let known: Option<Known> = query_as(
        "SELECT t.session_id, s.user_id, t.expires_at, t.used_at, s.ended_at
         FROM sessions s JOIN refresh_tokens t ON t.session_id = s.id WHERE t.token_hash = $1 FOR UPDATE",
    )
    .bind(hash)
    .fetch_optional(&mut *tx)
    .await?;
    let known = known.ok_or(REFUSED)?;
    plane.admit_request(known.user_id)?;
    if known.used_at.is_some() {
        query("UPDATE sessions SET ended_at = now() WHERE id = $1 AND ended_at IS NULL")
            .bind(known.session_id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        return Err(REFUSED);
    }
    if known.ended_at.is_some() || known.expires_at <= Utc::now() {
        return Err(REFUSED);
    }
    query("UPDATE refresh_tokens SET used_at = now() WHERE token_hash = $1").bind(hash).execute(&mut *tx).await?;
    query("DELETE FROM refresh_tokens WHERE session_id = $1 AND expires_at < now()")
        .bind(known.session_id)
        .execute(&mut *tx)
        .await?;
    let member = member(&mut tx, known.user_id).await?;
    let tokens = issue(&plane, &mut tx, known.session_id, &member).await?;
    tx.commit().await?;
    ok(tokens)
}

/// The user's membership as it is now: a role changed since is in the next token.
async fn member(tx: &mut Tx, user: Uuid) -> Result<Member, ApiError> {
    let member = query_as(
        "SELECT u.id, u.email, u.name, u.password_hash, m.organization_id, m.role
         FROM users u
         JOIN memberships m ON m.user_id = u.id AND m.deleted_at IS NULL
         JOIN organizations o ON o.id = m.organization_id AND o.deleted_at IS NULL
         WHERE u.id = $1 AND u.deleted_at IS NULL",
    )
    .bind(user)
    .fetch_optional(&mut **tx)
    .await?;
    member.ok_or(REFUSED)
}
