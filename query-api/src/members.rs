//! What handlers take from a request besides the caller: ids from the path, members of the query.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::ops::RangeInclusive;

use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::request::Parts;
use uuid::Uuid;

use crate::error::{ApiError, Problems};

/// The one id in the path.
#[derive(Debug)]
pub(crate) struct PathId(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::invalid("path", "cannot be read"))?;
        let (name, value) = params.iter().next().ok_or(ApiError::Internal("route without an id".to_owned()))?;
        Uuid::try_parse(value).map(Self).map_err(|_| ApiError::invalid(name, "must be a UUID"))
    }
}

/// The query members of a request; of a repeated one the last counts, unknown ones are never looked at.
#[derive(Debug, Default)]
pub(crate) struct QueryMembers(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for QueryMembers {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let members = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        members.map(|Query(members)| Self(members)).map_err(|_| ApiError::invalid("query", "cannot be read"))
    }
}

impl QueryMembers {
    /// The value of `name`, if it was given.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// A UUID, if it was given.
    pub(crate) fn id(&self, name: &str, problems: &mut Problems) -> Option<Uuid> {
        let id = Uuid::try_parse(self.get(name)?).ok();
        if id.is_none() {
            problems.add(name, "must be a UUID");
        }
        id
    }

    /// A whole number in `range`, if it was given.
    pub(crate) fn number(&self, name: &str, range: RangeInclusive<usize>, problems: &mut Problems) -> Option<usize> {
        let number = self.get(name)?.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            problems.add(name, format!("must be a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// One of the words given, `fallback` if none was.
    pub(crate) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)], fallback: T, problems: &mut Problems) -> T {
        let Some(text) = self.get(name) else { return fallback };
        words.iter().find(|(word, _)| *word == text).map_or_else(
            || {
                let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                problems.add(name, format!("must be one of {}", known.join(", ")));
                fallback
            },
            |(_, meaning)| *meaning,
        )
    }
}

#[cfg(test)]
impl QueryMembers {
    /// Members as a client would send them, for tests.
    pub(crate) fn of(members: &[(&str, &str)]) -> Self {
        Self(members.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }
}
