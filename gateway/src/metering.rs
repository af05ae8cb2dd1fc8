//! What a call asks for, what it uses, and what that costs: read off the wire, held before, settled after.
//!
//! **Invariant:** from the moment its caller is proven a request has exactly one record, whatever becomes of it, and its hold is
//! settled or released exactly once.

mod action;
mod answer;
mod asked;
mod body;
pub(crate) mod catalog;
mod estimate;
mod facts;
mod meter;
mod recorder;
mod refusals;
mod scan;
mod sse;
mod usage;

pub(crate) use answer::answer;
pub(crate) use asked::{demand, explained, is_large, least, read, too_slow};
pub(crate) use body::MeteredBody;
pub(crate) use meter::Meter;
pub(crate) use recorder::Recorder;
