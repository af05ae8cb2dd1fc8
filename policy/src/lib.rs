//! Words and decisions: what a user writes, and what follows from it for one call.
//!
//! **Invariant:** nothing here does I/O, reads a clock or sees a secret value; what is decided depends on the arguments alone.

pub mod access;
pub mod caller;
pub mod compile;
pub mod consent;
pub mod decision;
pub mod denial;
pub mod dialect;
pub mod giving_way;
pub mod hash;
pub mod limit;
pub mod map;
pub mod model;
pub mod name;
pub mod operation;
pub mod path;
pub mod pattern;
pub mod policy;
pub mod price;
mod resource;
pub mod target;
mod upgrade;
