//! ATT-2: `GET /api/attributes`.

use axum::extract::State;

use super::{Attribute, CATEGORIES, TYPES, VISIBLE, check_word};
use crate::ControlPlane;
use crate::caller::Viewer;
use crate::db::{query_as, query_scalar};
use crate::error::{ErrorBody, Problems};
use crate::paging::{Paging, QueryMembers};
use crate::reply::{Envelope, Paged, Reply, ok};

const SORTABLE: &[(&str, &str)] = &[
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("key", "key"),
    ("label", "label"),
    ("type", "type"),
    ("category", "category"),
    ("is_custom", "is_custom"),
    ("is_active", "is_active"),
    ("private", "private"),
    ("id", "id"),
];

const MATCHES: &str = "($2 = '' OR position($2 IN lower(label)) > 0 OR position($2 IN lower(key)) > 0)
    AND ($3::text IS NULL OR category = $3) AND ($4::text IS NULL OR type = $4)
    AND ($5::boolean IS NULL OR is_custom = $5) AND ($6::boolean IS NULL OR is_active = $6)";

/// The organization's attributes and the system's.
#[utoipa::path(get, path = "/api/attributes", tag = "Attributes", params(
    ("page" = Option<i64>, Query), ("limit" = Option<i64>, Query), ("offset" = Option<i64>, Query),
    ("q" = Option<String>, Query), ("sortBy" = Option<String>, Query), ("sortDirection" = Option<String>, Query),
    ("category" = Option<String>, Query), ("type" = Option<String>, Query), ("is_custom" = Option<bool>, Query),
    ("is_active" = Option<bool>, Query),
), responses((status = 200, body = Envelope<Paged<Attribute>>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn list(
    State(plane): State<ControlPlane>,
    Viewer(caller): Viewer,
    query: QueryMembers,
) -> Reply<Paged<Attribute>> {
    let paging = Paging::parse(&query, SORTABLE)?;
    let mut problems = Problems::default();
    let (category, r#type) = (query.get("category"), query.get("type"));
    check_word(&mut problems, "category", category, CATEGORIES);
    check_word(&mut problems, "type", r#type, TYPES);
    let [is_custom, is_active] = ["is_custom", "is_active"].map(|name| query.truth(name, &mut problems));
    problems.finish()?;
    let total = query_scalar(&format!("SELECT count(*) FROM {VISIBLE} WHERE {MATCHES}"))
        .bind(caller.organization)
        .bind(&paging.q)
        .bind(category)
        .bind(r#type)
        .bind(is_custom)
        .bind(is_active)
        .fetch_one(plane.pool())
        .await?;
    let rows = query_as(&format!("SELECT * FROM {VISIBLE} WHERE {MATCHES} {} LIMIT $7 OFFSET $8", paging.order_by))
        .bind(caller.organization)
        .bind(&paging.q)
        .bind(category)
        .bind(r#type)
        .bind(is_custom)
        .bind(is_active)
        .bind(paging.limit)
        .bind(paging.offset)
        .fetch_all(plane.pool())
        .await?;
    ok(paging.paged(rows, total))
}
