//! Which addresses may be dialled: the rule is the gateway's, and holds for stores and token endpoints alike.

use std::net::IpAddr;
use std::sync::Arc;

/// Says whether an address may be dialled.
pub(crate) type Dialable = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;
