//! Scenarios: the whole gateway, as a user runs it, against real parts.

mod bodies;
mod budgets;
mod callers;
mod corpus;
mod crash;
mod examples;
mod exhaustion;
mod failing;
mod hiding;
mod http2;
mod leaks;
mod leases;
mod ledger;
mod metering;
mod minted;
mod operations;
mod parts;
mod poisoning;
mod reload;
mod rotation;
mod scrubbing;
mod sdk;
mod signing;
mod smuggling;
mod stores;
mod targets;
