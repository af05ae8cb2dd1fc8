//! What the admin port shows of the process.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use tollgate_policy::name::ResourceId;
use tollgate_secrets::{CredentialStatus, Health};

use crate::alerts::Alerts;
use crate::audit;
use crate::budgets::{self, BudgetListing};
use crate::core::{Core, Shared};
use crate::credentials::{self, KeyListing, RefreshOutcome, failure_and};
use crate::drain::Phase;
use crate::expiry::{self, Purpose};
use crate::identity::FilesInForce;
use crate::key_health::KeyStatus;
use crate::kubernetes::WatchStates;
use crate::ledger::{Ledger, PostgresProgress};
use crate::metrics::{Scrape, ShownFamily};
use crate::otlp::ExportCounts;
use crate::snapshot::Reloads;
use crate::stats::Sums;
use crate::upstream::{self, DestinationStatus};

/// Handles on everything that is shown.
#[derive(Debug)]
pub(crate) struct AdminViews {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cores: Vec<Arc<Core>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) audit: Arc<audit::AuditView>,
    pub(crate) reloads: Arc<Reloads>,
    pub(crate) identity: Arc<FilesInForce>,
    pub(crate) exported: ExportCounts,
    pub(crate) alerts: Arc<Alerts>,
    /// How the objects of a cluster are watched, if resources come from one.
    pub(crate) cluster: Option<Arc<WatchStates>>,
}

impl AdminViews {
    /// Why no traffic should come here; `None` where it may.
    pub(super) fn unready(&self) -> Option<String> {
        if self.shared.drain.phase() > Phase::Serving {
            return Some("draining".into());
        }
        if self.shared.snapshots.generation() == 0 {
            let why = self.cluster.as_ref().and_then(|cluster| cluster.failure());
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            return Some(format!("no configuration is loaded{why}"));
        }
        if let Some(why) = self.identity.unready(Timestamp::now()) {
            return Some(why);
        }
        if self.shared.quota.replicas().is_some_and(|replicas| replicas.is_superseded()) {
            return Some("another process has the id of this replica: see the log".into());
        }
        let broken = self.cores.iter().find_map(|core| core.journal.available().err());
        broken.map(|error| format!("the journal cannot be written: {error}"))
    }

    pub(super) fn metrics(&self) -> Result<String, prometheus::Error> {
        self.scrape().encode()
    }

    /// The same as OpenMetrics.
    pub(super) fn openmetrics(&self) -> String {
        self.scrape().encode_openmetrics()
    }

    /// Every number there is, for whoever sends them somewhere.
    pub(crate) fn families(&self) -> Vec<ShownFamily> {
        self.scrape().families()
    }

    fn scrape(&self) -> Scrape<'static> {
        let mut sums = Sums::default();
        for core in &self.cores {
            sums.add(&core.stats);
        }
        Scrape {
            sums,
            refused_handshakes: self.shared.trust.refused().collect(),
            limits: self.shared.quota.usage(Timestamp::now()),
            alerts: self.alerts.totals(),
            replicas: self.shared.quota.replicas().map(|replicas| replicas.status()),
            ledger: [
                Some(("journal", self.cores.iter().all(|core| core.journal.available().is_ok()))),
                Some(("store", self.ledger.storing())),
                Some(("audit", self.audit.writable())),
                self.ledger.shared().map(|shared| ("postgres", shared.works())),
            ],
            ledger_waiting: self.ledger.shared().map(PostgresProgress::waiting),
            sources: self.shared.sources.states(),
            upstreams: self.upstreams(),
            stores: self.shared.secrets.health(),
            issuers: self.shared.secrets.issuers(),
            credentials: self.shared.secrets.status(),
            token_issuers: self.shared.trust.tokens().standing(Timestamp::now()),
            keys: self.keys(),
            generation: self.shared.snapshots.generation(),
            identity: self.identity.all(),
            reload_failures: self.reloads.failures(),
            is_config_refused: self.reloads.is_refused(),
            certificates: self.certificates(),
            exported: self.exported.totals(),
            cluster: self.cluster.as_ref().map(|cluster| (cluster.status(), cluster.is_leader())),
            persisted: self.cluster.as_ref().and_then(|cluster| cluster.persisted()),
            unwritten_hosts: self.cluster.as_ref().map_or(0, |cluster| cluster.unwritten_hosts()),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// How the destinations do that were called.
    fn upstreams(&self) -> Vec<(ResourceId, DestinationStatus)> {
        let Some(snapshot) = self.shared.snapshots.current() else { return Vec::new() };
        let named = snapshot.policy.destinations().map(|destination| &destination.name);
        named.filter_map(|name| Some((name.clone(), self.shared.upstreams.status(name)?))).collect()
    }

    /// The same as JSON; null where none was called.
    fn upstream(&self, destination: &ResourceId) -> Value {
        let Some(status) = self.shared.upstreams.status(destination) else { return Value::Null };
        let endpoints = status.endpoints.iter().map(|(host, address, failures, left)| {
            json!({
                "host": **host, "address": address.to_string(), "failures": failures, "ejectedForSeconds": left,
                "circuitOpen": status.open.contains(host),
            })
        });
        json!({
            "calls": status.calls, "connections": status.connections, "ejections": status.ejections,
            "retries": status.retried, "retriesOverBudget": status.not_retried, "endpoints": endpoints.collect::<Vec<_>>(),
        })
    }

    /// How the keys of pools do.
    fn keys(&self) -> Vec<KeyStatus> {
        let current = self.shared.snapshots.current();
        current.map_or_else(Vec::new, |snapshot| {
            self.shared.keys.status(&snapshot.policy, &self.shared.secrets, Instant::now())
        })
    }

    /// The budgets of the policy in force, and what is used of them.
    pub(super) fn budgets(&self) -> Vec<BudgetListing> {
        let Some(snapshot) = self.shared.snapshots.current() else { return Vec::new() };
        let now = Timestamp::now();
        budgets::of(&snapshot.policy, Some(&self.shared.quota.usage(now)), now)
    }

    /// The credentials of the policy in force, and how their secrets do.
    pub(super) fn credentials(&self) -> Vec<KeyListing> {
        let Some(snapshot) = self.shared.snapshots.current() else { return Vec::new() };
        let mut listed = credentials::of(&snapshot.policy);
        for status in self.shared.secrets.status() {
            if let Some(listed) =
                listed.iter_mut().find(|listed| listed.is(&status.credential, status.alias.as_ref()))
            {
                listed.lives(&status, self.audit.last_use(&status.credential, status.alias.as_ref()));
            }
        }
        for status in self.shared.keys.status(&snapshot.policy, &self.shared.secrets, Instant::now()) {
            if let Some(listed) =
                listed.iter_mut().find(|listed| listed.is(&status.credential, Some(&status.alias)))
            {
                listed.does(&status);
            }
        }
        listed
    }

    /// Fetches every key of a credential now; `None`: there is no such credential.
    pub(super) async fn refresh(&self, name: &str) -> Option<Vec<RefreshOutcome>> {
        let snapshot = self.shared.snapshots.current()?;
        let credential = snapshot.policy.credentials().find(|credential| credential.name.as_str() == name)?;
        let mut all = Vec::new();
        for (at, key) in credential.keys.iter().enumerate() {
            let alias = key.alias.as_ref().map(ToString::to_string);
            let Some(done) = self.shared.secrets.refresh(credential, at).await else { continue };
            let is_this = |status: &&CredentialStatus| {
                status.credential == credential.name && status.alias == key.alias
            };
            let status = self.shared.secrets.status();
            let said = status.iter().find(is_this).and_then(|status| status.said.clone());
            tracing::info!(
                credential = name,
                alias,
                changed = done.changed,
                "secret fetched because an operator asked for it"
            );
            all.push(RefreshOutcome {
                alias,
                before: done.before.as_deref().map(str::to_owned),
                version: done.now.as_deref().map(str::to_owned),
                changed: done.changed,
                failure: done.failure.map(|failure| failure_and(failure, said.as_deref())),
            });
        }
        Some(all)
    }

    /// What is not as it should be while traffic may come here: calls that need no secret of a store that fails, or one
    /// that is cached, and callers of other trust domains, are answered all the same.
    pub(super) fn remarks(&self) -> Vec<String> {
        let stores = self.shared.secrets.health();
        let failing = stores.iter().filter(|store| store.failing_for.is_some()).count();
        let files = self.identity.all();
        let refused = files.iter().filter(|(_, stands)| !stands).count();
        let tokens = self.shared.trust.tokens().standing(Timestamp::now());
        let status = self.shared.secrets.status();
        let all: BTreeSet<&ResourceId> = status.iter().map(|status| &status.credential).collect();
        let with = |is: fn(&CredentialStatus) -> bool| {
            let such = status.iter().filter(|status| is(status));
            such.map(|status| &status.credential).collect::<BTreeSet<_>>().len()
        };
        let counts = [
            (failing, stores.len(), "secret stores fail"),
            (
                with(|status| status.rejected.is_some()),
                all.len(),
                "credentials are rejected by their provider",
            ),
            (
                with(|status| matches!(status.health, Health::Unavailable { .. })),
                all.len(),
                "credentials cannot be had",
            ),
            (refused, files.len(), "identity files are refused"),
            (
                tokens.iter().filter(|issuer| !issuer.is_up()).count(),
                tokens.len(),
                "issuers of tokens do not say their keys",
            ),
        ];
        let told = counts.iter().filter(|(count, ..)| *count > 0);
        let told = told.map(|(count, all, what)| format!("{count} of {all} {what}"));
        let refused = "the configuration on disk is refused, and the last good one serves";
        let refused = self.reloads.is_refused().then(|| refused.to_owned());
        let is_away = self.shared.quota.replicas().is_some_and(|replicas| !replicas.status().up);
        let away = is_away.then(|| "the store of shared limits does not answer".to_owned());
        told.chain(refused).chain(away).chain(self.cluster_remarks()).collect()
    }

    fn cluster_remarks(&self) -> Vec<String> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let failure = cluster.failure().map(|why| format!("the API server cannot be watched: {why}"));
        let persisted = cluster.persisted().map(|confirmed| {
            format!("persisted objects serve, which the API server last confirmed at {confirmed:.0}")
        });
        let unwritten = Some(cluster.unwritten_hosts()).filter(|count| *count > 0).map(|count| {
            format!("{count} objects hold hosts that cannot be written into their status, so older ones that name these take them")
        });
        persisted.into_iter().chain(failure).chain(unwritten).collect()
    }

    /// When the certificates end that are in use.
    fn certificates(&self) -> Vec<(Purpose, String, Timestamp)> {
        let mut all = self.identity.dated().to_vec();
        all.extend(self.shared.interception.as_ref().map(|interception| interception.dated()));
        if let Some(snapshot) = self.shared.snapshots.current() {
            all.extend(snapshot.policy.destinations().flat_map(|destination| snapshot.dated(destination)));
            all.extend(upstream::dated(&snapshot.policy, &self.shared.secrets));
        }
        expiry::ends(&all)
    }

    /// Whose tokens prove callers, and how old their keys are.
    fn token_issuers(&self) -> Vec<Value> {
        let all = self.shared.trust.tokens().standing(Timestamp::now());
        let shown = all.iter().map(|issuer| {
            json!({
                "issuer": issuer.issuer, "kind": issuer.kind.as_str(), "audience": issuer.audience, "cluster": issuer.cluster,
                "up": issuer.is_up(), "keys": issuer.keys, "keysAgeSeconds": issuer.age.map(|age| age.as_secs()),
                "failures": issuer.failures, "error": issuer.fault.as_deref(),
            })
        });
        shown.collect()
    }

    pub(super) fn snapshot(&self) -> Value {
        let limits: Vec<Value> = self
            .shared
            .quota
            .usage(Timestamp::now())
            .iter()
            .map(|usage| {
                json!({
                    "limit": *usage.limit, "owner": usage.owner.to_string(), "key": *usage.key, "unit": usage.unit.as_str(),
                    "amount": usage.amount, "spent": usage.spent, "held": usage.held, "spentByAll": usage.spent_by_all(),
                    "leased": usage.leased,
                })
            })
            .collect();
        let stores: Vec<Value> = self.shared.secrets.health().iter().map(|store| json!({
            "store": store.store.to_string(), "up": store.failing_for.is_none(), "error": store.error, "cause": store.cause, "stale": store.stale, "unavailable": store.unavailable,
        })).collect();
        let issuers: Vec<Value> = self.shared.secrets.issuers().iter().map(|issuer| json!({
            "endpoint": issuer.endpoint, "up": issuer.failing_for.is_none(), "error": issuer.error, "tokens": issuer.tokens, "unavailable": issuer.unavailable,
        })).collect();
        let Some(snapshot) = self.shared.snapshots.current() else { return json!({"generation": 0}) };
        let policy = &snapshot.policy;
        let destinations: Vec<Value> = policy.destinations().map(|d| json!({
            "name": d.name.to_string(), "hosts": d.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), "port": d.port,
            "dialect": d.http().map(|http| http.dialect.name()), "upstream": self.upstream(&d.name),
        })).collect();
        let credentials: Vec<Value> = policy
            .credentials()
            .map(|c| {
                let keys = c.keys.iter().enumerate().map(|(at, key)| {
                    json!({
                        "alias": key.alias.as_ref().map(ToString::to_string), "store": key.from.store.to_string(),
                        "version": self.shared.secrets.peek(c, at).map(|secret| secret.version().to_string()),
                    })
                });
                json!({"name": c.name.to_string(), "keys": keys.collect::<Vec<_>>()})
            })
            .collect();
        let grants: Vec<Value> = policy
            .grants()
            .map(|g| {
                json!({
                    "name": g.name.to_string(), "destination": g.destination.name.to_string(),
                    "credential": g.credential.as_ref().map(|c| c.name.to_string()),
                    "callers": g.callers.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "limits": g.limits.iter().map(|l| l.id.to_string()).collect::<Vec<_>>(),
                })
            })
            .collect();
        let budgets: Vec<Value> = policy
            .budgets()
            .map(|b| {
                json!({
                    "name": b.name.to_string(), "parent": b.parent.as_ref().map(ToString::to_string),
                    "limits": b.limits.iter().map(|l| l.id.to_string()).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({
            "generation": snapshot.generation, "destinations": destinations, "credentials": credentials, "grants": grants,
            "budgets": budgets,
            "limits": limits, "stores": stores, "tokenEndpoints": issuers, "tokenIssuers": self.token_issuers(),
            "refused": snapshot.refused.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "persisted": self.cluster.as_ref().and_then(|cluster| cluster.persisted()).map(|at| at.to_string()),
        })
    }
}
