//! OBS-1: `GET /contexts/observed-contexts`, the contexts seen in the last 30 days, newest first.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod row;
mod search;

use axum::extract::State;
use chrono::{DateTime, Utc};
use flagmint_schemas::ids::OrganizationId;
use flagmint_schemas::rollup::Table;
use flagmint_store::{Filter, Having, Page, RollupQuery, RollupStore};
use utoipa::ToSchema;
use uuid::Uuid;

use self::row::{ContextRow, Sources, contexts};
use self::search::Search;
use crate::QueryApi;
use crate::caller::Viewer;
use crate::error::{ApiError, ErrorBody, Problems};
use crate::limits::SEARCH_CANDIDATES_MAX;
use crate::limits::{CONTEXT_DAYS, OFFSET_ROWS_MAX, PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX, SEARCH_BYTES_MAX};
use crate::members::QueryMembers;
use crate::period::{DAY_US, Span};
use crate::questions::{Refine, Scope};
use crate::reply::{Envelope, PageMeta, Paged, Reply, ok};

/// The dimensions that name a row.
const IDENTITY: [&str; 3] = ["environment", "kind", "key"];

/// A context seen in an environment.
#[derive(Debug, PartialEq, serde::Serialize, ToSchema)]
pub(crate) struct ObservedContext {
    /// Made from environment, kind and key: the same whenever it is seen.
    id: Uuid,
    environment_id: Uuid,
    /// `user`, `organization`, `multi` or empty.
    kind: String,
    /// A pseudonym unless the environment logs raw.
    key: String,
    /// The latest seen; private ones as pseudonyms.
    #[schema(value_type = Object)]
    attributes: serde_json::Value,
    /// How many attributes were too many to log.
    attributes_omitted: u64,
    /// `custom.source` as sent: the one seen last.
    source: String,
    sdk: Sdk,
    first_seen_at: String,
    last_seen_at: String,
    /// Decisions made for it in the period.
    evaluations: u64,
}

/// The client library that a context was last seen with.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct Sdk {
    name: Option<String>,
    version: Option<String>,
    platform: Option<String>,
    wrapper: Option<String>,
}

/// Contexts seen in the last 30 days. Search looks at keys and attribute values, and at the 50,000 contexts seen last.
#[utoipa::path(get, path = "/contexts/observed-contexts", tag = "Observability", params(
    ("project_id" = Option<Uuid>, Query), ("environment_id" = Option<Uuid>, Query), ("kind" = Option<String>, Query),
    ("source" = Option<String>, Query), ("from" = Option<String>, Query), ("to" = Option<String>, Query),
    ("page" = Option<usize>, Query), ("limit" = Option<usize>, Query), ("offset" = Option<usize>, Query),
    ("q" = Option<String>, Query), ("sortBy" = Option<String>, Query), ("sortDirection" = Option<String>, Query),
), responses((status = 200, body = Envelope<Paged<ObservedContext>>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn observed_contexts<S: RollupStore>(
    State(api): State<QueryApi<S>>,
    Viewer(organization): Viewer,
    members: QueryMembers,
) -> Reply<Paged<ObservedContext>> {
    let asked = Asked::parse(organization, &members, api.now())?;
    let Scope { project, environment, .. } = asked.scope;
    match (project, environment) {
        (Some(project), environment) => api.directory().check_project(organization, project, environment).await?,
        (None, Some(environment)) => {
            api.directory().project_of_environment(organization, environment).await?;
        }
        (None, None) => {}
    }
    let search = match &asked.q {
        Some(q) => Some(Search::new(q, &api.directory().pseudonym_keys(organization, project, environment).await?)),
        None => None,
    };
    let rows = api.ask(asked.plan(search.as_ref())).await?;
    let total = rows.total;
    let (page, total) = match &search {
        None => (contexts(&rows)?, total),
        Some(search) => asked.cut(contexts(&rows)?, search),
    };
    let sources = match &asked.source {
        Some(source) => Sources::Same(source.clone()),
        None if page.is_empty() => Sources::Same(String::new()),
        None => Sources::latest(&api.ask(asked.plan_sources(&page)).await?)?,
    };
    let data = page.into_iter().map(|row| row.readable(&sources)).collect();
    ok(Paged { data, meta: asked.page_meta(total) })
}

/// What is asked for.
struct Asked {
    scope: Scope,
    span: Span,
    kind: Option<String>,
    source: Option<String>,
    q: Option<String>,
    offset: usize,
    limit: usize,
    order_by: &'static str,
    is_descending: bool,
}

impl Asked {
    fn parse(organization: OrganizationId, members: &QueryMembers, now: DateTime<Utc>) -> Result<Self, ApiError> {
        let mut problems = Problems::default();
        let problem = &mut problems;
        let span = Span::bounds(members, now, CONTEXT_DAYS, problem);
        let project = members.id("project_id", problem);
        let environment = members.id("environment_id", problem);
        let limit = members.number("limit", 1..=PAGE_ROWS_MAX, problem).unwrap_or(PAGE_ROWS_DEFAULT);
        let page = members.number("page", 1..=OFFSET_ROWS_MAX / PAGE_ROWS_MAX, problem).unwrap_or(1);
        let offset = members.number("offset", 0..=OFFSET_ROWS_MAX, problem).unwrap_or((page - 1) * limit);
        let fields = [
            ("last_seen_at", "last_seen_us"),
            ("first_seen_at", "first_seen_us"),
            ("evaluations", "evaluations"),
            ("key", "key"),
            ("kind", "kind"),
        ];
        let order_by = members.word("sortBy", &fields, "last_seen_us", problem);
        let is_descending = members.word("sortDirection", &[("asc", false), ("desc", true)], true, problem);
        for name in ["q", "kind", "source"] {
            if members.get(name).is_some_and(|text| text.len() > SEARCH_BYTES_MAX) {
                problem.add(name, format!("at most {SEARCH_BYTES_MAX} bytes"));
            }
        }
        problems.finish()?;
        let text = |name| members.get(name).map(str::to_owned);
        let (kind, source, q) = (text("kind"), text("source"), text("q").filter(|q| !q.is_empty()));
        let scope = Scope { organization, project, environment };
        Ok(Self { scope, span: last_days(span, now), kind, source, q, offset, limit, order_by, is_descending })
    }

    /// Contexts of the scope and time, merged over days, and over sources unless one is asked for.
    fn contexts(&self) -> RollupQuery {
        let mut question = self.scope.question(Table::Contexts, self.span.range_us()).by(&IDENTITY);
        let text = |name, text: &Option<String>| text.clone().map(|text| Filter::TextIs(name, text));
        question.filters.extend(text("kind", &self.kind));
        question.filters.extend(text("source", &self.source));
        question
    }

    /// The page; with a search text all candidates for it, newest first.
    fn plan(&self, search: Option<&Search>) -> RollupQuery {
        let Some(search) = search else {
            let mut order_by = vec![(self.order_by, self.is_descending)];
            order_by.extend(IDENTITY.into_iter().filter(|name| *name != self.order_by).map(|name| (name, false)));
            let page = Page { order_by, offset: self.offset, limit: self.limit };
            return RollupQuery { page: Some(page), ..self.contexts() };
        };
        let page = Page { order_by: vec![("last_seen_us", true)], offset: 0, limit: SEARCH_CANDIDATES_MAX };
        RollupQuery { having: search.having(), page: Some(page), ..self.contexts() }
    }

    /// The sources of a page's contexts, each with the time last seen.
    fn plan_sources(&self, page: &[ContextRow]) -> RollupQuery {
        // No key holds U+0000 alone, so nothing but the keys listed matches.
        let keys = page.iter().map(|row| row.key.clone()).collect();
        let having = Having { columns: vec!["key"], contains: "\0\0".to_owned(), or_equals: keys };
        let question = self.contexts().by(&["environment", "kind", "key", "source"]);
        RollupQuery { having: Some(having), ..question }
    }

    /// Of all candidates those that match, sorted; the page of them and how many they are.
    fn cut(&self, rows: Vec<ContextRow>, search: &Search) -> (Vec<ContextRow>, u64) {
        let mut found: Vec<ContextRow> = rows.into_iter().filter(|row| search.matches(row)).collect();
        let total = found.len() as u64;
        found.sort_by(|a, b| {
            let order = a.compare(b, self.order_by);
            let order = if self.is_descending { order.reverse() } else { order };
            order.then_with(|| a.identity().cmp(&b.identity()))
        });
        (found.into_iter().skip(self.offset).take(self.limit).collect(), total)
    }

    fn page_meta(&self, total: u64) -> PageMeta {
        let limit = self.limit as u64;
        PageMeta { total, page: self.offset as u64 / limit + 1, page_count: total.div_ceil(limit) }
    }
}

/// The whole days touched of those that contexts are kept for.
fn last_days(span: Span, now: DateTime<Utc>) -> Span {
    let days = span.days_us();
    let tomorrow_us = now.timestamp_micros().div_euclid(DAY_US) * DAY_US + DAY_US;
    let from_us = days.start.max(tomorrow_us - CONTEXT_DAYS * DAY_US);
    Span { from_us, to_us: days.end.max(from_us), ..span }
}
