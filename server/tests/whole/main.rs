//! The whole binary, started as a person starts it.

mod broken_files;
mod clients;
mod faults;
mod hostile;
mod installation;
mod kills;
mod load;
mod metering;
mod rates;
mod support;
