//! The one table of metric families, and what a scrape shows of each.

use std::borrow::Cow;
use std::collections::BTreeMap;

use prometheus::proto::{Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Error, TextEncoder};

use crate::stats::Exemplars;

/// What is counted under one name. Its series are told apart by `N` labels.
#[derive(Debug)]
pub(super) struct Family<const N: usize> {
    name: &'static str,
    kind: MetricType,
    help: &'static str,
    labels: [&'static str; N],
}

/// The values of a family's labels.
pub(super) type Values<'a, const N: usize> = [Cow<'a, str>; N];

/// The labels of a family: those in brackets, after those of calls where it counts calls.
macro_rules! labels {
    (calls $($label:literal)*) => {
        labels!("destination" "grant" "namespace" "service_account" "model" $($label)*)
    };
    ($($label:literal)*) => { [$($label),*] };
}

macro_rules! families {
    ($( #[doc = $help:literal] $id:ident: $kind:ident $name:literal [$($label:tt)*]; )*) => {
        $(
            #[doc = $help]
            pub(super) const $id: Family<{ <[&str]>::len(&labels!($($label)*)) }> = Family {
                name: $name,
                kind: MetricType::$kind,
                help: $help,
                labels: labels!($($label)*),
            };
        )*

        /// Name, kind, help and labels of each.
        #[cfg(test)]
        const ALL: &[(&str, MetricType, &str, &[&str])] =
            &[$( ($name, MetricType::$kind, $help, &labels!($($label)*)), )*];
    };
}

families! {
    /// Calls, by how they ended.
    REQUESTS: COUNTER "tollgate_requests_total" [calls "reason" "code"];
    /// Units that providers bill, by type.
    USAGE: COUNTER "tollgate_usage_total" [calls "type"];
    /// What calls cost, in USD.
    COST: COUNTER "tollgate_cost_usd_total" [calls];
    /// Calls whose usage was estimated or presumed.
    USAGE_ESTIMATED: COUNTER "tollgate_usage_estimated_total" [calls];
    /// Billed calls without a price.
    UNPRICED: COUNTER "tollgate_unpriced_requests_total" [calls];
    /// Bytes of bodies from callers.
    REQUEST_BYTES: COUNTER "tollgate_request_bytes_total" [calls];
    /// Bytes of bodies to callers.
    RESPONSE_BYTES: COUNTER "tollgate_response_bytes_total" [calls];
    /// From the head of the request to the end of the answer.
    DURATION: HISTOGRAM "tollgate_request_duration_seconds" ["destination"];
    /// Calls under way.
    IN_FLIGHT: GAUGE "tollgate_requests_in_flight" [];
    /// Calls that were charged more than they held.
    HOLD_EXCEEDED: COUNTER "tollgate_hold_exceeded_total" [];
    /// The cap of a limit.
    LIMIT_AMOUNT: GAUGE "tollgate_limit_amount" ["limit" "key" "unit"];
    /// Settled in the current window by this replica.
    LIMIT_SPENT: GAUGE "tollgate_limit_spent" ["limit" "key" "unit"];
    /// Settled in the current window by all replicas that share the limit, as far as is known here.
    LIMIT_SPENT_BY_ALL: GAUGE "tollgate_limit_spent_by_all" ["limit" "key" "unit"];
    /// Held by calls under way.
    LIMIT_HELD: GAUGE "tollgate_limit_held" ["limit" "key" "unit"];
    /// What all replicas have spent and this one holds of a limit of a budget.
    BUDGET_USED: GAUGE "tollgate_budget_used_ratio" ["budget" "limit" "key"];
    /// Thresholds of budgets that this replica has told.
    BUDGET_THRESHOLDS: COUNTER "tollgate_budget_thresholds_total" ["budget" "threshold"];
    /// Messages for the receiver of alerts.
    ALERTS: COUNTER "tollgate_alerts_total" ["result"];
    /// What this replica may have spent and hold of a limit that replicas share.
    LIMIT_LEASED: GAUGE "tollgate_limit_leased" ["limit" "key" "unit"];
    /// Whether the store answers in which replicas share limits.
    LIMIT_STORE_UP: GAUGE "tollgate_limit_store_up" [];
    /// How many replicas share limits, this one included.
    LIMIT_REPLICAS: GAUGE "tollgate_limit_replicas" [];
    /// Slices of limits that the store has granted.
    LIMIT_SLICES: COUNTER "tollgate_limit_slices_total" [];
    /// How often a call found too little in this replica, before it waited for more.
    LIMIT_SLICES_LACKED: COUNTER "tollgate_limit_slices_lacked_total" [];
    /// Verified handshakes with callers.
    HANDSHAKES: COUNTER "tollgate_tls_handshakes_total" [];
    /// Handshakes that did not complete.
    HANDSHAKES_FAILED: COUNTER "tollgate_tls_handshakes_failed_total" [];
    /// Time in handshakes.
    HANDSHAKE_SECONDS: COUNTER "tollgate_tls_handshake_seconds_total" [];
    /// Callers that were turned away.
    HANDSHAKES_REFUSED: COUNTER "tollgate_tls_handshakes_refused_total" ["reason"];
    /// Requests that failed before their caller was proven.
    REFUSED_BEFORE_IDENTITY: COUNTER "tollgate_refused_before_identity_total" ["reason"];
    /// 1 while calls can be written down, reports keep up, and new secrets can be used.
    LEDGER_UP: GAUGE "tollgate_ledger_up" ["part"];
    /// Bytes of the journal that the database of several replicas has not got.
    LEDGER_WAITING: GAUGE "tollgate_ledger_postgres_waiting_bytes" [];
    /// 1 while the configuration on disk is in force.
    CONFIG_UP: GAUGE "tollgate_config_up" [];
    /// The generation of the policy in force.
    CONFIG_GENERATION: GAUGE "tollgate_config_generation" [];
    /// Configurations that were refused.
    RELOAD_FAILURES: COUNTER "tollgate_config_reload_failures_total" [];
    /// Connections that leave from a source address of the policy, kept ones included.
    SOURCE_CONNECTIONS: GAUGE "tollgate_source_connections" ["address"];
    /// 1 while the machine has the source address, or need not have it.
    SOURCE_UP: GAUGE "tollgate_source_address_up" ["address"];
    /// Connections to the destination, kept ones included.
    UPSTREAM_CONNECTIONS: GAUGE "tollgate_upstream_connections" ["destination"];
    /// Endpoints of the destination that are ejected now.
    UPSTREAM_EJECTED: GAUGE "tollgate_upstream_endpoints_ejected" ["destination"];
    /// How often an endpoint was ejected.
    UPSTREAM_EJECTIONS: COUNTER "tollgate_upstream_ejections_total" ["destination"];
    /// Hosts of the destination none of whose endpoints could be reached lately.
    UPSTREAM_OPEN: GAUGE "tollgate_upstream_hosts_open" ["destination"];
    /// Calls that were to be sent again, and whether the budget allowed it.
    UPSTREAM_RETRIES: COUNTER "tollgate_upstream_retries_total" ["destination" "result"];
    /// 1 while the store answers.
    STORE_UP: GAUGE "tollgate_secret_store_up" ["store"];
    /// 1 while the token endpoint answers.
    TOKEN_ENDPOINT_UP: GAUGE "tollgate_token_endpoint_up" ["endpoint"];
    /// Since the store last said that this is the secret.
    CREDENTIAL_AGE: GAUGE "tollgate_credential_age_seconds" ["credential" "alias"];
    /// 1 for the state that the secret is in.
    CREDENTIAL_HEALTH: GAUGE "tollgate_credential_health" ["credential" "alias" "state"];
    /// 1 for what the provider lately said of a key of a pool.
    KEY_STATE: GAUGE "tollgate_credential_key_state" ["credential" "alias" "state"];
    /// How often a key of a pool was benched.
    KEY_BENCHED: COUNTER "tollgate_credential_key_benched_total" ["credential" "alias"];
    /// 1 while the file, as it is now, is the certificate, key, bundle or revocation lists in force; of identity.workloadApi while the API is heard.
    IDENTITY_FILE_UP: GAUGE "tollgate_identity_file_up" ["setting"];
    /// 1 while the issuer's keys are those that it says now.
    TOKEN_ISSUER_UP: GAUGE "tollgate_token_issuer_up" ["issuer"];
    /// Since the issuer last said its keys.
    TOKEN_KEYS_AGE: GAUGE "tollgate_token_issuer_keys_age_seconds" ["issuer"];
    /// How often the issuer's keys could not be had.
    TOKEN_KEYS_FAILURES: COUNTER "tollgate_token_issuer_keys_failures_total" ["issuer"];
    /// When the certificate ends, or the next revocation list is due, in Unix time.
    CERTIFICATE_EXPIRY: GAUGE "tollgate_certificate_expiry_seconds" ["kind" "name"];
    /// 1 while all objects of a kind are known and followed.
    WATCH_SYNCED: GAUGE "tollgate_kubernetes_synced" ["resource"];
    /// Attempts to list or follow objects that failed.
    WATCH_ERRORS: COUNTER "tollgate_kubernetes_watch_errors_total" ["resource"];
    /// Since the API server last said anything of an object.
    WATCH_AGE: GAUGE "tollgate_kubernetes_last_event_age_seconds" ["resource"];
    /// Objects that are not accepted, and denied.
    OBJECTS_REFUSED: GAUGE "tollgate_kubernetes_objects_refused" ["resource"];
    /// While persisted objects serve: since the API server last confirmed them.
    PERSISTED_AGE: GAUGE "tollgate_kubernetes_persisted_age_seconds" [];
    /// Objects that hold hosts which no status has said for a minute or more, so that others may take these.
    HOSTS_UNWRITTEN: GAUGE "tollgate_kubernetes_hosts_unwritten" [];
    /// 1 in the replica that writes status.
    LEADER: GAUGE "tollgate_kubernetes_leader" [];
    /// Calls, log lines and metric points for the collector.
    OTLP_ITEMS: COUNTER "tollgate_otlp_items_total" ["signal" "result"];
    /// 1.
    BUILD_INFO: GAUGE "tollgate_build_info" ["version"];
}

/// The families of one scrape.
#[derive(Debug, Default)]
pub(super) struct MetricsPage(Vec<ShownFamily>);

/// A family with its series.
#[derive(Debug)]
pub(crate) struct ShownFamily {
    pub(crate) family: MetricFamily,
    /// Of a histogram, those of each series.
    pub(crate) exemplars: Vec<Exemplars>,
}

impl MetricsPage {
    /// The text format, version 0.0.4.
    pub(super) fn encode(&self) -> Result<String, Error> {
        let families: Vec<_> = self.0.iter().map(|shown| shown.family.clone()).collect();
        TextEncoder::new().encode_to_string(&families)
    }

    pub(super) fn into_families(self) -> Vec<ShownFamily> {
        self.0
    }

    /// A family without labels.
    pub(super) fn one(&mut self, family: &Family<0>, value: f64) {
        self.show(family, [([], value)]);
    }

    /// A counter or gauge. What has the same labels is added up where it is counted: callers of one service account.
    pub(super) fn show<'a, const N: usize>(
        &mut self,
        family: &Family<N>,
        series: impl IntoIterator<Item = (Values<'a, N>, f64)>,
    ) {
        let is_counter = family.kind == MetricType::COUNTER;
        let mut sums = BTreeMap::new();
        for (labels, value) in series {
            let sum: &mut f64 = sums.entry(labels).or_default();
            *sum = if is_counter { *sum + value } else { value };
        }
        let metrics = sums.into_iter().map(|(labels, value)| {
            let mut metric = family.metric(labels);
            if is_counter {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            metric
        });
        self.add(family, metrics.collect(), Vec::new());
    }

    pub(super) fn show_histograms<'a, const N: usize>(
        &mut self,
        family: &Family<N>,
        series: impl IntoIterator<Item = (Values<'a, N>, Histogram, Exemplars)>,
    ) {
        let metrics = series.into_iter().map(|(labels, histogram, exemplars)| {
            let mut metric = family.metric(labels);
            metric.set_histogram(histogram);
            (metric, exemplars)
        });
        let (metrics, exemplars) = metrics.unzip();
        self.add(family, metrics, exemplars);
    }

    /// A family without series is not shown.
    fn add<const N: usize>(&mut self, family: &Family<N>, metrics: Vec<Metric>, exemplars: Vec<Exemplars>) {
        if metrics.is_empty() {
            return;
        }
        let mut shown = MetricFamily::default();
        shown.set_name(family.name.into());
        shown.set_help(family.help.trim_ascii().into());
        shown.set_field_type(family.kind);
        shown.set_metric(metrics);
        self.0.push(ShownFamily { family: shown, exemplars });
    }
}

impl<const N: usize> Family<N> {
    fn metric(&self, values: Values<'_, N>) -> Metric {
        let pairs = self.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).into());
            pair.set_value(value.into_owned());
            pair
        });
        Metric::from_label(pairs.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, kind, labels and what it says, of each row of the reference.
    fn reference() -> Vec<[String; 4]> {
        let rows = include_str!("../../README.md").lines().filter(|line| line.starts_with("| `tollgate_"));
        let rows = rows.map(|row| {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
            let [_, name, kind, labels, help, _] = &cells[..] else { panic!("{row}") };
            // After a colon stand the values that a label may have.
            let labels = labels.replace("of calls", "destination, grant, namespace, service_account, model");
            let labels = labels.split(';').flat_map(|part| {
                let names = part.split_once(':').map_or(part, |(names, _)| names);
                names.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>()
            });
            [name.clone(), kind.clone(), labels.collect::<Vec<_>>().join(", "), help.clone()]
        });
        rows.collect()
    }

    #[test]
    fn the_reference_has_every_family_with_its_kind_labels_and_help() {
        let reference = reference();
        for (row, (name, kind, help, labels)) in reference.iter().zip(ALL) {
            let kind = format!("{kind:?}").to_lowercase();
            assert_eq!(row[..3], [(*name).to_owned(), kind, labels.join(", ")]);
            assert!(row[3].starts_with(help.trim_ascii().trim_end_matches('.')), "{name}: {}", row[3]);
        }
        assert_eq!(reference.len(), ALL.len());
    }

    #[test]
    fn what_has_the_same_labels_is_added_up_and_an_empty_family_is_not_shown() {
        let mut page = MetricsPage::default();
        page.show(&HANDSHAKES_REFUSED, [(["b".into()], 1.0), (["a".into()], 2.0), (["b".into()], 0.5)]);
        page.show(&STORE_UP, []);
        page.one(&CONFIG_UP, 1.0);
        assert_eq!(
            page.encode().unwrap(),
            "# HELP tollgate_tls_handshakes_refused_total Callers that were turned away.\n\
             # TYPE tollgate_tls_handshakes_refused_total counter\n\
             tollgate_tls_handshakes_refused_total{reason=\"a\"} 2\n\
             tollgate_tls_handshakes_refused_total{reason=\"b\"} 1.5\n\
             # HELP tollgate_config_up 1 while the configuration on disk is in force.\n\
             # TYPE tollgate_config_up gauge\n\
             tollgate_config_up 1\n"
        );
    }
}
