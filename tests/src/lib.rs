//! The harness: everything a scenario stands on.
//!
//! A [`Sandbox`] is one scenario's folder and its canary secrets. In it live throw-away authorities ([`ca`]), real parts
//! ([`bao`], [`moto`], [`aimock`], [`envoy`], [`haproxy`], [`helm`], [`idp`], [`postgres`], [`prometheus`], [`redis`], [`spire`], the API server of [`cluster`], the SDKs of
//! [`python`]), upstreams that can misbehave ([`upstream`]), the gateway under test ([`gateway`]) and its callers ([`client`]).
//! What a scenario leaves behind
//! is searched by `tests/runner/sweep.py`.
//!
//! **Invariant:** every process that is started is ended by its id when its handle is dropped.

pub mod aimock;
pub mod bao;
pub mod ca;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod echo;
pub mod envoy;
pub mod fixture;
pub mod forward;
pub mod full_stack;
pub mod gateway;
pub mod h2_tap;
pub mod haproxy;
pub mod hbone;
pub mod helm;
pub mod idp;
pub mod ledger;
pub mod moto;
pub mod namespace;
pub mod network;
pub mod node;
pub mod panels;
pub mod postgres;
pub mod probes;
pub mod process;
pub mod prometheus;
pub mod provider;
pub mod python;
pub mod redis;
pub mod redis_cluster;
pub mod rendered;
pub mod report;
pub mod resources;
pub mod sandbox;
pub mod secret_kinds;
pub mod sentinel;
pub mod slices_sim;
pub mod spire;
pub mod upstream;
pub mod websockets;
pub mod wire;

pub use ca::{Authority, Identity, Leaf};
pub use client::{Answer, Client, Protocol};
pub use fixture::{Fixture, Plan};
pub use full_stack::FullStack;
pub use gateway::{Gateway, Settings};
pub use sandbox::Sandbox;
pub use secret_kinds::SecretKind;
pub use upstream::{Reply, Seen, Upstream};
