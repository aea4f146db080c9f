//! The program on hosts like those of its users: real systemd, real Redis, a cable.

mod access;
mod audit;
mod bad_day;
mod check;
mod config_check;
mod guide;
mod instances;
mod journal;
mod key_faults;
mod keys;
mod packages;
mod recipe;
mod redis;
mod reload;
mod restarts;
mod setup;
mod sockets;
mod status;
mod status_http;
mod units;
