//! Series that are made for a page from numbers that live elsewhere.

use prometheus::core::Desc;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// All series of one name.
pub(super) fn family(description: &Desc, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(description.fq_name.clone());
    family.set_help(description.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

pub(super) fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    metric(labels, |metric| metric.set_counter(counter))
}

pub(super) fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric(labels, |metric| metric.set_gauge(gauge))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53, and Prometheus has no integers"
)]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

/// `labels` by their names, as the page has them.
pub(super) fn metric(labels: &[(&str, &str)], set: impl FnOnce(&mut Metric)) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value((*value).into());
        pair
    });
    let mut metric = Metric::from_label(pairs.collect());
    set(&mut metric);
    metric
}
