//! Who tells people of thresholds, as the settings have it.

use std::sync::Arc;

use anyhow::Context;

use super::dialable;
use crate::alerts::{Alerts, Webhook};
use crate::ledger;
use crate::quota::AlertClaims;
use crate::settings::Settings;
use crate::upstream::DialRules;

/// The data directory is locked.
pub(super) fn of(settings: &Settings, rules: &DialRules) -> anyhow::Result<Arc<Alerts>> {
    let webhook = settings.alerts.webhook.as_ref().map(|webhook| Webhook::new(webhook, rules.clone()));
    let claims = match &settings.limits.redis {
        None => None,
        Some(redis) => {
            let replica =
                ledger::replica_id(&settings.data_dir).context("limits.redis: the id of this replica")?;
            Some(AlertClaims::new(redis.clone(), dialable(rules.clone()), &replica.to_string()))
        }
    };
    let name = ledger::replica_name(settings.ledger.replica.as_deref());
    Ok(Alerts::new(&settings.data_dir, name, (claims, webhook)))
}
