//! Everything that listens, dials, watches and writes: the library behind the program `tollgate`.
//!
//! **Invariant:** `request` is the route of a request: it joins the stages, with `attempt` for those that may run twice. `app` is the
//! only place that builds them.

mod admin;
mod alerts;
mod app;
mod attempt;
mod audit;
mod budgets;
mod caller_body;
mod caller_occupancy;
pub mod cli;
mod core;
mod credentials;
mod drain;
mod error;
mod expiry;
mod fault;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod identity;
mod in_place;
mod incoming;
mod injection;
mod interception;
mod key_health;
mod key_selector;
mod kubernetes;
mod ledger;
mod listener;
mod log_throttle;
mod memory;
mod metering;
mod metrics;
mod min_rate;
mod otlp;
mod peer_scope;
mod preflight;
pub mod quota;
mod reply;
mod report;
mod request;
mod session;
mod settings;
mod slow_notice;
mod snapshot;
mod stable_file;
mod stats;
mod swar;
mod table;
mod telemetry;
mod timers;
mod trace;
mod tunnel;
mod upstream;
mod version_key;
mod websocket;
