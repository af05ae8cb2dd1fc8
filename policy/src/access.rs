//! Who has access to what, and what a change of resources adds to that and takes from it.
//!
//! **Invariant:** what is said of calls is what [`crate::policy::Policy`] decides on them. It is asked about calls of every class that the
//! patterns of both policies tell apart, so no call is left out, and no decision is made here a second time.
//!
//! Lacks on purpose: files, and what stands in secret stores. Budgets are compared as they are written, whatever has been used of them.

mod boundary;
mod change;
mod classes;
mod diff;
mod reach;
mod readings;
mod stores;
mod terms;
mod universe;
mod words;

pub use boundary::{Violation, beyond, changed};
pub use change::{Change, Diff, Example, What};
pub use diff::diff;
pub use words::{allowed, limited, reading};
