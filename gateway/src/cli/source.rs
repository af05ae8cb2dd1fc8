//! `tollgate source check`: whether calls can leave from the addresses that they are to leave from, found out by connecting.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tollgate_policy::pattern::HostPattern;
use tollgate_policy::policy::Destination;

use super::check::Subject;
use super::{complain, output};
use crate::app;
use crate::snapshot::Snapshot;
use crate::table::{Column, Cut, GREEN, Page, RED, Table, visible};
use crate::upstream::{DialError, DialRules, Prober, UpstreamError, local_addresses};

/// Connections that are opened at once.
const AT_ONCE: usize = 16;

#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    #[command(subcommand)]
    command: SourceCommand,
}

#[derive(Debug, Subcommand)]
enum SourceCommand {
    /// Connect from each source address to each destination that uses it
    #[command(after_help = "Example:
  tollgate source check --pool finance-ips

Run it where the gateway runs. It connects and does the TLS handshake, and sends nothing more. A destination of a wildcard
host has no name to connect to, and is left out.")]
    Check(SourceCheckArgs),
}

#[derive(Debug, Args)]
struct SourceCheckArgs {
    /// Settings of the process [default: tollgate.yaml]
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
    /// This SourcePool alone
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// This Destination alone
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Print an array of objects, for programs
    #[arg(long)]
    json: bool,
}

/// One address, and one host that is to be reached from there.
struct ProbePair<'a> {
    address: IpAddr,
    destination: &'a Destination,
    host: Arc<str>,
}

/// What became of it.
struct Probed<'a> {
    pair: ProbePair<'a>,
    reached: Result<SocketAddr, UpstreamError>,
    milliseconds: u128,
}

pub(super) fn run(args: &SourceArgs) -> anyhow::Result<ExitCode> {
    let SourceCommand::Check(args) = &args.command;
    let (settings, subject) = Subject::of_settings(args.config.clone())?;
    let built = subject.build(&subject.read()?);
    let (snapshot, _) = built.map_err(|problems| anyhow!("{}", app::lines(&problems)))?;
    let pairs = args.pairs(&snapshot)?;
    if pairs.is_empty() {
        complain("no destination with a host of its own is called from a source address");
        return Ok(ExitCode::SUCCESS);
    }
    // As `serve` does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let rules = DialRules::new(settings.egress.private_ranges.clone());
    rules.own_addresses(local_addresses().context("the addresses of this machine")?);
    rules.own_sockets(settings.listeners.iter().map(|listener| listener.address).collect());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found: Vec<Probed<'_>> = runtime.block_on(async {
        let prober = Prober::new(rules, &settings.egress.dns.servers);
        let (prober, snapshot) = (&prober, &snapshot);
        let probes = pairs.into_iter().map(|pair| async move { pair.probe(prober, snapshot).await });
        stream::iter(probes).buffered(AT_ONCE).collect().await
    });
    output::print("what was found", |out| match args.json {
        true => output::json(&found.iter().map(Probed::json).collect::<Vec<_>>(), out),
        false => table(&found).write(out, Page::stdout()).map(drop),
    })?;
    Ok(if found.iter().all(Probed::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl SourceCheckArgs {
    /// All that are asked for.
    ///
    /// # Errors
    /// Where there is no pool or destination of the name.
    fn pairs<'a>(&self, snapshot: &'a Snapshot) -> anyhow::Result<Vec<ProbePair<'a>>> {
        let policy = &snapshot.policy;
        if let Some(name) = &self.destination
            && policy.destination(name).is_none()
        {
            bail!("--destination: there is no Destination {name}");
        }
        if let Some(name) = &self.pool
            && !policy.source_pools().any(|(pool, _)| pool.as_str() == name)
        {
            bail!("--pool: there is no SourcePool {name}");
        }
        let is_named = |destination: &&Destination| {
            let rules = destination.sources.rules();
            let pool = rules.and_then(|rules| rules.name.as_ref()).map(|pool| pool.as_str());
            self.destination.as_deref().is_none_or(|name| destination.name.as_str() == name)
                && self.pool.as_deref().is_none_or(|name| pool == Some(name))
        };
        let mut pairs = Vec::new();
        for destination in policy.destinations().map(|destination| &**destination).filter(is_named) {
            for address in destination.sources.addresses() {
                let exact = destination.hosts.iter().filter_map(|host| match host {
                    HostPattern::Exact(host) => Some(Arc::clone(host)),
                    _ => None,
                });
                pairs.extend(exact.map(|host| ProbePair { address: *address, destination, host }));
            }
        }
        Ok(pairs)
    }
}

impl<'a> ProbePair<'a> {
    async fn probe(self, prober: &Prober, snapshot: &Snapshot) -> Probed<'a> {
        let begun = Instant::now();
        let reached = match snapshot.tls(&self.destination.name) {
            Some(tls) => prober.probe((self.destination, &self.host), self.address, tls).await,
            None => Err(UpstreamError::Tls(std::io::Error::other("its CA bundle cannot be used"))),
        };
        Probed { pair: self, reached, milliseconds: begun.elapsed().as_millis() }
    }
}

impl Probed<'_> {
    /// Whether the host has no address of this one's family, which others of the pool are there for.
    fn is_of_other_family(&self) -> bool {
        let own = self.pair.destination.sources.addresses();
        let has_others = own.iter().any(|own| own.is_ipv4() != self.pair.address.is_ipv4());
        has_others && matches!(self.reached, Err(UpstreamError::Dial(DialError::Family)))
    }

    fn is_good(&self) -> bool {
        self.reached.is_ok() || self.is_of_other_family()
    }

    fn word(&self) -> &'static str {
        match &self.reached {
            Ok(_) => "ok",
            Err(_) if self.is_of_other_family() => "not used",
            Err(_) => "failed",
        }
    }

    fn why(&self) -> Option<String> {
        self.reached.as_ref().err().map(|error| visible(&error.to_string()))
    }

    fn json(&self) -> Value {
        let ProbePair { address, destination, host } = &self.pair;
        let pool = destination.sources.rules().and_then(|rules| rules.name.as_ref());
        json!({
            "address": address, "pool": pool.map(ToString::to_string), "destination": destination.name.to_string(),
            "host": **host, "remote": self.reached.as_ref().ok().map(ToString::to_string), "result": self.word(),
            "error": self.why(), "milliseconds": u64::try_from(self.milliseconds).unwrap_or(u64::MAX),
        })
    }
}

fn table(found: &[Probed<'_>]) -> Table {
    let tint = |cell: &str| match cell {
        "ok" => Some(GREEN),
        "failed" => Some(RED),
        _ => None,
    };
    let mut table = Table::new([
        Column::text("address", Cut::Never),
        Column::text("destination", Cut::Start),
        Column::text("host", Cut::Start).spare(1),
        Column::text("result", Cut::Never).tinted(tint),
        Column::number("ms"),
        Column::text("remote, or why not", Cut::Never),
    ]);
    for found in found {
        let ProbePair { address, destination, host } = &found.pair;
        table.row(vec![
            address.to_string(),
            destination.name.to_string(),
            host.to_string(),
            found.word().to_owned(),
            found.milliseconds.to_string(),
            found.why().unwrap_or_else(|| {
                found.reached.as_ref().map_or_else(|_| String::new(), ToString::to_string)
            }),
        ]);
    }
    table
}
