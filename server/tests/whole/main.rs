//! The whole binary, started as a person starts it.

mod installation;
mod kills;
mod support;
