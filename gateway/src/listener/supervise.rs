//! Looking after the open connections of a core.

use std::sync::Arc;
use std::time::Duration;

use crate::core::Core;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Tells connections when they have to end, until the core's runtime ends. Looks also at once when bundles or the drain's phase change.
pub(crate) async fn supervise(core: Arc<Core>) {
    let mut bundles = core.shared.trust.subscribe();
    let mut phase = core.shared.drain.observe();
    loop {
        // A sender that is gone means that the process ends.
        let lives = tokio::select! {
            changed = bundles.changed() => changed.is_ok(),
            changed = phase.changed() => changed.is_ok(),
            () = tokio::time::sleep(LOOK_EVERY) => true,
        };
        if !lives {
            return;
        }
        let now = *phase.borrow_and_update();
        core.connections.review(&core.shared.trust, now);
    }
}
