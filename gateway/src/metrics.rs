//! The Prometheus exposition: every number the process has, named in base units.

use std::sync::Arc;

use jiff::Timestamp;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use tollgate_policy::limit::Unit;
use tollgate_policy::name::{Name, ResourceId};
use tollgate_secrets::{CredentialStatus, Health, IssuerHealth, StoreHealth};

use crate::expiry::Purpose;
use crate::key_health::KeyStatus;
use crate::quota::LimitUsage;
use crate::stats::{BUCKETS, Durations, Series, Sums, Totals};

/// Everything that a scrape shows.
#[derive(Debug)]
pub(crate) struct Scrape<'a> {
    pub(crate) sums: Sums,
    pub(crate) refused_handshakes: Vec<(&'static str, u64)>,
    pub(crate) limits: Vec<LimitUsage>,
    /// The parts of the ledger, and whether each works.
    pub(crate) ledger: [(&'static str, bool); 3],
    pub(crate) stores: Vec<StoreHealth>,
    pub(crate) issuers: Vec<IssuerHealth>,
    pub(crate) credentials: Vec<CredentialStatus>,
    /// The files of the own identity by the settings that name them, and whether each is in force.
    pub(crate) identity: Arc<Vec<(String, bool)>>,
    pub(crate) keys: Vec<KeyStatus>,
    pub(crate) generation: u64,
    pub(crate) reload_failures: u64,
    pub(crate) is_config_refused: bool,
    /// When certificates end: whose, and the name of that.
    pub(crate) certificates: Vec<(Purpose, String, Timestamp)>,
    pub(crate) version: &'a str,
}

impl Scrape<'_> {
    /// The text format, version 0.0.4.
    pub(crate) fn encode(&self) -> Result<String, prometheus::Error> {
        let mut families = self.calls();
        families.extend(self.process());
        families.extend(self.limits());
        families.extend(self.credentials());
        families.extend(self.keys());
        families.retain(|family| !family.get_metric().is_empty());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    fn calls(&self) -> Vec<MetricFamily> {
        let per_series = |name, help, value: fn(&Totals) -> f64| {
            let metrics = self.sums.calls.iter().filter(|(_, totals)| value(totals) > 0.0);
            family(
                name,
                help,
                MetricType::COUNTER,
                metrics.map(|(s, t)| counter(labels(s), value(t))).collect(),
            )
        };
        let requests = self.sums.calls.iter().map(|(series, totals)| {
            let mut labels = labels(series);
            labels.push(("reason", series.reason.map_or(String::new(), |r| r.as_str().into())));
            labels.push(("code", series.code.to_string()));
            counter(labels, totals.requests as f64)
        });
        let tokens = self.sums.calls.iter().flat_map(|(series, totals)| {
            totals.units.entries().filter(|(_, n)| *n > 0).map(move |(kind, n)| {
                let mut labels = labels(series);
                labels.push(("type", kind.as_str().to_owned()));
                counter(labels, n as f64)
            })
        });
        vec![
            family(
                "tollgate_requests_total",
                "Calls, by how they ended.",
                MetricType::COUNTER,
                merged(requests.collect()),
            ),
            family(
                "tollgate_usage_total",
                "Units that providers bill, by type.",
                MetricType::COUNTER,
                merged(tokens.collect()),
            ),
            merged_family(per_series("tollgate_cost_usd_total", "What calls cost, in USD.", |t| {
                t.cost as f64 / 1e9
            })),
            merged_family(per_series(
                "tollgate_usage_estimated_total",
                "Calls whose usage was not reported.",
                |t| t.estimated as f64,
            )),
            merged_family(per_series(
                "tollgate_unpriced_requests_total",
                "Billed calls without a price.",
                |t| t.unpriced as f64,
            )),
            merged_family(per_series("tollgate_request_bytes_total", "Body bytes from callers.", |t| {
                t.bytes_in as f64
            })),
            merged_family(per_series("tollgate_response_bytes_total", "Body bytes to callers.", |t| {
                t.bytes_out as f64
            })),
            self.durations(),
        ]
    }

    fn durations(&self) -> MetricFamily {
        let metrics = self.sums.durations.iter().map(|(destination, durations)| {
            let name = destination.as_ref().map_or(String::new(), ToString::to_string);
            let mut metric = labelled(vec![("destination", name)]);
            metric.set_histogram(histogram(durations));
            metric
        });
        let help = "From the head of the request to the end of the answer.";
        family("tollgate_request_duration_seconds", help, MetricType::HISTOGRAM, metrics.collect())
    }

    fn process(&self) -> Vec<MetricFamily> {
        let sums = &self.sums;
        let one =
            |name, help, value: f64| family(name, help, MetricType::COUNTER, vec![counter(vec![], value)]);
        let level =
            |name, help, value: f64| family(name, help, MetricType::GAUGE, vec![gauge(vec![], value)]);
        let refused = self
            .refused_handshakes
            .iter()
            .map(|(word, n)| counter(vec![("reason", (*word).into())], *n as f64));
        let strangers = sums
            .strangers
            .iter()
            .map(|(reason, n)| counter(vec![("reason", reason.as_str().into())], *n as f64));
        let stores = self.stores.iter().map(|s| {
            gauge(vec![("store", s.store.to_string())], f64::from(u8::from(s.failing_for.is_none())))
        });
        vec![
            self.ledger(),
            one("tollgate_tls_handshakes_total", "Verified handshakes with callers.", sums.handshakes as f64),
            one(
                "tollgate_tls_handshakes_failed_total",
                "Handshakes that did not complete.",
                sums.handshakes_failed as f64,
            ),
            one(
                "tollgate_tls_handshake_seconds_total",
                "Time in handshakes.",
                sums.handshake_micros as f64 / 1e6,
            ),
            one("tollgate_hold_exceeded_total", "Calls charged more than they held.", sums.exceeded as f64),
            one(
                "tollgate_config_reload_failures_total",
                "Configurations that were refused.",
                self.reload_failures as f64,
            ),
            level("tollgate_requests_in_flight", "Calls under way.", sums.in_flight as f64),
            level(
                "tollgate_config_up",
                "1 while the configuration on disk is in force.",
                f64::from(u8::from(!self.is_config_refused)),
            ),
            level("tollgate_config_generation", "Generation of the policy in force.", self.generation as f64),
            family(
                "tollgate_build_info",
                "Version.",
                MetricType::GAUGE,
                vec![gauge(vec![("version", self.version.into())], 1.0)],
            ),
            family(
                "tollgate_tls_handshakes_refused_total",
                "Callers turned away.",
                MetricType::COUNTER,
                refused.collect(),
            ),
            family(
                "tollgate_refused_before_identity_total",
                "Requests without a proven caller.",
                MetricType::COUNTER,
                strangers.collect(),
            ),
            family(
                "tollgate_secret_store_up",
                "1 while the store answers.",
                MetricType::GAUGE,
                stores.collect(),
            ),
            self.issuers(),
            self.identity(),
            self.certificates(),
        ]
    }

    fn certificates(&self) -> MetricFamily {
        let ends = self.certificates.iter().map(|(purpose, name, ends)| {
            gauge(vec![("kind", purpose.as_str().into()), ("name", name.clone())], ends.as_second() as f64)
        });
        let help = "When the certificate ends, in seconds of Unix time; of several roots, the last.";
        family("tollgate_certificate_expiry_seconds", help, MetricType::GAUGE, ends.collect())
    }

    fn identity(&self) -> MetricFamily {
        let files = self.identity.iter();
        let files = files
            .map(|(setting, stands)| gauge(vec![("setting", setting.clone())], f64::from(u8::from(*stands))));
        let help = "1 while the file, as it is now, is the certificate, key or trust bundle in force.";
        family("tollgate_identity_file_up", help, MetricType::GAUGE, files.collect())
    }

    fn issuers(&self) -> MetricFamily {
        let issuers = self.issuers.iter().map(|issuer| {
            let up = f64::from(u8::from(issuer.failing_for.is_none()));
            gauge(vec![("endpoint", issuer.endpoint.clone())], up)
        });
        let help = "Whether the token endpoint answers.";
        family("tollgate_token_endpoint_up", help, MetricType::GAUGE, issuers.collect())
    }

    fn ledger(&self) -> MetricFamily {
        let parts = self.ledger.iter();
        let parts = parts.map(|(part, up)| gauge(vec![("part", (*part).into())], f64::from(u8::from(*up))));
        let help = "Whether calls can be written down (journal), reports keep up (store), and new secrets can be used (audit).";
        family("tollgate_ledger_up", help, MetricType::GAUGE, parts.collect())
    }

    fn credentials(&self) -> Vec<MetricFamily> {
        let label = |status: &CredentialStatus| key_labels(&status.credential, status.alias.as_ref());
        let ages = self
            .credentials
            .iter()
            .filter_map(|status| status.age.map(|age| gauge(label(status), age.as_secs_f64())));
        let health = self.credentials.iter().flat_map(|status| {
            Health::WORDS.into_iter().map(move |word| {
                let mut labels = label(status);
                labels.push(("state", word.into()));
                gauge(labels, f64::from(u8::from(word == status.health.as_str())))
            })
        });
        let age = "Since the store last said that this is the secret.";
        let state = "1 for the state that the credential's secret is in.";
        vec![
            family("tollgate_credential_age_seconds", age, MetricType::GAUGE, ages.collect()),
            family("tollgate_credential_health", state, MetricType::GAUGE, health.collect()),
        ]
    }

    fn keys(&self) -> Vec<MetricFamily> {
        let label = |status: &KeyStatus| key_labels(&status.credential, Some(&status.alias));
        let states = self.keys.iter().flat_map(|status| {
            KeyStatus::STATES.into_iter().map(move |word| {
                let mut labels = label(status);
                labels.push(("state", word.into()));
                gauge(labels, f64::from(u8::from(word == status.state)))
            })
        });
        let benchings = self.keys.iter().map(|status| counter(label(status), status.benchings as f64));
        let state = "1 for what the provider lately said of a key of a pool.";
        let benched = "How often a key of a pool was benched, because its provider refused it.";
        vec![
            family("tollgate_credential_key_state", state, MetricType::GAUGE, states.collect()),
            family(
                "tollgate_credential_key_benched_total",
                benched,
                MetricType::COUNTER,
                benchings.collect(),
            ),
        ]
    }

    fn limits(&self) -> Vec<MetricFamily> {
        let part = |name, help, value: fn(&LimitUsage) -> u64| {
            let metrics = self.limits.iter().map(|usage| {
                let labels = vec![
                    ("limit", usage.limit.to_string()),
                    ("key", usage.key.to_string()),
                    ("unit", unit(usage.unit).into()),
                ];
                let scale = if usage.unit == Unit::Spend { 1e9 } else { 1.0 };
                gauge(labels, value(usage) as f64 / scale)
            });
            family(name, help, MetricType::GAUGE, metrics.collect())
        };
        vec![
            part("tollgate_limit_amount", "The cap of a limit.", |u| u.amount),
            part("tollgate_limit_spent", "Settled in the current window.", |u| u.spent),
            part("tollgate_limit_held", "Reserved by calls under way.", |u| u.held),
        ]
    }
}

/// Without an alias the credential has one key.
fn key_labels(credential: &ResourceId, alias: Option<&Name>) -> Vec<(&'static str, String)> {
    let alias = alias.map_or(String::new(), ToString::to_string);
    vec![("credential", credential.to_string()), ("alias", alias)]
}

const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Requests => "requests",
        Unit::Tokens => "tokens",
        Unit::Spend => "usd",
        Unit::Concurrency => "calls",
    }
}

fn labels(series: &Series) -> Vec<(&'static str, String)> {
    let text = |name: &Option<ResourceId>| name.as_ref().map_or(String::new(), ToString::to_string);
    let caller = series.caller.as_ref();
    vec![
        ("destination", text(&series.destination)),
        ("grant", text(&series.grant)),
        ("namespace", caller.and_then(|c| c.namespace()).unwrap_or_default().into()),
        ("service_account", caller.and_then(|c| c.service_account()).unwrap_or_default().into()),
        ("model", series.model.as_deref().unwrap_or("other").into()),
    ]
}

fn labelled(labels: Vec<(&'static str, String)>) -> Metric {
    let pairs = labels.into_iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.into());
        pair.set_value(value);
        pair
    });
    Metric::from_label(pairs.collect())
}

fn counter(labels: Vec<(&'static str, String)>, value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = labelled(labels);
    metric.set_counter(counter);
    metric
}

fn gauge(labels: Vec<(&'static str, String)>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = labelled(labels);
    metric.set_gauge(gauge);
    metric
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

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn merged_family(mut family: MetricFamily) -> MetricFamily {
    let metrics = merged(std::mem::take(family.mut_metric()));
    family.set_metric(metrics);
    family
}

/// Adds up what has the same labels: callers of one service account, or reasons that a family does not show.
fn merged(metrics: Vec<Metric>) -> Vec<Metric> {
    let mut sums: Vec<Metric> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for metric in metrics {
        let key: Vec<(String, String)> =
            metric.get_label().iter().map(|l| (l.name().into(), l.value().into())).collect();
        match places.get(&key) {
            None => {
                places.insert(key, sums.len());
                sums.push(metric);
            }
            Some(at) => {
                let known: &mut Metric = &mut sums[*at];
                let mut counter = Counter::default();
                counter.set_value(known.get_counter().get_value() + metric.get_counter().get_value());
                known.set_counter(counter);
            }
        }
    }
    sums
}
