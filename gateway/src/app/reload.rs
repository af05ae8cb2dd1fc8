//! Taking changes of files: the resources, the own certificate, the trust bundles.
//!
//! **Invariant:** a change is taken whole or not at all; until a good one comes, the last good one serves, and the log says why once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tollgate_policy::compile::Environment;
use tollgate_policy::model::{Problem, SourceFile};

use super::{environment, lines};
use crate::core::Shared;
use crate::identity::IdentityFiles;
use crate::preflight;
use crate::settings::Settings;
use crate::snapshot::{ResourceFiles, Snapshot};
use crate::upstream::{DialRules, local_addresses};

/// Mounted volumes change by a link that moves, which file notifications of the files themselves miss; a look a second is cheap.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const REFUSED: &str = "configuration refused";

pub(super) struct Reload {
    identity: IdentityFiles,
    resources: ResourceFiles,
    environment: Environment,
    settings: Settings,
    /// What the settings file last said.
    settings_seen: String,
    pub(super) failures: Arc<AtomicU64>,
    complaint: String,
    identity_complaint: String,
}

impl Reload {
    pub(super) fn new(identity: IdentityFiles, settings: Settings) -> anyhow::Result<Self> {
        let identity_complaint = faults(&identity);
        if !identity_complaint.is_empty() {
            let problems = &identity_complaint;
            tracing::error!(%problems, "trust bundle refused; until it is good, nobody of its domain is trusted");
        }
        Ok(Self {
            identity,
            resources: ResourceFiles::new(settings.resources.clone()),
            environment: environment(&settings)?,
            settings_seen: settings.origin.file.text.clone(),
            settings,
            failures: Arc::new(AtomicU64::new(0)),
            complaint: String::new(),
            identity_complaint,
        })
    }

    /// The snapshot to start with.
    pub(super) fn first(&mut self) -> Result<Snapshot, Vec<Problem>> {
        let files =
            self.resources.changed().map_err(|error| vec![self.unreadable(&error)])?.unwrap_or_default();
        self.build(&files, None)
    }

    /// Looks for changes until the process ends.
    pub(super) async fn watch(&mut self, shared: &Shared) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let forced = match &mut hangup {
                Some(hangup) => tokio::select! {
                    _ = hangup.recv() => true,
                    () = tokio::time::sleep(LOOK_EVERY) => false,
                },
                None => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    false
                }
            };
            self.look(shared, forced);
        }
    }

    fn look(&mut self, shared: &Shared, forced: bool) {
        for what in self.identity.refresh() {
            tracing::info!("{what} taken anew");
        }
        let faults = faults(&self.identity);
        if faults.is_empty() {
            self.identity_complaint.clear();
        } else {
            let complaint = &mut self.identity_complaint;
            complain(&self.failures, complaint, faults, forced, "certificate or trust bundle refused");
        }
        self.look_at_settings(forced);
        if forced {
            look_at_interfaces(&shared.rules);
            self.resources.forget();
            shared.secrets.reread();
        }
        let files = match self.resources.changed() {
            Ok(Some(files)) => files,
            Ok(None) => return,
            Err(error) => {
                let problem = self.unreadable(&error).to_string();
                return complain(&self.failures, &mut self.complaint, problem, forced, REFUSED);
            }
        };
        let before = shared.snapshots.current();
        match self.build(&files, before.as_deref()) {
            Ok(snapshot) => {
                let generation = snapshot.generation;
                look_at_interfaces(&shared.rules);
                shared.publish(snapshot);
                self.complaint.clear();
                tracing::info!(generation, files = files.len(), "configuration taken");
            }
            Err(problems) => complain(&self.failures, &mut self.complaint, lines(&problems), true, REFUSED),
        }
    }

    /// Says that settings changed: they are not taken while the process runs.
    fn look_at_settings(&mut self, forced: bool) {
        let SourceFile { path, text: taken } = &self.settings.origin.file;
        let Ok(now) = std::fs::read_to_string(path) else { return };
        if now != *taken && (forced || now != self.settings_seen) {
            tracing::warn!("{} changed: it is read at the next start", path.display());
        }
        self.settings_seen = now;
    }

    fn build(&self, files: &[SourceFile], before: Option<&Snapshot>) -> Result<Snapshot, Vec<Problem>> {
        let (snapshot, mut warnings) = Snapshot::build(files, &self.environment, before)?;
        let settings = Some(&self.settings);
        warnings.extend(preflight::resources(&snapshot.policy, settings));
        let nothing = preflight::nothing(&snapshot.policy, files, &self.settings.resources, settings);
        for warning in warnings.iter().map(ToString::to_string).chain(nothing) {
            tracing::warn!(%warning, "configuration");
        }
        Ok(snapshot)
    }

    fn unreadable(&self, error: &std::io::Error) -> Problem {
        self.settings.problem("resources", error.to_string())
    }
}

/// An address that this machine got since must not be a way to its own listeners.
fn look_at_interfaces(rules: &DialRules) {
    match local_addresses() {
        Ok(addresses) => rules.own_addresses(addresses),
        Err(error) => tracing::warn!(%error, "the addresses of this machine; those before stay"),
    }
}

/// What is wrong with the files of the identity, one a line.
fn faults(identity: &IdentityFiles) -> String {
    identity.faults().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Says the same thing once, unless it was asked again.
fn complain(failures: &AtomicU64, said: &mut String, problems: String, again: bool, what: &str) {
    if again || problems != *said {
        failures.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%problems, "{what}; the last good one serves");
        *said = problems;
    }
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").finish_non_exhaustive()
    }
}
