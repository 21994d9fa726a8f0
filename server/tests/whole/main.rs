//! The whole binary, started as a person starts it.

mod broken_files;
mod faults;
mod installation;
mod kills;
mod load;
mod support;
