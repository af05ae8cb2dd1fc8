//! OpenMetrics 1.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>): what the text format says, and exemplars.

use std::fmt::Write;

use prometheus::proto::{LabelPair, MetricFamily, MetricType};

use super::families::ShownFamily;
use crate::stats::{Exemplar, Exemplars};

/// The whole exposition.
pub(super) fn encode(families: &[ShownFamily]) -> String {
    let mut page = String::new();
    for shown in families {
        // Writing to a string does not fail.
        let _ = family(shown, &mut page);
    }
    page.push_str("# EOF\n");
    page
}

fn family(ShownFamily { family, exemplars }: &ShownFamily, page: &mut String) -> std::fmt::Result {
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::HISTOGRAM => "histogram",
        _ => "gauge",
    };
    // A counter is named without the suffix of its samples.
    let bare = family.name().strip_suffix("_total").filter(|_| kind == "counter");
    let name = bare.unwrap_or_else(|| family.name());
    writeln!(page, "# TYPE {name} {kind}")?;
    writeln!(page, "# HELP {name} {}", escaped(family.help()))?;
    match kind {
        "histogram" => histograms(family, exemplars, page),
        "counter" => samples(family, &format!("{name}_total"), page),
        _ => samples(family, name, page),
    }
}

fn samples(family: &MetricFamily, name: &str, page: &mut String) -> std::fmt::Result {
    for metric in family.get_metric() {
        let is_counter = family.get_field_type() == MetricType::COUNTER;
        let value =
            if is_counter { metric.get_counter().get_value() } else { metric.get_gauge().get_value() };
        writeln!(page, "{name}{} {value}", labels(metric.get_label(), None))?;
    }
    Ok(())
}

fn histograms(family: &MetricFamily, exemplars: &[Exemplars], page: &mut String) -> std::fmt::Result {
    let name = family.name();
    for (metric, exemplars) in family.get_metric().iter().zip(exemplars) {
        let (histogram, own) = (metric.get_histogram(), metric.get_label());
        let bounds = histogram.get_bucket().iter();
        let bounds = bounds.map(|bucket| (format!("{:?}", bucket.upper_bound()), bucket.cumulative_count()));
        let all = bounds.chain([("+Inf".to_owned(), histogram.get_sample_count())]);
        for ((bound, count), exemplar) in all.zip(exemplars) {
            write!(page, "{name}_bucket{} {count}", labels(own, Some(&bound)))?;
            if let Some(Exemplar { trace, micros, at }) = exemplar {
                let (trace, seconds) = (trace.hex(), *micros as f64 / 1e6);
                let trace = str::from_utf8(&trace).unwrap_or_default();
                write!(
                    page,
                    " # {{trace_id=\"{trace}\"}} {seconds} {:.3}",
                    at.as_millisecond() as f64 / 1e3
                )?;
            }
            page.push('\n');
        }
        writeln!(page, "{name}_count{} {}", labels(own, None), histogram.get_sample_count())?;
        writeln!(page, "{name}_sum{} {}", labels(own, None), histogram.get_sample_sum())?;
    }
    Ok(())
}

/// The labels in braces, that of a bucket behind them.
fn labels(own: &[LabelPair], bound: Option<&str>) -> String {
    let own = own.iter().map(|label| format!("{}=\"{}\"", label.name(), escaped(label.value())));
    let all: Vec<_> = own.chain(bound.map(|bound| format!("le=\"{bound}\""))).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use prometheus::proto::Histogram;

    use super::*;
    use crate::metrics::families::{self, MetricsPage};
    use crate::stats::BUCKETS;
    use crate::trace::TraceId;

    #[test]
    fn an_exposition_has_types_samples_exemplars_and_an_end() {
        let mut page = MetricsPage::default();
        page.show(&families::HANDSHAKES_REFUSED, [(["a \"quoted\"\nword".into()], 2.0)]);
        page.one(&families::CONFIG_UP, 1.0);
        let mut histogram = Histogram::default();
        let mut bucket = prometheus::proto::Bucket::default();
        bucket.set_upper_bound(BUCKETS[9]);
        bucket.set_cumulative_count(1);
        histogram.set_bucket(vec![bucket]);
        histogram.set_sample_count(1);
        histogram.set_sample_sum(0.75);
        let mut exemplars = Exemplars::default();
        let at: Timestamp = "2026-11-29T10:00:00Z".parse().unwrap();
        exemplars[0] = Some(Exemplar { trace: TraceId::of([0xab; 16]).unwrap(), micros: 750_000, at });
        page.show_histograms(&families::DURATION, [(["default/up".into()], histogram, exemplars)]);
        assert_eq!(
            encode(&page.into_families()),
            "# TYPE tollgate_tls_handshakes_refused counter\n\
             # HELP tollgate_tls_handshakes_refused Callers that were turned away.\n\
             tollgate_tls_handshakes_refused_total{reason=\"a \\\"quoted\\\"\\nword\"} 2\n\
             # TYPE tollgate_config_up gauge\n\
             # HELP tollgate_config_up 1 while the configuration on disk is in force.\n\
             tollgate_config_up 1\n\
             # TYPE tollgate_request_duration_seconds histogram\n\
             # HELP tollgate_request_duration_seconds From the head of the request to the end of the answer.\n\
             tollgate_request_duration_seconds_bucket{destination=\"default/up\",le=\"1.0\"} 1 # {trace_id=\"abababababababababababababababab\"} 0.75 1795946400.000\n\
             tollgate_request_duration_seconds_bucket{destination=\"default/up\",le=\"+Inf\"} 1\n\
             tollgate_request_duration_seconds_count{destination=\"default/up\"} 1\n\
             tollgate_request_duration_seconds_sum{destination=\"default/up\"} 0.75\n\
             # EOF\n"
        );
    }
}
