//! One caller's connection: what it has to show, when it is late, and how it is told to end.
//!
//! **Invariant:** nothing in here knows the core that serves it, or what is asked on it: whoever works on a request is given both.

mod connection;
mod deadline;
mod registry;
mod shutdown;
mod unauthenticated;
mod write_progress;

pub(crate) use self::connection::{Arrival, ProxyMode, Session};
pub(crate) use self::deadline::{HEAD_LIMIT, HeaderDeadline};
pub(crate) use self::registry::ConnectionRegistry;
pub(crate) use self::shutdown::Shutdown;
pub(crate) use self::write_progress::WriteProgress;
