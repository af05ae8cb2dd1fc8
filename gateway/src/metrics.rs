//! The Prometheus exposition: every number the process has, named in base units.

mod families;
mod openmetrics;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus::proto::{Bucket, Histogram};
use tollgate_policy::denial::Reason;
use tollgate_policy::limit::{Owner, Unit};
use tollgate_policy::name::{Name, ResourceId};
use tollgate_secrets::{CredentialStatus, Health, IssuerHealth, StoreHealth};

pub(crate) use self::families::ShownFamily;
use self::families::{Family, MetricsPage, Values};
use crate::alerts::AlertTotals;
use crate::expiry::Purpose;
use crate::identity::IssuerStanding;
use crate::key_health::KeyStatus;
use crate::kubernetes::WatchStatus;
use crate::quota::{LimitUsage, ReplicaStatus};
use crate::stats::{BUCKETS, Durations, Series, Sums, Totals};
use crate::upstream::DestinationStatus;

/// Everything that a scrape shows.
#[derive(Debug)]
pub(crate) struct Scrape<'a> {
    pub(crate) sums: Sums,
    pub(crate) refused_handshakes: Vec<(&'static str, u64)>,
    pub(crate) limits: Vec<LimitUsage>,
    pub(crate) alerts: AlertTotals,
    /// How replicas share limits, where they do.
    pub(crate) replicas: Option<ReplicaStatus>,
    /// The parts of the ledger that there are, and whether each works.
    pub(crate) ledger: [Option<(&'static str, bool)>; 4],
    /// Bytes of the journal that the database of several replicas has not got, if there is one.
    pub(crate) ledger_waiting: Option<u64>,
    /// Source addresses, whether the machine has each, and how many connections leave from it.
    pub(crate) sources: Vec<(IpAddr, bool, usize)>,
    /// Destinations that were called, and how each does.
    pub(crate) upstreams: Vec<(ResourceId, DestinationStatus)>,
    pub(crate) stores: Vec<StoreHealth>,
    pub(crate) issuers: Vec<IssuerHealth>,
    pub(crate) credentials: Vec<CredentialStatus>,
    /// The files of the own identity by the settings that name them, and whether each is in force.
    pub(crate) identity: Arc<Vec<(String, bool)>>,
    /// Whose tokens prove callers.
    pub(crate) token_issuers: Vec<IssuerStanding>,
    pub(crate) keys: Vec<KeyStatus>,
    pub(crate) generation: u64,
    pub(crate) reload_failures: u64,
    pub(crate) is_config_refused: bool,
    /// When certificates end: whose, and the name of that.
    pub(crate) certificates: Vec<(Purpose, String, Timestamp)>,
    /// What became of what was exported: signal, result, how much.
    pub(crate) exported: Vec<(&'static str, &'static str, u64)>,
    /// How the objects of a cluster are watched, and whether this gateway writes their status.
    pub(crate) cluster: Option<(Vec<WatchStatus>, bool)>,
    /// When the API server last confirmed what serves, while that is what was persisted.
    pub(crate) persisted: Option<Timestamp>,
    /// Objects that hold hosts which their status does not say, though there was time to write them.
    pub(crate) unwritten_hosts: usize,
    pub(crate) version: &'a str,
}

impl Scrape<'_> {
    /// The text format, version 0.0.4.
    pub(crate) fn encode(&self) -> Result<String, prometheus::Error> {
        self.page().encode()
    }

    /// The same as OpenMetrics 1.0, with exemplars.
    pub(crate) fn encode_openmetrics(&self) -> String {
        openmetrics::encode(&self.families())
    }

    /// What is shown.
    pub(crate) fn families(&self) -> Vec<ShownFamily> {
        self.page().into_families()
    }

    fn page(&self) -> MetricsPage {
        let mut page = MetricsPage::default();
        self.calls(&mut page);
        self.process(&mut page);
        self.upstreams(&mut page);
        self.limits(&mut page);
        self.credentials(&mut page);
        self.cluster(&mut page);
        page
    }

    fn calls(&self, page: &mut MetricsPage) {
        let calls = &self.sums.calls;
        let requests = calls.iter().map(|(series, totals)| {
            let reason = series.reason.map_or("", Reason::as_str);
            (and(of_calls(series), [reason.into(), series.code.to_string().into()]), totals.requests as f64)
        });
        page.show(&families::REQUESTS, requests);
        let units = calls.iter().flat_map(|(series, totals)| {
            let units = totals.units.entries().filter(|(_, n)| *n > 0);
            units.map(|(unit, n)| (and(of_calls(series), [unit.as_str().into()]), n as f64))
        });
        page.show(&families::USAGE, units);
        let mut sums = |family: &Family<5>, value: fn(&Totals) -> f64| {
            let sums = calls.iter().map(|(series, totals)| (of_calls(series), value(totals)));
            page.show(family, sums.filter(|(_, value)| *value > 0.0));
        };
        sums(&families::COST, |totals| totals.cost as f64 / 1e9);
        sums(&families::USAGE_ESTIMATED, |totals| totals.estimated as f64);
        sums(&families::UNPRICED, |totals| totals.unpriced as f64);
        sums(&families::REQUEST_BYTES, |totals| totals.bytes_in as f64);
        sums(&families::RESPONSE_BYTES, |totals| totals.bytes_out as f64);
        let durations = self.sums.durations.iter();
        let durations = durations.map(|(destination, durations)| {
            ([text(destination.as_ref())], histogram(durations), durations.exemplars)
        });
        page.show_histograms(&families::DURATION, durations);
    }

    fn upstreams(&self, page: &mut MetricsPage) {
        let mut show = |family: &Family<1>, value: fn(&DestinationStatus) -> f64| {
            let values = self.upstreams.iter();
            page.show(family, values.map(|(name, status)| ([name.to_string().into()], value(status))));
        };
        show(&families::UPSTREAM_CONNECTIONS, |status| status.connections as f64);
        show(&families::UPSTREAM_EJECTED, |status| status.ejected() as f64);
        show(&families::UPSTREAM_EJECTIONS, |status| status.ejections as f64);
        show(&families::UPSTREAM_OPEN, |status| status.open.len() as f64);
        let retries = self.upstreams.iter().flat_map(|(name, status)| {
            [("sent", status.retried), ("over_budget", status.not_retried)]
                .map(|(result, count)| ([name.to_string().into(), result.into()], count as f64))
        });
        page.show(&families::UPSTREAM_RETRIES, retries);
    }

    fn process(&self, page: &mut MetricsPage) {
        let sums = &self.sums;
        page.one(&families::IN_FLIGHT, sums.in_flight as f64);
        page.one(&families::HOLD_EXCEEDED, sums.exceeded as f64);
        page.one(&families::HANDSHAKES, sums.handshakes as f64);
        page.one(&families::HANDSHAKES_FAILED, sums.handshakes_failed as f64);
        page.one(&families::HANDSHAKE_SECONDS, sums.handshake_micros as f64 / 1e6);
        page.one(&families::CONFIG_UP, flag(!self.is_config_refused));
        page.one(&families::CONFIG_GENERATION, self.generation as f64);
        page.one(&families::RELOAD_FAILURES, self.reload_failures as f64);
        page.show(&families::BUILD_INFO, [([self.version.into()], 1.0)]);
        let refused = self.refused_handshakes.iter().map(|(reason, n)| ([(*reason).into()], *n as f64));
        page.show(&families::HANDSHAKES_REFUSED, refused);
        let strangers = sums.strangers.iter().map(|(reason, n)| ([reason.as_str().into()], *n as f64));
        page.show(&families::REFUSED_BEFORE_IDENTITY, strangers);
        let parts = self.ledger.iter().flatten();
        page.show(&families::LEDGER_UP, parts.map(|(part, up)| ([(*part).into()], flag(*up))));
        let waiting = self.ledger_waiting.iter();
        page.show(&families::LEDGER_WAITING, waiting.map(|bytes| ([], *bytes as f64)));
        let sources = || self.sources.iter();
        let open = sources().map(|(address, _, open)| ([address.to_string().into()], *open as f64));
        page.show(&families::SOURCE_CONNECTIONS, open);
        let up = sources().map(|(address, up, _)| ([address.to_string().into()], flag(*up)));
        page.show(&families::SOURCE_UP, up);
        let stores = self.stores.iter();
        let stores =
            stores.map(|store| ([store.store.to_string().into()], flag(store.failing_for.is_none())));
        page.show(&families::STORE_UP, stores);
        let issuers = self.issuers.iter();
        let issuers =
            issuers.map(|issuer| ([issuer.endpoint.as_str().into()], flag(issuer.failing_for.is_none())));
        page.show(&families::TOKEN_ENDPOINT_UP, issuers);
        let files = self.identity.iter().map(|(setting, up)| ([setting.as_str().into()], flag(*up)));
        page.show(&families::IDENTITY_FILE_UP, files);
        let tokens = || self.token_issuers.iter();
        let of = |issuer: &IssuerStanding| [Cow::Owned(issuer.issuer.clone())];
        page.show(&families::TOKEN_ISSUER_UP, tokens().map(|issuer| (of(issuer), flag(issuer.is_up()))));
        let ages = tokens().filter_map(|issuer| Some((of(issuer), issuer.age?.as_secs_f64())));
        page.show(&families::TOKEN_KEYS_AGE, ages);
        let failures = tokens().map(|issuer| (of(issuer), issuer.failures as f64));
        page.show(&families::TOKEN_KEYS_FAILURES, failures);
        let ends = self.certificates.iter().map(|(purpose, name, ends)| {
            ([purpose.as_str().into(), name.as_str().into()], ends.as_second() as f64)
        });
        page.show(&families::CERTIFICATE_EXPIRY, ends);
        let exported = self.exported.iter();
        let exported = exported.map(|(signal, result, n)| ([(*signal).into(), (*result).into()], *n as f64));
        page.show(&families::OTLP_ITEMS, exported);
    }

    fn limits(&self, page: &mut MetricsPage) {
        let mut amounts = |family: &Family<3>, value: fn(&LimitUsage) -> u64| {
            let amounts = self.limits.iter().map(|usage| {
                let scale = if usage.unit == Unit::Spend { 1e9 } else { 1.0 };
                let labels = [usage.limit.to_string(), usage.key.to_string(), usage.unit.as_str().to_owned()];
                (labels.map(Cow::Owned), value(usage) as f64 / scale)
            });
            page.show(family, amounts);
        };
        amounts(&families::LIMIT_AMOUNT, |usage| usage.amount);
        amounts(&families::LIMIT_SPENT, |usage| usage.spent);
        amounts(&families::LIMIT_SPENT_BY_ALL, LimitUsage::spent_by_all);
        amounts(&families::LIMIT_HELD, |usage| usage.held);
        if self.replicas.is_some() {
            amounts(&families::LIMIT_LEASED, |usage| usage.leased.unwrap_or_default());
        }
        let budgets = self.limits.iter().filter_map(|usage| {
            let Owner::Budget(budget) = &usage.owner else { return None };
            let used = usage.taken() as f64 / usage.amount.max(1) as f64;
            Some(([budget.to_string(), usage.limit.to_string(), usage.key.to_string()].map(Cow::Owned), used))
        });
        page.show(&families::BUDGET_USED, budgets);
        let thresholds = self.alerts.thresholds.iter();
        let thresholds = thresholds.map(|((budget, threshold), count)| {
            ([budget.as_str().into(), threshold.as_str().into()], *count as f64)
        });
        page.show(&families::BUDGET_THRESHOLDS, thresholds);
        let messages = self.alerts.messages.iter().flatten();
        page.show(&families::ALERTS, messages.map(|(result, count)| ([(*result).into()], *count as f64)));
        let Some(replicas) = &self.replicas else { return };
        page.one(&families::LIMIT_STORE_UP, flag(replicas.up));
        page.one(&families::LIMIT_REPLICAS, replicas.live as f64);
        page.one(&families::LIMIT_SLICES, replicas.granted as f64);
        page.one(&families::LIMIT_SLICES_LACKED, replicas.lacked as f64);
    }

    fn cluster(&self, page: &mut MetricsPage) {
        let Some((watches, is_leader)) = &self.cluster else { return };
        let mut show = |family: &Family<1>, value: fn(&WatchStatus) -> Option<f64>| {
            let series = watches.iter().filter_map(|watch| Some(([watch.resource.into()], value(watch)?)));
            page.show(family, series);
        };
        show(&families::WATCH_SYNCED, |watch| Some(flag(watch.is_synced)));
        show(&families::WATCH_ERRORS, |watch| Some(watch.errors as f64));
        show(&families::WATCH_AGE, |watch| watch.age.map(|age| age.as_secs_f64()));
        show(&families::OBJECTS_REFUSED, |watch| Some(watch.refused as f64));
        if let Some(confirmed) = self.persisted {
            let age = Timestamp::now().duration_since(confirmed).as_secs_f64();
            page.one(&families::PERSISTED_AGE, age.max(0.0));
        }
        page.one(&families::HOSTS_UNWRITTEN, self.unwritten_hosts as f64);
        page.one(&families::LEADER, flag(*is_leader));
    }

    fn credentials(&self, page: &mut MetricsPage) {
        let of = |status: &CredentialStatus| key(&status.credential, status.alias.as_ref());
        let ages = self.credentials.iter();
        let ages = ages.filter_map(|status| Some((of(status), status.age?.as_secs_f64())));
        page.show(&families::CREDENTIAL_AGE, ages);
        let health = self.credentials.iter().flat_map(|status| {
            let states = Health::WORDS.into_iter();
            states.map(move |word| (and(of(status), [word.into()]), flag(word == status.health.as_str())))
        });
        page.show(&families::CREDENTIAL_HEALTH, health);
        let of = |status: &KeyStatus| key(&status.credential, Some(&status.alias));
        let states = self.keys.iter().flat_map(|status| {
            let states = KeyStatus::STATES.into_iter();
            states.map(move |word| (and(of(status), [word.into()]), flag(word == status.state)))
        });
        page.show(&families::KEY_STATE, states);
        let benchings = self.keys.iter().map(|status| (of(status), status.benchings as f64));
        page.show(&families::KEY_BENCHED, benchings);
    }
}

/// More labels after these.
fn and<'a, const N: usize, const M: usize, const S: usize>(
    first: Values<'a, N>,
    more: Values<'a, M>,
) -> Values<'a, S> {
    const { assert!(N + M == S) };
    let mut values = first.into_iter().chain(more);
    std::array::from_fn(|_| values.next().unwrap_or_default())
}

const fn flag(is_set: bool) -> f64 {
    if is_set { 1.0 } else { 0.0 }
}

fn text<'a>(name: Option<&impl ToString>) -> Cow<'a, str> {
    name.map_or(Cow::Borrowed(""), |name| name.to_string().into())
}

/// Without an alias the credential has one key.
fn key<'a>(credential: &ResourceId, alias: Option<&Name>) -> Values<'a, 2> {
    [credential.to_string().into(), text(alias)]
}

fn of_calls(series: &Series) -> Values<'_, 5> {
    let caller = series.caller.as_ref();
    [
        text(series.destination.as_ref()),
        text(series.grant.as_ref()),
        caller.and_then(|caller| caller.namespace()).unwrap_or_default().into(),
        caller.and_then(|caller| caller.service_account()).unwrap_or_default().into(),
        series.model.as_deref().unwrap_or("other").into(),
    ]
}

fn histogram(durations: &Durations) -> Histogram {
    let mut below = 0;
    let buckets = BUCKETS.iter().zip(durations.buckets).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(durations.count);
    histogram.set_sample_sum(durations.micros as f64 / 1e6);
    histogram
}
