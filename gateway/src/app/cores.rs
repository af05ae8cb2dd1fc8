//! The data plane: one thread and one current-thread runtime per core, each with its own sockets.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tollgate_policy::policy::Credential;

use crate::core::{Core, Shared};
use crate::injection::InjectionCache;
use crate::ledger::Ledger;
use crate::listener::{self, ListenerConfig};
use crate::metering::Recorder;
use crate::session::ConnectionRegistry;
use crate::settings::ListenerSettings;
use crate::timers::Timers;
use crate::upstream::{Pool, Resolver};

/// How long a connection or a form of a key may outlive its time.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// A listener's sockets, one for each core.
pub(super) struct ListenerSockets {
    config: ListenerConfig,
    pub(super) address: SocketAddr,
    sockets: Vec<std::net::TcpListener>,
}

impl ListenerSockets {
    pub(super) fn bind(
        settings: &ListenerSettings,
        tls: Option<Arc<ServerConfig>>,
        cores: usize,
    ) -> anyhow::Result<Self> {
        let (name, address) = (&settings.name, settings.address);
        let sockets = listener::bind(address, cores)
            .with_context(|| format!("listener {name}: cannot listen on {address}"))?;
        let address = sockets.first().map_or(Ok(address), std::net::TcpListener::local_addr)?;
        let config = ListenerConfig {
            name: name.as_str().into(),
            kind: settings.kind,
            destination: settings.destination.clone(),
            tls: tls.map(TlsAcceptor::from),
            proxy: settings.proxy_protocol.clone().map(Arc::new),
            double_hbone: settings.double_hbone.clone().map(Arc::new),
        };
        Ok(Self { config, address, sockets })
    }
}

/// The running cores.
#[derive(Debug)]
pub(super) struct Cores {
    cores: Vec<Arc<Core>>,
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Cores {
    pub(super) fn start(
        shared: &Arc<Shared>,
        ledger: &Ledger,
        mut doors: Vec<ListenerSockets>,
        count: usize,
    ) -> anyhow::Result<Self> {
        let stop = watch::Sender::new(false);
        let mut running = Self { cores: Vec::new(), threads: Vec::new(), stop };
        let warned = Arc::default();
        for index in 0..count {
            let journal = ledger.journal(index).ok_or_else(|| anyhow!("no journal for core {index}"))?;
            let (stats, uses) = (Arc::default(), Arc::default());
            let core = Arc::new(Core {
                shared: Arc::clone(shared),
                pool: Pool::new(
                    Arc::clone(&journal),
                    Resolver::new(&shared.nameservers),
                    (shared.sources.clone(), shared.upstreams.clone()),
                    shared.limits.answer_fields,
                ),
                recorder: Recorder::new(&journal, &stats, &uses, shared.exported.clone()),
                journal,
                prepared: InjectionCache::new(Arc::clone(&warned)),
                connections: ConnectionRegistry::default(),
                stats,
                uses,
                timers: Timers::default(),
            });
            let sockets =
                doors.iter_mut().filter_map(|door| Some((door.config.clone(), door.sockets.pop()?)));
            let sockets: Vec<_> = sockets.collect();
            let (started, starts) = mpsc::sync_channel(1);
            let (thread_core, stopped) = (Arc::clone(&core), running.stop.subscribe());
            let body = move || run(thread_core, sockets, stopped, &started);
            running.threads.push(std::thread::Builder::new().name(format!("core-{index}")).spawn(body)?);
            running.cores.push(core);
            starts.recv().context("a core ended before it served")??;
        }
        Ok(running)
    }

    pub(super) fn all(&self) -> Vec<Arc<Core>> {
        self.cores.clone()
    }

    /// Ends the threads. What is still open is dropped, and settles as it goes.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

type Socket = (ListenerConfig, std::net::TcpListener);

fn run(
    core: Arc<Core>,
    sockets: Vec<Socket>,
    mut stopped: watch::Receiver<bool>,
    started: &mpsc::SyncSender<anyhow::Result<()>>,
) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(error.into()));
            return;
        }
    };
    let served = Arc::clone(&core);
    runtime.block_on(async move {
        let begun = sockets.into_iter().try_for_each(|(listener, socket)| {
            let socket = TcpListener::from_std(socket)?;
            tokio::spawn(listener::accept(Arc::clone(&core), listener, socket));
            anyhow::Ok(())
        });
        // The starter waits for exactly this.
        let _ = started.send(begun);
        tokio::spawn(listener::supervise(Arc::clone(&core)));
        tokio::spawn(keep_house(core));
        let _ = stopped.wait_for(|stop| *stop).await;
    });
    // What is still open is refused or left as the runtime goes.
    drop(runtime);
    served.recorder.tell_all();
}

async fn keep_house(core: Arc<Core>) {
    let mut generation = core.shared.snapshots.generation();
    loop {
        tokio::time::sleep(HOUSEKEEPING).await;
        core.pool.sweep();
        core.recorder.tell();
        let now = core.shared.snapshots.generation();
        if now != generation {
            generation = now;
            core.prepared.clear();
            core.pool.forget_certificates();
        }
        let current = |credential: &Credential, key| core.shared.secrets.peek(credential, key);
        core.prepared.retain(current);
        core.pool.retain_certificates(current);
    }
}
