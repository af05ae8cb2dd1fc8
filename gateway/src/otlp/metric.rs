//! From the families of a scrape to OTLP's metrics: the same names, labels and numbers.

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value as ExemplarValue;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
    metric,
};
use prometheus::proto::{self, MetricType};

use super::attribute::text;
use super::nanos;
use crate::metrics::ShownFamily;
use crate::stats::{self, Exemplars};

/// The families as they are at `now`; counters count since `since`.
pub(super) fn metrics(families: &[ShownFamily], since: Timestamp, now: Timestamp) -> Vec<Metric> {
    families
        .iter()
        .filter_map(|family| metric(family, Interval { since: nanos(since), now: nanos(now) }))
        .collect()
}

/// How many points there are.
pub(super) fn points(metrics: &[Metric]) -> usize {
    let count = |metric: &Metric| match &metric.data {
        Some(metric::Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(metric::Data::Sum(sum)) => sum.data_points.len(),
        Some(metric::Data::Histogram(histogram)) => histogram.data_points.len(),
        _ => 0,
    };
    metrics.iter().map(count).sum()
}

#[derive(Clone, Copy)]
struct Interval {
    since: u64,
    now: u64,
}

fn metric(shown: &ShownFamily, interval: Interval) -> Option<Metric> {
    let ShownFamily { family, exemplars } = shown;
    let cumulative = AggregationTemporality::Cumulative.into();
    let series = family.get_metric();
    let data = match family.get_field_type() {
        MetricType::COUNTER => metric::Data::Sum(Sum {
            data_points: series
                .iter()
                .map(|one| number(one, one.get_counter().get_value(), interval))
                .collect(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        MetricType::GAUGE => metric::Data::Gauge(Gauge {
            data_points: series
                .iter()
                .map(|one| number(one, one.get_gauge().get_value(), Interval { since: 0, ..interval }))
                .collect(),
        }),
        MetricType::HISTOGRAM => metric::Data::Histogram(Histogram {
            data_points: series
                .iter()
                .zip(exemplars)
                .map(|(one, exemplars)| histogram(one, exemplars, interval))
                .collect(),
            aggregation_temporality: cumulative,
        }),
        _ => return None,
    };
    let unit = unit(family.name());
    Some(Metric {
        name: family.name().to_owned(),
        description: family.help().to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    })
}

/// The unit, of those that the names of our families say (UCUM).
fn unit(name: &str) -> &'static str {
    let name = name.trim_end_matches("_total");
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        Some("usd") => "{USD}",
        _ => "",
    }
}

fn labels(metric: &proto::Metric) -> Vec<KeyValue> {
    metric.get_label().iter().map(|label| text(label.name(), label.value())).collect()
}

fn number(metric: &proto::Metric, value: f64, Interval { since, now }: Interval) -> NumberDataPoint {
    NumberDataPoint {
        attributes: labels(metric),
        start_time_unix_nano: since,
        time_unix_nano: now,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn histogram(
    metric: &proto::Metric,
    exemplars: &Exemplars,
    Interval { since, now }: Interval,
) -> HistogramDataPoint {
    let histogram = metric.get_histogram();
    let mut below = 0;
    let (mut counts, mut bounds) = (Vec::new(), Vec::new());
    for bucket in histogram.get_bucket() {
        counts.push(bucket.cumulative_count() - below);
        bounds.push(bucket.upper_bound());
        below = bucket.cumulative_count();
    }
    counts.push(histogram.get_sample_count() - below);
    HistogramDataPoint {
        attributes: labels(metric),
        start_time_unix_nano: since,
        time_unix_nano: now,
        count: histogram.get_sample_count(),
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        exemplars: exemplars.iter().flatten().map(exemplar).collect(),
        ..HistogramDataPoint::default()
    }
}

fn exemplar(exemplar: &stats::Exemplar) -> Exemplar {
    Exemplar {
        time_unix_nano: nanos(exemplar.at),
        trace_id: exemplar.trace.as_bytes().to_vec(),
        value: Some(ExemplarValue::AsDouble(exemplar.micros as f64 / 1e6)),
        ..Exemplar::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_counted_apart_and_units_are_those_of_the_names() {
        let mut page = proto::Histogram::default();
        let bucket = |bound, count| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        };
        page.set_bucket(vec![bucket(0.1, 2), bucket(1.0, 5)]);
        page.set_sample_count(7);
        page.set_sample_sum(9.5);
        let mut one = proto::Metric::default();
        one.set_histogram(page);
        let exemplars = Exemplars::default();
        let point = histogram(&one, &exemplars, Interval { since: 1, now: 2 });
        assert_eq!((point.bucket_counts, point.explicit_bounds), (vec![2, 3, 2], vec![0.1, 1.0]));
        assert_eq!((point.count, point.sum), (7, Some(9.5)));
        assert_eq!(unit("tollgate_request_duration_seconds"), "s");
        assert_eq!(unit("tollgate_request_bytes_total"), "By");
        assert_eq!(unit("tollgate_requests_total"), "");
    }
}
