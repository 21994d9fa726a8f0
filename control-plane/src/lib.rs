//! Holds configuration in Postgres and publishes its versions.
//!
//! [`router`] serves the management API's part for users, projects, environments, flags, variations, targeting rules,
//! rollouts, segments, attributes and SDK keys. A write is one transaction: the rows, an audit entry, and for each environment whose
//! compiled configuration it changes one publish (version + 1, snapshot, delta, `NOTIFY flagmint_config`). Evaluators and the
//! query API read the tables `environment_snapshots`, `environment_deltas`, `api_keys`, `organization_limits`, `plans`,
//! `organizations`, `projects`, `environments`, `flags`, `variations` and `installation` with SQL of their own, and evaluators share
//! `used_sessions`; the migrations say what their columns mean.
//!
//! [`connect`] and [`migrate`] prepare the database, [`bootstrap_admin`] makes the first user.

mod attributes;
mod audit;
mod bootstrap;
mod caller;
mod conditions;
mod db;
mod delta;
mod environments;
mod error;
mod flags;
mod keys;
mod limit_state;
mod limits;
mod paging;
mod password;
mod projects;
mod publish;
mod rate;
mod reply;
mod request;
mod rollouts;
mod routes;
mod rules;
mod scope;
mod segments;
mod state;
mod text;
mod token;
mod users;
mod values;
mod variations;

pub use bootstrap::{BootstrapError, Bootstrapped, PlanChoice, bootstrap_admin};
pub use db::{DbError, Pool, answers, check_url, connect, migrate, refusal};
pub use limit_state::set_limit;
pub use routes::{openapi, router};
pub use state::{ControlPlane, MeteredWrite, Settings};
pub use token::Role;
