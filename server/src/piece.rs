//! The pieces that processes are made of: each is started with what it works on, adds its routes and its state to the process, and
//! says how it is drained. One process may have one of them or all; they are the same code either way.

pub mod data_plane;
pub mod dead_letters;
mod descriptors;
pub mod first_user;
pub mod folding;
pub mod health;
mod http;
pub mod maintenance;
pub mod management;
mod metering;
mod openapi;
pub mod process;
pub mod querying;
pub mod servers;
pub mod usage_totals;
