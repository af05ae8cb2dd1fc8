//! One of the replicas, by a Lease: it writes status, and the others wait for it to stop.
//!
//! **Invariant:** whoever has not renewed in time does not write any more, before another may take over. As client-go does it: the time of
//! others is never compared with one's own, only how long nothing was renewed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch as channel;
use tokio::time::Instant;

use super::client::{Connection, chain};
use super::watch::WatchStates;
use crate::drain::Phase;

/// The Lease in the gateway's namespace.
pub(super) const NAME: &str = "tollgate-controller";
/// How long a holder that renews nothing keeps it.
const DURATION: Duration = Duration::from_secs(15);
/// How long a holder that cannot renew goes on.
const DEADLINE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// This replica's candidacy.
pub(super) struct Election {
    api: Api<Lease>,
    candidate: Candidate,
}

struct Candidate {
    identity: String,
    /// What the holder last renewed, and when that was seen to change.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Election {
    /// For the replica of this name.
    pub(super) fn new(connection: &Connection, identity: String) -> Self {
        let api = Api::namespaced(connection.client.clone(), &connection.namespace);
        Self { api, candidate: Candidate { identity, seen: None } }
    }

    /// Stands for election until the process drains, and then steps down.
    pub(super) async fn run(
        mut self,
        leads: channel::Sender<bool>,
        states: Arc<WatchStates>,
        mut drain: channel::Receiver<Phase>,
    ) {
        let mut renewed: Option<Instant> = None;
        let (mut said, mut failed) = (String::new(), 0);
        loop {
            let elected = tokio::time::timeout(CALL_TIMEOUT, self.stand()).await;
            let failure = match elected {
                Ok(Ok(is_elected)) => {
                    renewed = is_elected.then(Instant::now);
                    String::new()
                }
                Ok(Err(error)) => chain(&error),
                Err(_) => "the API server does not answer".to_owned(),
            };
            failed = if failure.is_empty() { 0 } else { failed + 1 };
            // Away it is said to be by the watches, which may notice it a little later.
            if failed > 1 && failure != said && states.failure().is_none() {
                tracing::warn!(lease = NAME, error = %failure, "cannot stand for election as the one that writes status");
                said = failure;
            } else if failed == 0 {
                said.clear();
            }
            let is_leader = renewed.is_some_and(|renewed| renewed.elapsed() < DEADLINE);
            if *leads.borrow() != is_leader {
                tracing::info!(lease = NAME, is_leader, "who writes status");
                states.leads(is_leader);
                leads.send_replace(is_leader);
            }
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                _ = drain.wait_for(|phase| *phase > Phase::Serving) => break,
            }
        }
        leads.send_replace(false);
        states.leads(false);
        if renewed.is_some() {
            let _ = tokio::time::timeout(CALL_TIMEOUT, self.step_down()).await;
        }
    }

    /// Takes the Lease or renews it, if it is this replica's or nobody's; whether it has it now.
    async fn stand(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.candidate.held(&LeaseSpec::default())) };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        if !self.candidate.may_take(&spec, Instant::now()) {
            return Ok(false);
        }
        lease.spec = Some(self.candidate.held(&spec));
        // The version in its metadata makes sure that nobody else took it meanwhile.
        won(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    /// Gives it up, so that nobody has to wait for its end.
    async fn step_down(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(NAME).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_deref() != Some(&self.candidate.identity) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        self.api.replace(NAME, &PostParams::default(), &lease).await.map(drop)
    }
}

impl Candidate {
    /// Whether it is this replica's, nobody's, or was not renewed for as long as it lasts.
    fn may_take(&mut self, spec: &LeaseSpec, now: Instant) -> bool {
        let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty());
        let Some(holder) = holder else { return true };
        if holder == self.identity {
            return true;
        }
        match &self.seen {
            Some((seen, since)) if seen == spec => {
                let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
                now.duration_since(*since) >= seconds.map_or(DURATION, Duration::from_secs)
            }
            _ => {
                self.seen = Some((spec.clone(), now));
                false
            }
        }
    }

    /// What the Lease says while it is this replica's.
    fn held(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let is_mine = before.holder_identity.as_deref() == Some(&self.identity);
        let acquired = before.acquire_time.clone().filter(|_| is_mine);
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if is_mine { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

/// Another one was quicker: that is no failure.
fn won(written: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(identity: &str) -> Candidate {
        Candidate { identity: identity.to_owned(), seen: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_taken_over_only_when_its_holder_renewed_nothing_for_as_long_as_it_lasts() {
        let (holder, mut other) = (candidate("a"), candidate("b"));
        let spec = holder.held(&LeaseSpec::default());
        assert!(!other.may_take(&spec, Instant::now()));
        tokio::time::advance(Duration::from_secs(14)).await;
        assert!(!other.may_take(&spec, Instant::now()));
        let renewed = LeaseSpec { renew_time: Some(MicroTime(Timestamp::MAX)), ..spec };
        assert!(!other.may_take(&renewed, Instant::now()));
        tokio::time::advance(Duration::from_secs(14)).await;
        assert!(!other.may_take(&renewed, Instant::now()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(other.may_take(&renewed, Instant::now()));
        let taken = other.held(&renewed);
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(2)));
    }

    #[tokio::test]
    async fn a_lease_that_was_given_up_or_is_ones_own_is_taken_at_once() {
        let mut own = candidate("a");
        let spec = own.held(&LeaseSpec::default());
        assert!(own.may_take(&spec, Instant::now()));
        assert_eq!(own.held(&spec).lease_transitions, Some(1));
        let free = LeaseSpec { holder_identity: None, ..spec };
        assert!(candidate("b").may_take(&free, Instant::now()));
    }
}
