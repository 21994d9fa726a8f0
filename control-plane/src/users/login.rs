//! USR-1: `POST /users/login`.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Member, Tokens, User, issue};
use crate::ControlPlane;
use crate::audit::Act;
use crate::db::{query, query_as};
use crate::error::{ApiError, ErrorBody, Problems};
use crate::limits::{MAX_EMAIL_CHARS, PASSWORD_CHARS};
use crate::reply::{Envelope, Reply, ok};
use crate::request::{Body, ClientIp};
use crate::token::Role;

/// Who wants in.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Credentials {
    email: String,
    password: String,
}

/// Tokens, and whose they are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignedIn {
    #[serde(flatten)]
    tokens: Tokens,
    user: User,
}

/// Signs a user in. At most 5 attempts a minute for one address and mail.
#[utoipa::path(post, path = "/users/login", tag = "Users", request_body = Credentials, responses(
    (status = 200, body = Envelope<SignedIn>), (status = 400, body = ErrorBody),
    (status = 401, description = "Unknown mail or bad password", body = ErrorBody), (status = 429, body = ErrorBody),
))]
pub(crate) async fn login(
    State(plane): State<ControlPlane>,
    ClientIp(ip): ClientIp,
    Body(request): Body<Credentials>,
) -> Reply<SignedIn> {
    let email = request.email.trim().to_lowercase();
    let mut problems = Problems::default();
    let fits = !email.is_empty() && email.chars().count() <= MAX_EMAIL_CHARS;
    problems.check(fits, "email", &format!("must have 1 to {MAX_EMAIL_CHARS} characters"));
    let fits = (1..=*PASSWORD_CHARS.end()).contains(&request.password.chars().count());
    problems.check(fits, "password", &format!("must have 1 to {} characters", PASSWORD_CHARS.end()));
    problems.finish()?;
    plane.admit_login(ip, &email)?;

    let member: Option<Member> = query_as(
        "SELECT u.id, u.email, u.name, u.password_hash, m.organization_id, m.role
         FROM users u
         JOIN memberships m ON m.user_id = u.id AND m.deleted_at IS NULL
         JOIN organizations o ON o.id = m.organization_id AND o.deleted_at IS NULL
         WHERE u.email = $1 AND u.deleted_at IS NULL",
    )
    .bind(&email)
    .fetch_optional(plane.pool())
    .await?;
    let hash = member.as_ref().and_then(|member| member.password_hash.clone());
    let right = plane.passwords().verify(request.password, hash).await?;
    match member {
        Some(member) if right => signed_in(&plane, member).await,
        member => {
            if let Some(member) = member {
                let mut connection = plane.pool().acquire().await?;
                act(&member, "user.login_failed").record(&mut connection).await?;
            }
            Err(ApiError::Unauthorized("The mail address or the password is wrong"))
        }
    }
}

fn act<'a>(member: &Member, event_type: &'a str) -> Act<'a> {
    let payload = json!({"email": member.email});
    Act { organization: member.organization_id, project: None, actor: Some(member.id), event_type, payload }
}

async fn signed_in(plane: &ControlPlane, member: Member) -> Reply<SignedIn> {
    let mut tx = plane.pool().begin().await?;
    let session = Uuid::now_v7();
    query("INSERT INTO sessions (id, user_id) VALUES ($1, $2)").bind(session).bind(member.id).execute(&mut *tx).await?;
    query("UPDATE users SET last_login_at = now() WHERE id = $1").bind(member.id).execute(&mut *tx).await?;
    let tokens = issue(plane, &mut tx, session, &member).await?;
    act(&member, "user.login_success").record(&mut tx).await?;
    tx.commit().await?;
    let role = Role::named(&member.role);
    let Member { id, email, name, organization_id, .. } = member;
    ok(SignedIn { tokens, user: User { id, email, name, role, organization_id } })
}
