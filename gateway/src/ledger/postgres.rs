//! The database that several replicas share: every call of each, and what they add up to, so that reports see all of them.
//!
//! Each replica has its own journal and its own store, which its limits go by. A thread takes the journal into the database as well, as far
//! as the store has it. Rows say which replica they are of.
//!
//! **Invariant:** no call and no start waits for the database. A record counts there once, however often it is taken in.

mod charges;
mod commit;
mod forget;
mod grouped;
mod ingest;
mod read;
mod schema;
mod segment_part;
mod session;
mod settings;
mod tls;
mod vouched;
mod witness;

pub(crate) use charges::{ChargeReader, ChargedReplica};
pub use forget::forget;
pub(crate) use ingest::replay;
pub use ingest::{PostgresIngest, PostgresProgress};
pub use read::{ReplicaState, SharedReader};
pub use session::PostgresServer;
pub use settings::PostgresSettings;
pub use witness::verify_shared;
