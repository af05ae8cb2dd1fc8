//! Taking changes: the resources, of files or of a cluster, the CA bundles that they name, the own certificate, the trust bundles.
//!
//! **Invariant:** a change of files is taken whole or not at all, once two looks found the same; until a good one comes, the last good one serves, and the log says why once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::block_in_place;
use tokio::time::MissedTickBehavior;
use tollgate_policy::compile::Environment;
use tollgate_policy::consent::Consents;
use tollgate_policy::model::{Problem, SourceFile};

use super::own_files::OwnFiles;
use super::{environment, lines};
use crate::core::Shared;
use crate::expiry::SaidWarnings;
use crate::identity::IdentityFiles;
use crate::interception::CaFiles;
use crate::kubernetes::ObjectFeed;
use crate::ledger::Balances;
use crate::preflight;
use crate::settings::{ResourceSettings, Settings};
use crate::snapshot::{Reloads, ResourceFiles, Snapshot, ca_states, digest_of};
use crate::stable_file::{Look, StableFile};
use crate::upstream::{CaState, DialRules, ca_state, dated, local_addresses};

/// Mounted volumes change by a link that moves, which file notifications of the files themselves miss; a look a second is cheap.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the dates of certificates are looked at.
const REMARK_EVERY: Duration = Duration::from_secs(60);

const REFUSED: &str = "configuration refused";

pub(super) struct Reload {
    identity: IdentityFiles,
    interception: Option<CaFiles>,
    resources: Resources,
    disk: StableFile<Disk>,
    /// What the snapshot in force was built of.
    good: Vec<SourceFile>,
    /// What the namespaces of a cluster agree to.
    consents: Consents,
    /// The CA bundles of what was last read and of the snapshot in force.
    authorities: Authorities,
    /// A signal asked for a look, and the files have not settled since.
    forced: bool,
    environment: Environment,
    settings: Settings,
    /// What the settings file last said.
    settings_seen: String,
    pub(super) reloads: Arc<Reloads>,
    complaint: String,
    identity_complaint: String,
    remarks: SaidWarnings,
    /// What has been said of the resources in force.
    warned: SaidWarnings,
    remarked: Instant,
    /// What the ledger says was charged, until there is a policy whose limits it is booked in.
    balances: Option<Balances>,
}

/// Where resources come from.
enum Resources {
    Files(ResourceFiles),
    Objects(ObjectFeed),
}

/// CA bundles of destinations, as they were read.
type Authorities = BTreeMap<PathBuf, Option<CaState>>;

/// What a snapshot is made of, to tell a change by.
#[derive(Debug, PartialEq, Eq)]
struct Disk {
    /// The files of resources; what the system says where they cannot be read.
    resources: Result<Vec<u8>, String>,
    authorities: Authorities,
}

impl Reload {
    /// `objects` are followed where the settings name a cluster.
    pub(super) fn new(
        OwnFiles { identity, interception }: OwnFiles,
        settings: Settings,
        objects: Option<ObjectFeed>,
    ) -> anyhow::Result<Self> {
        let identity_complaint = faults(&identity);
        if !identity_complaint.is_empty() {
            let problems = &identity_complaint;
            tracing::error!(%problems, "trust bundle refused; until it is good, nobody of its domain is trusted");
        }
        let resources = match (&settings.resources, objects) {
            (ResourceSettings::Directory(directory), _) => {
                Resources::Files(ResourceFiles::new(directory.clone()))
            }
            (ResourceSettings::Kubernetes(_), Some(objects)) => Resources::Objects(objects),
            (ResourceSettings::Kubernetes(_), None) => bail!("resources.kubernetes: nothing is watched"),
        };
        Ok(Self {
            identity,
            interception,
            resources,
            disk: StableFile::new(None),
            good: Vec::new(),
            consents: Consents::default(),
            authorities: BTreeMap::new(),
            forced: false,
            environment: environment(&settings)?,
            settings_seen: settings.origin.file.text.clone(),
            settings,
            reloads: Arc::default(),
            complaint: String::new(),
            identity_complaint,
            remarks: SaidWarnings::default(),
            warned: SaidWarnings::default(),
            balances: None,
            remarked: Instant::now(),
        })
    }

    /// The snapshot to start with: there is no last good one to wait with. `None` where nothing is known yet of the objects of a
    /// cluster.
    pub(super) fn first(&mut self, control: &Handle) -> Result<Option<Snapshot>, Vec<Problem>> {
        self.remark(None);
        let files = match &mut self.resources {
            Resources::Files(files) => match files.read() {
                Ok(files) => files,
                Err(error) => return Err(vec![self.unreadable(&error)]),
            },
            Resources::Objects(objects) => {
                control.block_on(objects.begin());
                let Some((files, consents)) = objects.sources() else { return Ok(None) };
                self.consents = consents;
                files
            }
        };
        let snapshot = self.build(&files, None)?;
        self.took(&files, snapshot.ca_states());
        self.good = files;
        Ok(Some(snapshot))
    }

    /// Puts the first snapshot in force, or sees to it that what was charged is booked as soon as there is one.
    pub(super) fn begin(&mut self, first: Option<Snapshot>, balances: Balances, shared: &Shared) {
        self.balances = Some(balances);
        if let Some(first) = first {
            self.publish(first, shared);
        }
    }

    fn publish(&mut self, snapshot: Snapshot, shared: &Shared) {
        if let Some(balances) = self.balances.take() {
            shared.quota.restore(balances, &snapshot.policy);
        }
        shared.publish(snapshot);
        if let (Resources::Objects(objects), Some(snapshot)) = (&self.resources, shared.snapshots.current()) {
            objects.took(snapshot);
        }
    }

    /// Looks for changes until the process ends. The runtime has several threads: what else it does, like asking for secrets, goes on while
    /// a change is taken.
    pub(super) async fn watch(&mut self, shared: &Shared) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut forced = false;
        loop {
            if shared.snapshots.has_unused() {
                block_in_place(|| shared.snapshots.free_unused());
            }
            // A signal brings no look of its own: two looks are never closer than files need to settle.
            tokio::select! {
                () = hung_up(&mut hangup) => forced = true,
                _ = looks.tick() => self.look(shared, std::mem::take(&mut forced)),
                () = self.identity.changed() => self.take_said(shared),
                () = self.resources.changed() => block_in_place(|| self.take_objects(shared)),
            }
        }
    }

    /// Takes the objects of a cluster, which come whole.
    fn take_objects(&mut self, shared: &Shared) {
        let Resources::Objects(objects) = &self.resources else { return };
        let Some((files, consents)) = objects.sources() else { return };
        self.consents = consents;
        let authorities = self.authorities.keys().map(|file| (file.clone(), ca_state(file))).collect();
        self.take(files, authorities, shared);
    }

    fn look(&mut self, shared: &Shared, forced: bool) {
        self.look_at_identity(shared, forced);
        self.look_at_settings(forced);
        if forced {
            look_at_interfaces(&shared.rules);
            self.disk.forget();
            self.forced = true;
            shared.secrets.reread();
        }
        let files = match &self.resources {
            Resources::Files(files) => files.read().map(Some),
            // Nothing is known of them yet.
            Resources::Objects(_) if shared.snapshots.generation() == 0 => return,
            // Those in force: others come by themselves.
            Resources::Objects(_) => Ok(None),
        };
        let read = |files: &Option<Vec<SourceFile>>| self.digest(files.as_deref().unwrap_or_default());
        let resources = files.as_ref().map(read).map_err(ToString::to_string);
        let authorities: Authorities =
            self.authorities.keys().map(|file| (file.clone(), ca_state(file))).collect();
        let disk = Disk { resources, authorities: authorities.clone() };
        if self.disk.look(disk) != Look::Settled {
            return;
        }
        let forced = std::mem::take(&mut self.forced);
        match files {
            Ok(files) => {
                let files = files.unwrap_or_else(|| self.good.clone());
                block_in_place(|| self.take(files, authorities, shared));
            }
            Err(error) => {
                let problem = self.unreadable(&error).to_string();
                self.reloads.set_refused(true);
                complain(&self.reloads, &mut self.complaint, problem, forced, REFUSED);
                self.renew(&authorities, shared);
            }
        }
    }

    /// Takes the files that have settled beside these CA bundles, or says why not.
    fn take(&mut self, files: Vec<SourceFile>, seen: Authorities, shared: &Shared) {
        let before = shared.snapshots.current();
        match self.build(&files, before.as_deref()) {
            Ok(snapshot) => {
                let generation = snapshot.generation;
                look_at_interfaces(&shared.rules);
                self.took(&files, snapshot.ca_states());
                self.publish(snapshot, shared);
                self.complaint.clear();
                self.reloads.set_refused(false);
                match self.resources {
                    Resources::Files(_) => {
                        tracing::info!(generation, files = files.len(), "configuration taken");
                    }
                    Resources::Objects(_) => {
                        tracing::info!(generation, objects = files.len(), "configuration taken");
                    }
                }
                self.good = files;
            }
            Err(problems) => {
                self.reloads.set_refused(true);
                complain(&self.reloads, &mut self.complaint, lines(&problems), true, REFUSED);
                self.renew(&seen, shared);
                // Whichever is mended first is to be seen: these files, or a bundle of what is in force.
                let mut authorities = ca_states(&files, &self.environment).unwrap_or_default();
                authorities.extend(seen);
                self.took(&files, authorities);
            }
        }
    }

    /// Takes CA bundles of the configuration in force that changed or ended, while what is on disk cannot be taken.
    fn renew(&mut self, seen: &Authorities, shared: &Shared) {
        let Some(before) = shared.snapshots.current() else { return };
        let is_same = |(file, state): (&PathBuf, &Option<CaState>)| seen.get(file) == Some(state);
        if before.ca_states().iter().all(is_same) {
            return;
        }
        // A bundle that cannot be used is no news here: the refusal above, or the next one, names it.
        let good = self.good.clone();
        if let Ok(snapshot) = self.build(&good, Some(&before)) {
            let generation = snapshot.generation;
            self.publish(snapshot, shared);
            tracing::info!(generation, "CA bundles taken; the last good configuration serves");
        }
    }

    /// What is on disk counts as taken: only another change is looked at.
    fn took(&mut self, files: &[SourceFile], authorities: Authorities) {
        let resources = Ok(self.digest(files));
        self.authorities.clone_from(&authorities);
        self.disk = StableFile::new(Some(Disk { resources, authorities }));
    }

    /// What files are told apart by. Objects come when they change.
    fn digest(&self, files: &[SourceFile]) -> Vec<u8> {
        match self.resources {
            Resources::Files(_) => digest_of(files),
            Resources::Objects(_) => Vec::new(),
        }
    }

    fn look_at_identity(&mut self, shared: &Shared, forced: bool) {
        let mut taken = self.identity.refresh();
        if self.interception.as_mut().is_some_and(CaFiles::refresh) {
            taken.push("authority of interception".to_owned());
        }
        self.took_identity(&taken, shared, forced);
    }

    /// Takes what the Workload API says.
    fn take_said(&mut self, shared: &Shared) {
        let taken = self.identity.take_said();
        self.took_identity(&taken, shared, false);
    }

    fn took_identity(&mut self, taken: &[String], shared: &Shared, forced: bool) {
        for what in taken {
            tracing::info!("{what} taken anew");
        }
        let mut faults = faults(&self.identity);
        if let Some(fault) = self.interception.as_ref().and_then(CaFiles::fault) {
            faults.push_str(&format!("\n{fault}"));
        }
        let faults = faults.trim_start();
        if faults.is_empty() {
            self.identity_complaint.clear();
        } else {
            let complaint = &mut self.identity_complaint;
            complain(
                &self.reloads,
                complaint,
                faults.to_owned(),
                forced,
                "certificate or trust bundle refused",
            );
        }
        if !taken.is_empty() || self.remarked.elapsed() >= REMARK_EVERY {
            self.remark(Some(shared));
        }
    }

    /// Says once what is wrong with the certificates in force, and which end soon.
    fn remark(&mut self, shared: Option<&Shared>) {
        let now = Timestamp::now();
        self.remarked = Instant::now();
        let own = self.identity.remarks(&self.settings.names, now);
        let mut remarks: Vec<String> =
            own.into_iter().map(|(field, said)| self.settings.problem(&field, said).to_string()).collect();
        if let Some(files) = &self.interception {
            let dated = files.interception.dated();
            let warning = dated.warning(now, Duration::ZERO);
            remarks.extend(warning.map(|said| self.settings.problem(&dated.name, said).to_string()));
        }
        if let Some(shared) = shared
            && let Some(snapshot) = shared.snapshots.current()
        {
            remarks.extend(preflight::authorities(&snapshot, now).iter().map(ToString::to_string));
            let clients = dated(&snapshot.policy, &shared.secrets);
            remarks.extend(clients.iter().filter_map(|dated| dated.warning(now, Duration::ZERO)));
        }
        for warning in self.remarks.news(remarks) {
            tracing::warn!(%warning, "certificate");
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

    fn build(&mut self, files: &[SourceFile], before: Option<&Snapshot>) -> Result<Snapshot, Vec<Problem>> {
        let (snapshot, mut warnings) = Snapshot::build((files, &self.consents), &self.environment, before)?;
        let settings = Some(&self.settings);
        warnings.extend(preflight::resources(&snapshot.policy, settings));
        if let Some(files) = &self.interception {
            warnings.extend(preflight::unsigned(&snapshot.policy, &files.interception));
        }
        let nothing = match &self.settings.resources {
            ResourceSettings::Directory(directory) => {
                preflight::nothing(&snapshot.policy, files, directory, settings)
            }
            // Whoever asks for access may not have come yet.
            ResourceSettings::Kubernetes(_) => None,
        };
        let said: Vec<String> = warnings.iter().map(ToString::to_string).chain(nothing).collect();
        match self.resources {
            Resources::Files(_) => said.iter().for_each(|warning| tracing::warn!(%warning, "configuration")),
            // They change one by one, and most of them say what they said before.
            Resources::Objects(_) => {
                let refused = snapshot.refused.iter().map(|problem| format!("refused: {problem}"));
                let said = self.warned.news(said.into_iter().chain(refused).collect());
                said.iter().for_each(|warning| tracing::warn!(%warning, "object of the cluster"));
            }
        }
        Ok(snapshot)
    }

    fn unreadable(&self, error: &std::io::Error) -> Problem {
        self.settings.problem("resources", error.to_string())
    }
}

impl Resources {
    /// Ready when there are other objects; files have to be looked at.
    async fn changed(&mut self) {
        match self {
            Self::Files(_) => std::future::pending().await,
            Self::Objects(objects) => objects.changed().await,
        }
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
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
    identity.faults().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Says the same thing once, unless it was asked again.
fn complain(reloads: &Reloads, said: &mut String, problems: String, again: bool, what: &str) {
    if again || problems != *said {
        reloads.fail();
        tracing::error!(%problems, "{what}; the last good one serves");
        *said = problems;
    }
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").finish_non_exhaustive()
    }
}
