//! Telling people of thresholds: in the log, in metrics, and by webhook.
//!
//! **Invariant:** each is told once for its name by all replicas that share limits, but that one whose teller died is told by another, under
//! the same id. A restart tells nothing again.
//!
//! Lacks on purpose: the Events of a cluster, which its leader writes.

mod message;
mod told;
mod webhook;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;

pub(crate) use self::message::{Alert, Threshold};
use self::told::ToldAlerts;
use self::webhook::Undelivered;
pub(crate) use self::webhook::{Webhook, secret_problem};
use crate::ledger::RecordId;
use crate::log_throttle::LogThrottle;
use crate::quota::{AlertClaims, CLAIM, Claimed};

/// Messages that wait at most, of all and of one namespace: the others' have room. What comes then is looked at again later.
const MOST_WAITING: usize = 256;
const MOST_OF_ONE: usize = 32;
/// Messages that are sent at once.
const AT_ONCE: usize = 8;
/// How often one is sent: for some twenty minutes.
const TRIES: u32 = 12;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Of what the receiver asks for (`Retry-After`), and of our own pauses.
const MOST_PAUSE: Duration = Duration::from_secs(300);

const STORE: &str = "the store of shared limits";
const RECEIVER: &str = "the receiver of alerts";

/// Who tells, and what was told.
pub(crate) struct Alerts {
    claims: Option<AlertClaims>,
    webhook: Option<Webhook>,
    told: tokio::sync::Mutex<ToldAlerts>,
    /// By name, with the namespace of the budget.
    under_way: Mutex<HashMap<String, String>>,
    turns: Semaphore,
    counts: AlertCounts,
    replica: String,
    said: LogThrottle<String>,
}

/// How often something was told.
#[derive(Debug, Default)]
struct AlertCounts {
    delivered: AtomicU64,
    failed: AtomicU64,
    deferred: AtomicU64,
    /// By budget and threshold.
    thresholds: Mutex<BTreeMap<(String, String), u64>>,
}

/// The same, to be shown.
#[derive(Debug, Default)]
pub(crate) struct AlertTotals {
    /// By budget and threshold.
    pub(crate) thresholds: Vec<((String, String), u64)>,
    /// Messages by what became of them; `None` where nobody is sent any.
    pub(crate) messages: Option<[(&'static str, u64); 3]>,
}

impl std::fmt::Debug for Alerts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alerts").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl Alerts {
    /// `claims` where replicas share limits; without them this one tells everything. What was told is remembered in the data directory.
    pub(crate) fn new(
        data_dir: &Path,
        replica: String,
        (claims, webhook): (Option<AlertClaims>, Option<Webhook>),
    ) -> Arc<Self> {
        Arc::new(Self {
            claims,
            webhook,
            told: tokio::sync::Mutex::new(ToldAlerts::read(data_dir)),
            under_way: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
            counts: AlertCounts::default(),
            replica,
            said: LogThrottle::default(),
        })
    }

    pub(crate) fn totals(&self) -> AlertTotals {
        let AlertCounts { delivered, failed, deferred, thresholds } = &self.counts;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let messages =
            [("delivered", count(delivered)), ("failed", count(failed)), ("deferred", count(deferred))];
        let thresholds = lock(thresholds).iter().map(|(which, count)| (which.clone(), *count)).collect();
        AlertTotals { thresholds, messages: self.webhook.is_some().then_some(messages) }
    }

    /// Tells it, unless it was told or another replica is about to. To be called again and again while it holds. False: the store does not
    /// answer, and has no answer for others either.
    pub(crate) async fn raise(self: &Arc<Self>, alert: Alert) -> bool {
        let (name, now) = (alert.name(), Timestamp::now());
        if lock(&self.under_way).contains_key(&name) || self.told.lock().await.is_told(&name, now) {
            return true;
        }
        if !has_room(&lock(&self.under_way), alert.namespace()) {
            self.counts.deferred.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let id = match self.claim(&name, &alert, now).await {
            Ok(Some(id)) => id,
            Ok(None) => return true,
            Err(error) => {
                self.say(STORE, &error);
                return false;
            }
        };
        alert.log();
        let which = (alert.budget().to_owned(), alert.threshold().to_string());
        *lock(&self.counts.thresholds).entry(which).or_default() += 1;
        if self.webhook.is_none() {
            self.done(&name, &id, &alert).await;
            return true;
        }
        lock(&self.under_way).insert(name.clone(), alert.namespace().to_owned());
        let alerts = Arc::clone(self);
        tokio::spawn(async move {
            alerts.deliver(&name, &id, &alert).await;
            lock(&alerts.under_way).remove(&name);
        });
        true
    }

    /// Its id, if it is this replica's to tell it.
    async fn claim(&self, name: &str, alert: &Alert, now: Timestamp) -> Result<Option<String>, String> {
        let new = format!("msg_{}", RecordId::new());
        let Some(claims) = &self.claims else {
            return Ok(Some(self.told.lock().await.begin(name, new, alert.forget_at()).await));
        };
        match claims.claim(name, &new, alert.life(now)).await? {
            Claimed::Yours(id) => Ok(Some(id)),
            Claimed::Held => Ok(None),
            Claimed::Told => {
                self.told.lock().await.note(name, new, alert.forget_at());
                Ok(None)
            }
        }
    }

    async fn done(&self, name: &str, id: &str, alert: &Alert) {
        self.told.lock().await.done(name, id.to_owned(), alert.forget_at()).await;
        if let Some(claims) = &self.claims
            && let Err(error) = claims.told(name, id, alert.life(Timestamp::now())).await
        {
            self.say(STORE, &error);
        }
    }

    async fn deliver(&self, name: &str, id: &str, alert: &Alert) {
        let Some(webhook) = &self.webhook else { return };
        let body = alert.body(id, &self.replica);
        let mut pause = FIRST_PAUSE;
        for left in (0..TRIES).rev() {
            let sent = {
                let Ok(_turn) = self.turns.acquire().await else { return };
                // It may have waited for longer than its claim lasts.
                if !self.is_still_ours(name, id, alert).await {
                    return;
                }
                webhook.post(id, &body).await
            };
            let asked = match sent {
                Ok(()) => {
                    self.done(name, id, alert).await;
                    self.counts.delivered.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(Undelivered::Again(why, asked)) => {
                    self.say(RECEIVER, &why);
                    asked
                }
                Err(Undelivered::Never(why)) => {
                    self.say(RECEIVER, &why);
                    break;
                }
            };
            if left > 0 && !self.wait(asked.unwrap_or(pause).min(MOST_PAUSE), (name, id, alert)).await {
                return;
            }
            pause = (pause * 2).min(MOST_PAUSE);
        }
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
        let (budget, threshold) = (alert.budget(), alert.threshold());
        tracing::error!(budget, %threshold, id, "nobody has taken an alert, and it is not sent again");
        self.done(name, id, alert).await;
    }

    /// Pauses, and keeps the claim meanwhile; whether it is still this replica's.
    async fn wait(&self, pause: Duration, (name, id, alert): (&str, &str, &Alert)) -> bool {
        let until = tokio::time::Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return true;
            }
            tokio::time::sleep(left.min(CLAIM / 3)).await;
            if !self.is_still_ours(name, id, alert).await {
                return false;
            }
        }
    }

    /// Where the store does not answer, it is: told twice is better than never.
    async fn is_still_ours(&self, name: &str, id: &str, alert: &Alert) -> bool {
        let Some(claims) = &self.claims else { return true };
        let claimed = claims.claim(name, id, alert.life(Timestamp::now())).await;
        !matches!(claimed, Ok(Claimed::Held | Claimed::Told))
    }

    fn say(&self, who: &'static str, why: &str) {
        if self.said.is_due(format!("{who}: {why}")) {
            tracing::warn!(who, why, "alerts wait; said once a minute");
        }
    }
}

/// Whether one more of this namespace may wait.
fn has_room(waiting: &HashMap<String, String>, namespace: &str) -> bool {
    let of_it = waiting.values().filter(|one| **one == namespace).count();
    waiting.len() < MOST_WAITING && of_it < MOST_OF_ONE
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_namespace_leaves_room_for_the_alerts_of_others() {
        let of = |namespace: &str, count: usize| {
            (0..count).map(|n| (format!("{namespace}{n}"), namespace.to_owned())).collect::<HashMap<_, _>>()
        };
        assert!(has_room(&of("greedy", MOST_OF_ONE - 1), "greedy"));
        assert!(!has_room(&of("greedy", MOST_OF_ONE), "greedy"));
        assert!(has_room(&of("greedy", MOST_OF_ONE), "other"));
        assert!(!has_room(&of("all", MOST_WAITING), "other"));
    }
}
