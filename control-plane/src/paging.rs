//! Pages, sorting and search of lists (management API 1.3).

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use crate::error::{ApiError, Problems};
use crate::limits::{DEFAULT_PAGE_ROWS, MAX_OFFSET_ROWS, MAX_PAGE_ROWS};
use crate::reply::{PageMeta, Paged};

/// The query members of a request; of a repeated one the last counts.
#[derive(Debug, Default)]
pub struct QueryMembers(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for QueryMembers {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(members) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::invalid("query", "cannot be read"))?;
        match members.iter().find(|(name, value)| name.contains('\0') || value.contains('\0')) {
            Some((name, _)) => Err(ApiError::invalid(name.replace('\0', ""), "must not contain U+0000")),
            None => Ok(Self(members)),
        }
    }
}

impl QueryMembers {
    /// The value of `name`, if it was given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The value of `name`, `true` or `false`, if it was given.
    pub fn truth(&self, name: &str, problems: &mut Problems) -> Option<bool> {
        let text = self.get(name)?;
        let truth = text.parse().ok();
        problems.check(truth.is_some(), name, "must be true or false");
        truth
    }

    fn number(&self, name: &str, range: std::ops::RangeInclusive<i64>, problems: &mut Problems) -> Option<i64> {
        let text = self.get(name)?;
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            problems.add(name, format!("must be a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }
}

/// Which rows of a list are asked for.
#[derive(Debug)]
pub struct Paging {
    /// Most rows to return.
    pub limit: i64,
    /// Rows to skip.
    pub offset: i64,
    /// Text that name or key must contain, in lower case; empty matches all.
    pub q: String,
    /// `ORDER BY` and what follows it, made of constants alone.
    pub order_by: String,
}

impl Paging {
    /// Reads the paging members. `sortable` pairs the field names that may be sorted by with their SQL.
    ///
    /// # Errors
    /// 400 for anything out of range or unknown.
    pub fn parse(query: &QueryMembers, sortable: &[(&str, &str)]) -> Result<Self, ApiError> {
        let mut problems = Problems::default();
        let limit = query.number("limit", 1..=MAX_PAGE_ROWS, &mut problems).unwrap_or(DEFAULT_PAGE_ROWS);
        let page = query.number("page", 1..=MAX_OFFSET_ROWS / MAX_PAGE_ROWS, &mut problems).unwrap_or(1);
        let offset = query.number("offset", 0..=MAX_OFFSET_ROWS, &mut problems).unwrap_or((page - 1) * limit);
        let sort_by = query.get("sortBy").unwrap_or("created_at");
        let column = sortable.iter().find(|(name, _)| *name == sort_by).map(|(_, column)| *column);
        if column.is_none() {
            let names: Vec<_> = sortable.iter().map(|(name, _)| *name).collect();
            problems.add("sortBy", format!("must be one of {}", names.join(", ")));
        }
        let direction = match query.get("sortDirection").unwrap_or("desc") {
            "asc" => "ASC",
            "desc" => "DESC",
            _ => {
                problems.add("sortDirection", "must be asc or desc");
                "DESC"
            }
        };
        problems.finish()?;
        // Ids are made in order of time: they settle ties the same way on every page.
        let order_by = format!("ORDER BY {} {direction}, id {direction}", column.unwrap_or("created_at"));
        Ok(Self { limit, offset, q: query.get("q").unwrap_or_default().to_lowercase(), order_by })
    }

    /// The page of `total` rows that these `data` are.
    pub fn paged<T>(&self, data: Vec<T>, total: i64) -> Paged<T> {
        let page_count = total.div_euclid(self.limit) + i64::from(total % self.limit != 0);
        Paged { data, meta: PageMeta { total, page: self.offset / self.limit + 1, page_count } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SORTABLE: &[(&str, &str)] = &[("created_at", "created_at"), ("name", "lower(name)")];

    fn members(query: &[(&str, &str)]) -> QueryMembers {
        QueryMembers(query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn defaults_pages_and_offsets() {
        let check = |query: &[(&str, &str)], limit: i64, offset: i64, order_by: &str| {
            let paging = Paging::parse(&members(query), SORTABLE).unwrap();
            assert_eq!((paging.limit, paging.offset, paging.order_by.as_str()), (limit, offset, order_by), "{query:?}");
        };
        check(&[], 20, 0, "ORDER BY created_at DESC, id DESC");
        check(&[("page", "3"), ("limit", "7")], 7, 14, "ORDER BY created_at DESC, id DESC");
        check(&[("page", "3"), ("offset", "5")], 20, 5, "ORDER BY created_at DESC, id DESC");
        check(&[("sortBy", "name"), ("sortDirection", "asc")], 20, 0, "ORDER BY lower(name) ASC, id ASC");
    }

    #[test]
    fn out_of_range_is_refused() {
        for (name, value) in [
            ("limit", "0"),
            ("limit", "101"),
            ("limit", "x"),
            ("page", "0"),
            ("page", "99999999999999999999"),
            ("offset", "-1"),
            ("sortBy", "password_hash"),
            ("sortDirection", "up"),
        ] {
            match Paging::parse(&members(&[(name, value)]), SORTABLE) {
                Err(ApiError::Validation(details)) => assert_eq!(details[0].path, name),
                other => panic!("{name}={value}: {other:?}"),
            }
        }
    }

    #[test]
    fn page_counts() {
        let paging = Paging::parse(&members(&[("limit", "10")]), SORTABLE).unwrap();
        for (total, page_count) in [(0, 0), (1, 1), (10, 1), (11, 2)] {
            assert_eq!(paging.paged(Vec::<()>::new(), total).meta.page_count, page_count);
        }
    }
}
