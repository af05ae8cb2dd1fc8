//! Scenarios: the whole gateway, as a user runs it, against real parts.

mod audit;
mod bodies;
mod budgets;
mod callers;
mod corpus;
mod crash;
mod credentials;
mod examples;
mod exhaustion;
mod failing;
mod hiding;
mod http2;
mod leaks;
mod ledger;
mod metering;
mod operations;
mod parts;
mod poisoning;
mod reload;
mod rotation;
mod sdk;
mod smuggling;
mod targets;
