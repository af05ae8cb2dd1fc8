//! The one place where everything is built and wired.

mod alerts;
mod cores;
mod environment;
mod ledger_database;
mod own_files;
mod reload;
mod shared_limits;
mod signals;

use std::fs::DirBuilder;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use jiff::SignedDuration;
use nix::sys::resource::{Resource, setrlimit};
use tokio::runtime::{Builder, Handle, Runtime};
use tollgate_policy::model::{Interval, Problem};
use tollgate_secrets::{Observations, Observer, Secrets};
use zeroize::Zeroizing;

use self::cores::{Cores, ListenerSockets};
pub(crate) use self::environment::{environment, environment_of, home};
use self::own_files::OwnFiles;
use self::reload::Reload;
use self::shared_limits::SharedLimits;
use self::signals::{Asked, Signals};
use crate::admin::{self, Admin, AdminViews};
use crate::audit::{Auditor, OpenTrail};
use crate::caller_occupancy::CallerOccupancies;
use crate::core::{Shared, Throttles};
use crate::drain::Drain;
use crate::files::DirectoryLock;
use crate::identity::FilesInForce;
use crate::key_health::KeyPools;
use crate::kubernetes::ClusterWatch;
use crate::ledger::{Balances, Keep, Ledger, LedgerError, PostgresIngest, Recovered};
use crate::listener;
use crate::memory;
use crate::otlp::{Exports, PreparedExport, Sinks};
use crate::settings::{self, KeepSettings, ResourceSettings, Settings, TlsMode};
use crate::slow_notice;
use crate::snapshot::{Snapshot, Snapshots};
use crate::telemetry::{self, Flush};
use crate::upstream::{self, DialRules, SourceAddresses, UpstreamHealth, local_addresses};
use crate::version_key;

/// How long the secret stores have to take back what they lent.
const GIVE_BACK: Duration = Duration::from_secs(5);
/// How soon calls leave an address that this machine lost: under a second.
const SOURCE_LOOK: Duration = Duration::from_millis(500);
const INGEST_EVERY: Duration = Duration::from_millis(200);
const SYNC_EVERY: Duration = Duration::from_secs(1);
const SEAL_EVERY: Duration = Duration::from_secs(60);
/// How long the end waits for the database of several replicas.
const SHARE_PATIENCE: Duration = Duration::from_secs(10);

/// A gateway that serves.
#[derive(Debug)]
pub struct App {
    control: Runtime,
    shared: Arc<Shared>,
    cores: Cores,
    keeper: LedgerThread,
    /// Where the ledger goes to a database of several replicas.
    sharer: Option<PostgresIngest>,
    auditor: Auditor,
    _lock: DirectoryLock,
    settings: Settings,
    logs: Option<Flush>,
    exports: Option<Exports>,
    slices: Option<SharedLimits>,
    /// Addresses of the listeners, in the order of the settings.
    pub listeners: Vec<SocketAddr>,
    /// Address of the admin port.
    pub admin: SocketAddr,
}

/// The settings file where none is named.
pub(crate) const SETTINGS: &str = "tollgate.yaml";

/// The directory that relative paths in a settings file count from.
pub(crate) fn base(file: &Path) -> PathBuf {
    file.parent().unwrap_or_else(|| Path::new("")).into()
}

/// Problems, one a line.
pub(crate) fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads settings with overrides from the process's environment.
pub(crate) fn read_settings(file: &Path) -> anyhow::Result<Settings> {
    Settings::read(file, |name| std::env::var(name).ok()).map_err(|problems| anyhow!("{}", lines(&problems)))
}

/// The names of the environment's variables, those that are text.
pub(crate) fn variables() -> impl Iterator<Item = String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())
}

impl App {
    /// Builds everything and starts to serve.
    ///
    /// # Errors
    /// Whatever keeps it from serving, with the file it is about.
    pub fn start(settings: Settings, base: &Path, logs: bool) -> anyhow::Result<Self> {
        let prepared = PreparedExport::new(&settings.telemetry);
        let exported = prepared.as_ref().and_then(PreparedExport::layer);
        let logs = logs.then(|| telemetry::install(&settings.log, exported)).transpose()?;
        for said in settings::unknown_variables(variables()) {
            tracing::warn!("{said}");
        }
        memory::keep_private().context("switching core dumps off")?;
        raise_descriptors();
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let control =
            Builder::new_multi_thread().worker_threads(1).thread_name("control").enable_all().build()?;
        let files = OwnFiles::load(&settings, base, control.handle())?;
        let (observer, observations) = Observer::channel();
        let sinks = prepared.as_ref().map(PreparedExport::sinks);
        let shared = shared(&settings, control.handle(), &files, observer, sinks)?;
        shared.secrets.reach_svids(files.identity.own_svids());
        let (certificate, standing) = (files.identity.certificate(), files.identity.standing());
        let cluster = match &settings.resources {
            ResourceSettings::Directory(_) => None,
            ResourceSettings::Kubernetes(cluster) => {
                Some(ClusterWatch::start(cluster, &settings, control.handle())?)
            }
        };
        if let Some(cluster) = &cluster {
            shared.secrets.reach_cluster(cluster.client());
        }
        let mut reload = Reload::new(files, settings.clone(), cluster.as_ref().map(ClusterWatch::feed))?;
        let first = reload.first(control.handle()).map_err(|problems| anyhow!("{}", lines(&problems)))?;
        let count = settings.cores();
        let told = |taken: &_| tracing::warn!("{taken}: waiting for its end");
        let lock = DirectoryLock::wait(&settings.data_dir, told)?;
        let (ledger, balances, trail) = open_books(&settings, count, observations)?;

        let mut doors = Vec::new();
        for listener in &settings.listeners {
            let certificate = Some(Arc::clone(&certificate)).filter(|_| listener.tls == TlsMode::Required);
            let tls =
                certificate.map(|own| listener::server_config(&shared.trust, own, listener)).transpose()?;
            doors.push(ListenerSockets::bind(listener, tls, count)?);
        }
        let admin_socket = control.block_on(bind_admin(settings.admin.address))?;
        let admin_address = admin_socket.local_addr()?;
        let listeners: Vec<SocketAddr> = doors.iter().map(|door| door.address).collect();
        shared.rules.own_addresses(local_addresses().context("the addresses of this machine")?);
        shared.rules.own_sockets(listeners.iter().copied().chain([admin_address]).collect());
        // Only who has its addresses to itself logs in to stores and fetches from them.
        reload.begin(first, balances, &shared);
        let cores = Cores::start(&shared, &ledger, doors, count)?;
        let auditor = trail.keep(cores.all().iter().map(|core| Arc::clone(&core.uses)).collect())?;
        let rules = shared.rules.clone();
        let mut app = Self {
            control,
            shared,
            cores,
            keeper: LedgerThread::start(Arc::clone(&ledger), keep_of(&settings))?,
            sharer: ledger_database::follow(&settings, &ledger, dialable(rules))?,
            auditor,
            _lock: lock,
            settings,
            logs,
            exports: None,
            slices: None,
            listeners,
            admin: admin_address,
        };
        app.slices = SharedLimits::keep(&app.shared, &app.settings, (&ledger, app.control.handle()))?;
        let views = app.control(reload, standing, (ledger, cluster), admin_socket)?;
        let (control, rules) = (app.control.handle(), app.shared.rules.clone());
        app.exports = prepared.map(|prepared| prepared.start(control, rules, move || views.families()));
        app.announce();
        Ok(app)
    }

    /// The tasks of the control plane.
    fn control(
        &self,
        mut reload: Reload,
        identity: Arc<FilesInForce>,
        (ledger, cluster): (Arc<Ledger>, Option<ClusterWatch>),
        socket: tokio::net::TcpListener,
    ) -> anyhow::Result<Arc<AdminViews>> {
        let alerts = alerts::of(&self.settings, &self.shared.rules)?;
        let views = Arc::new(AdminViews {
            shared: Arc::clone(&self.shared),
            cores: self.cores.all(),
            ledger,
            audit: self.auditor.view(),
            reloads: Arc::clone(&reload.reloads),
            identity,
            alerts: Arc::clone(&alerts),
            exported: self.shared.exported.as_ref().map(Sinks::counts).unwrap_or_default(),
            cluster: cluster.as_ref().map(ClusterWatch::states),
        });
        let token = admin_token(&self.settings.admin.token_file)?;
        let admin = Admin { token, address: self.admin, views: Arc::clone(&views) };
        self.control.spawn(admin::serve(socket, Arc::new(admin)));
        if let Some(cluster) = cluster {
            let _inside = self.control.enter();
            cluster.tend(Arc::clone(&self.shared));
        }
        let shared = Arc::clone(&self.shared);
        shared.trust.tokens().keep(self.control.handle(), &dialable(shared.rules.clone()));
        self.control.spawn(look_at_sources(Arc::clone(&shared)));
        self.control.spawn(crate::budgets::watch(Arc::clone(&shared), alerts, self.auditor.view()));
        self.control.spawn(async move { reload.watch(&shared).await });
        Ok(views)
    }

    fn announce(&self) {
        for (listener, address) in self.settings.listeners.iter().zip(&self.listeners) {
            tracing::info!(listener = %listener.name, %address, "listening");
        }
        tracing::info!(listener = "admin", address = %self.admin, "listening");
        if let Some(logs) = &self.logs {
            logs.flush_all();
        }
    }

    /// Serves until SIGTERM or SIGINT, then drains: after SIGINT without the delay. The next signal cuts what is under way.
    ///
    /// # Errors
    /// Where signals cannot be had, or the ledger could not be closed.
    pub fn run(self) -> anyhow::Result<()> {
        let (signals, asked) = self.control.block_on(async {
            let mut signals = Signals::new()?;
            let asked = signals.next().await;
            anyhow::Ok((signals, asked))
        })?;
        let delay = match asked {
            Asked::ByManager => self.settings.drain.delay,
            Asked::ByPerson => Duration::ZERO,
        };
        self.end(delay, Some(signals))
    }

    /// Drains and stops.
    ///
    /// # Errors
    /// Where the ledger could not be closed.
    pub fn stop(self) -> anyhow::Result<()> {
        let delay = self.settings.drain.delay;
        self.end(delay, None)
    }

    fn end(self, delay: Duration, mut signals: Option<Signals>) -> anyhow::Result<()> {
        let timeout = &self.settings.drain.timeout;
        tracing::info!(?delay, %timeout, "draining");
        let hurry = signals::next(&mut signals);
        let hurried = self.control.block_on(self.shared.drain.run(delay, timeout.0, hurry));
        self.cores.stop();
        if let Some(slices) = self.slices {
            slices.give_back(&self.control, GIVE_BACK);
        }
        let give_back = if hurried { Duration::ZERO } else { GIVE_BACK };
        self.control.block_on(async {
            tokio::select! {
                () = self.shared.secrets.close(give_back) => {}
                () = signals::next(&mut signals) => {}
            }
        });
        let (ledger, audit) = (self.keeper.stop(), self.auditor.stop());
        if let Some(sharer) = self.sharer {
            sharer.stop(SHARE_PATIENCE);
        }
        tracing::info!("stopped");
        if let Some(exports) = self.exports {
            self.control.block_on(exports.flush());
        }
        if let Some(logs) = &self.logs {
            logs.flush_all();
        }
        self.control.shutdown_timeout(Duration::from_secs(2));
        let audit = audit.map_err(|_| anyhow!("the audit trail's thread panicked"))?;
        let audit = audit.context("closing the audit trail");
        ledger.and(audit)
    }
}

/// What all cores share.
fn shared(
    settings: &Settings,
    control: &Handle,
    files: &OwnFiles,
    observer: Observer,
    exported: Option<Sinks>,
) -> anyhow::Result<Arc<Shared>> {
    let rules =
        DialRules::new(settings.egress.private_ranges.clone()).in_zone(settings.egress.zone_ranges.clone());
    let (fits, versions) = (Arc::new(upstream::fits), version_key::of(&settings.data_dir)?);
    Ok(Arc::new(Shared {
        snapshots: Snapshots::default(),
        secrets: Secrets::observed(control.clone(), dialable(rules.clone()), observer, fits, versions),
        keys: KeyPools::default(),
        quota: shared_limits::quota(settings),
        trust: Arc::clone(&files.identity.trust),
        rules,
        interception: files.interception.as_ref().map(|files| Arc::clone(&files.interception)),
        sources: SourceAddresses::new(),
        upstreams: UpstreamHealth::default(),
        nameservers: settings.egress.dns.servers.clone(),
        usages: CallerOccupancies::new(settings.limits.bounds()),
        drain: Drain::new(),
        limits: settings.limits.clone(),
        throttles: Throttles::default(),
        tracer: settings.telemetry.tracer(),
        exported,
    }))
}

/// Sees which source addresses of the policy this machine has.
async fn look_at_sources(shared: Arc<Shared>) {
    loop {
        if let Some(snapshot) = shared.snapshots.current() {
            let of_destinations = snapshot.policy.destinations().map(|destination| &destination.sources);
            shared.sources.look(of_destinations.chain(snapshot.policy.source_pools().map(|(_, pool)| pool)));
        }
        tokio::time::sleep(SOURCE_LOOK).await;
    }
}

/// Where the control plane may fetch something.
fn dialable(rules: DialRules) -> Arc<dyn Fn(IpAddr) -> bool + Send + Sync> {
    Arc::new(move |ip| rules.allows(ip))
}

/// The ledger and the audit trail of the data directory, which is locked.
fn open_books(
    settings: &Settings,
    cores: usize,
    observations: Observations,
) -> anyhow::Result<(Arc<Ledger>, Balances, OpenTrail)> {
    let (data_dir, seal_key) = (&settings.data_dir, settings.ledger.seal_key_file.as_deref());
    let say = |what: &str| tracing::info!("{what}");
    let opened =
        slow_notice::with("still reading the journals", say, || Ledger::open(data_dir, seal_key, cores));
    let (ledger, balances) = opened.with_context(|| format!("the ledger in {}", data_dir.display()))?;
    say_recovered(ledger.recovered());
    let trail = OpenTrail::open(data_dir, seal_key, observations)
        .with_context(|| format!("the audit trail in {}", data_dir.display()))?;
    Ok((ledger, balances, trail))
}

fn say_recovered(found: Recovered) {
    if found.presumed > 0 {
        let calls = found.presumed;
        tracing::warn!(calls, "the last process left calls open: each is recorded at what it held");
    }
}

/// The thread that keeps the ledger: everything of it that waits for the disk.
#[derive(Debug)]
struct LedgerThread {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Result<(), LedgerError>>,
}

impl LedgerThread {
    fn start(ledger: Arc<Ledger>, keep: Keep) -> anyhow::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread =
            std::thread::Builder::new().name("ledger".into()).spawn(move || tend(&ledger, keep, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// After the cores have ended.
    fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        let closed = self.thread.join().map_err(|_| anyhow!("the ledger's thread panicked"))?;
        closed.context("closing the ledger")
    }
}

fn keep_of(settings: &Settings) -> Keep {
    let KeepSettings { age: Interval(age), size } = settings.ledger.keep;
    Keep { age: age.try_into().unwrap_or(SignedDuration::MAX), size: size as u64 }
}

fn tend(ledger: &Ledger, keep: Keep, stopped: &mpsc::Receiver<()>) -> Result<(), LedgerError> {
    let now = Instant::now();
    let (mut synced, mut sealed) = (now, now);
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(INGEST_EVERY) {
        ledger.ingest();
        if synced.elapsed() >= SYNC_EVERY {
            synced = Instant::now();
            ledger.sync();
        }
        if sealed.elapsed() >= SEAL_EVERY {
            sealed = Instant::now();
            ledger.seal();
            ledger.retire(keep);
        }
    }
    ledger.close()
}

async fn bind_admin(address: SocketAddr) -> anyhow::Result<tokio::net::TcpListener> {
    let bound = tokio::net::TcpListener::bind(address).await;
    let bound = bound.map_err(|error| listener::by_whom(address, error));
    bound.with_context(|| format!("admin.address: cannot listen on {address}"))
}

/// As many descriptors as the system lets us have: two for each call.
fn raise_descriptors() {
    use nix::sys::resource::getrlimit;
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Refused, the limit stays where it was; accept then says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn admin_token(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    if !file.exists() {
        if let Some(parent) = file.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
            made.with_context(|| format!("admin.tokenFile: {}", parent.display()))?;
        }
        let mut random = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(&mut *random).map_err(|_| anyhow!("no randomness for the admin token"))?;
        let token: Zeroizing<String> = Zeroizing::new(tollgate_secrets::digest::hex(&*random));
        crate::files::write_private(file, token.as_bytes()).with_context(|| format!("{}", file.display()))?;
    }
    let token = Zeroizing::new(
        std::fs::read_to_string(file).with_context(|| format!("admin.tokenFile {}", file.display()))?,
    );
    let token = Zeroizing::new(token.trim().to_owned());
    if token.len() < 16 {
        bail!("admin.tokenFile {}: a token has at least 16 characters", file.display());
    }
    Ok(token)
}

impl Shared {
    /// Puts a snapshot in force: first what it needs, then itself.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.secrets.apply(&snapshot.policy);
        self.keys.apply(&snapshot.policy);
        self.quota.apply(&snapshot.policy);
        self.snapshots.publish(Arc::new(snapshot));
        self.secrets.prefetch();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_directory_of_the_admin_token_is_made_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let parent = directory.path().join("run/tollgate");
        let token = admin_token(&parent.join("token")).unwrap();
        assert_eq!(admin_token(&parent.join("token")).unwrap(), token);
        assert_eq!(std::fs::metadata(&parent).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
