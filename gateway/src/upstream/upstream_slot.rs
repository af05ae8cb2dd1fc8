//! A call's place among those of its destination.

use std::sync::Arc;

use tollgate_policy::policy::CircuitBreaker;

use super::health::CircuitError;
use super::pool::Bucket;

/// Given back on drop. It goes by the bucket of its core, so that cores share no more than the counters.
#[derive(Debug)]
pub(crate) struct UpstreamSlot(Arc<Bucket>);

impl UpstreamSlot {
    /// `free`: how many more calls the gateway takes.
    ///
    /// # Errors
    /// Where the destination has as many as it may.
    pub(crate) fn take(bucket: &Arc<Bucket>, rules: CircuitBreaker, free: u64) -> Result<Self, CircuitError> {
        let place = Self(Arc::clone(bucket));
        bucket.health.destination.occupancy.begin(rules, free)?;
        Ok(place)
    }
}

impl Drop for UpstreamSlot {
    fn drop(&mut self) {
        self.0.health.destination.occupancy.end();
    }
}
