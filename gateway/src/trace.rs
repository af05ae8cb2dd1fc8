//! What traces a call: the context that its caller sends (W3C Trace Context), whether it is recorded, and what is noted of it then.
//!
//! **Invariant:** where nothing is set up, nothing is read, and a call that is not recorded allocates for no trace. A caller's context is
//! believed as far as it is of the standard's form; what else its headers hold is kept nowhere. It travels on only where
//! `telemetry.propagate` names the destination.

mod call;
mod context;
mod sampler;

pub(crate) use call::{AttemptConnection, AttemptTrace, CallTrace, Opened, RecordedCall};
pub(crate) use context::TraceId;
pub(crate) use sampler::{Sampling, Tracer};
