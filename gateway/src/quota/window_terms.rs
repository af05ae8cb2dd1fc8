//! When a window ends, as a replica tells the store of it.

use std::time::Duration;

use jiff::Timestamp;
use tollgate_policy::limit::Window;

/// By how much clocks of replicas may differ.
pub(super) const SKEW: Duration = Duration::from_secs(5);
/// The longest that anything counts, in milliseconds: some thousand years.
const LONGEST: u64 = 1 << 48;

/// How long until the window ends, or 0 where it rolls, and how long at most what is held now counts. Milliseconds.
pub(super) fn window_terms(window: &Window, wall: Timestamp) -> (u64, u64) {
    let resets = window.resets(wall).and_then(|at| Duration::try_from(at.duration_since(wall)).ok());
    (resets.map_or(0, millis), millis(window.longest()))
}

/// With what clocks may differ by.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.saturating_add(SKEW).as_millis()).unwrap_or(LONGEST).min(LONGEST)
}
