//! The status as metrics, in the text format of Prometheus (version 0.0.4).
//!
//! Labels are bounded: a key's name and id, a reason, a result. The addresses of peers are
//! in the status alone.

use std::collections::BTreeMap;

use prometheus::TextEncoder;
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

use super::{Histogram, Key, Status};
use crate::process::usage::Usage;

/// The type of the text.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The cryptography of this build.
const CRYPTO: &str = if cfg!(feature = "aws-lc") { "aws-lc" } else { "rust-crypto" };

/// Labels with their values.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// The metrics of a process.
pub(crate) fn to_text(status: &Status, usage: &Usage) -> String {
    let mut families = Families(Vec::new());
    of_process_and_keys(&mut families, status);
    of_handshakes_and_target(&mut families, status);
    of_connections(&mut families, status);
    of_usage(&mut families, status, usage);
    // A family without a series, such as before the first handshake, is left out.
    families.0.retain(|family| !family.get_metric().is_empty());
    match TextEncoder::new().encode_to_string(&families.0) {
        Ok(text) => text,
        Err(error) => unreachable!("each family has a name and a series: {error}"),
    }
}

fn of_process_and_keys(families: &mut Families, status: &Status) {
    let build = vec![("version", &*status.spiped), ("crypto", CRYPTO)];
    families.gauge(
        "spiped_build_info",
        "Always 1: the version of the program and its cryptography.",
        [(build, 1.0)],
    );
    families.gauge(
        "spiped_listening",
        "Whether new connections are accepted.",
        [(vec![], f64::from(!status.listening.is_empty()))],
    );
    let reloads = &status.keys_reloaded;
    families.gauge(
        "spiped_config_last_reload_successful",
        "Whether the last reload of the keys succeeded; the start counts as one.",
        [(vec![], f64::from(reloads.last_successful.unwrap_or(true)))],
    );
    families.gauge(
        "spiped_config_last_reload_success_timestamp_seconds",
        "When the keys were last loaded.",
        reloads.last_success.map(|time| (vec![], float(time.0))),
    );
    families.gauge(
        "spiped_key_in_force",
        "Whether new connections can use the key; 0: only open connections still have it.",
        status.keys.iter().map(|key| (labels(key), f64::from(key.in_force))),
    );
    let used = |key: &'_ Key| key.last_used.map(|time| float(time.0));
    families.gauge(
        "spiped_key_last_used_timestamp_seconds",
        "When the latest handshake of the key ended.",
        status.keys.iter().filter_map(|key| Some((labels(key), used(key)?))),
    );
}

fn of_handshakes_and_target(families: &mut Families, status: &Status) {
    families.counter(
        "spiped_handshakes_total",
        "Handshakes by their result: ok, or why they failed.",
        status.handshakes.iter().map(|(result, count)| (vec![("result", &**result)], *count)),
    );
    families.histogram(
        "spiped_handshake_duration_seconds",
        "How long handshakes took that succeeded.",
        &status.handshake_seconds,
    );
    families.histogram(
        "spiped_target_connect_duration_seconds",
        "How long connects to the target took that succeeded.",
        &status.target_connect_seconds,
    );
    families.gauge(
        "spiped_target_reachable",
        "Whether the last connect to the target succeeded.",
        status.target.reachable.map(|reachable| (vec![], f64::from(reachable))),
    );
}

fn of_connections(families: &mut Families, status: &Status) {
    let Status { keys, .. } = status;
    families.gauge(
        "spiped_connections",
        "Open connections.",
        keys.iter().map(|key| (labels(key), float(key.connections))),
    );
    families.gauge(
        "spiped_connection_limit",
        "How many connections there may be at once.",
        [(vec![], float(status.connection_limit))],
    );
    families.counter(
        "spiped_connections_opened_total",
        "Connections that have reached the other side.",
        keys.iter().map(|key| (labels(key), key.totals.connections)),
    );
    let none = [("key", ""), ("key_id", "")];
    families.counter(
        "spiped_connections_total",
        "Connections that ended, by the reason; without a key, where none was proved.",
        keys.iter()
            .flat_map(|key| by_reason(&labels(key), &key.totals.closed))
            .chain(by_reason(&none, &status.closed_without_key)),
    );
    families.counter(
        "spiped_sent_bytes_total",
        "Bytes that came out of the local socket and went into the tunnel.",
        keys.iter().map(|key| (labels(key), key.totals.sent_bytes)),
    );
    families.counter(
        "spiped_received_bytes_total",
        "Bytes that came out of the tunnel and went into the local socket.",
        keys.iter().map(|key| (labels(key), key.totals.received_bytes)),
    );
    families.gauge(
        "spiped_carriers",
        "Sessions that many connections share.",
        [(vec![], float(u64::try_from(status.carriers.len()).unwrap_or(u64::MAX)))],
    );
    families.gauge(
        "spiped_carrier_streams",
        "Connections that share a session with others.",
        [(vec![], float(status.carriers.iter().map(|carrier| carrier.streams).sum()))],
    );
    families.gauge(
        "spiped_strangers",
        "Peers that have not proved a key yet.",
        [(vec![], float(status.strangers))],
    );
    families.gauge(
        "spiped_stranger_limit",
        "How many peers may be there at once that have not proved a key.",
        [(vec![], float(status.stranger_limit))],
    );
}

fn of_usage(families: &mut Families, status: &Status, usage: &Usage) {
    families.add(
        "process_cpu_seconds_total",
        "Processor time of the process.",
        MetricType::COUNTER,
        usage.cpu_seconds.map(|seconds| counter(&[], seconds)).into_iter().collect(),
    );
    families.gauge(
        "process_start_time_seconds",
        "When the process started.",
        [(vec![], float(status.since.0))],
    );
    let values = [
        ("process_open_fds", "Open file descriptors.", usage.descriptors),
        ("process_max_fds", "The limit of file descriptors.", usage.descriptor_limit),
        ("process_resident_memory_bytes", "Memory in use.", usage.resident_bytes),
        ("process_virtual_memory_bytes", "Memory that has addresses.", usage.virtual_bytes),
        ("process_threads", "Threads.", usage.threads),
    ];
    for (name, help, value) in values {
        families.gauge(name, help, value.map(|value| (vec![], float(value))));
    }
}

/// Metrics, one after the other.
struct Families(Vec<MetricFamily>);

impl Families {
    fn gauge<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) {
        let gauge = |(labels, value): (Labels<'_>, f64)| {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            let mut metric = Metric::from_label(pairs(&labels));
            metric.set_gauge(gauge);
            metric
        };
        self.add(name, help, MetricType::GAUGE, series.into_iter().map(gauge).collect());
    }

    fn counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) {
        let series = series.into_iter();
        let series = series.map(|(labels, count)| counter(&labels, float(count))).collect();
        self.add(name, help, MetricType::COUNTER, series);
    }

    fn histogram(&mut self, name: &str, help: &str, seen: &Histogram) {
        let bucket = |(le, count): (&f64, &u64)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*le);
            bucket.set_cumulative_count(*count);
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(seen.le.iter().zip(&seen.counts).map(bucket).collect());
        histogram.set_sample_count(seen.count);
        histogram.set_sample_sum(seen.sum);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        self.add(name, help, MetricType::HISTOGRAM, vec![metric]);
    }

    fn add(&mut self, name: &str, help: &str, kind: MetricType, series: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(series);
        self.0.push(family);
    }
}

fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_counter(counter);
    metric
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

/// A name alone would not do: a key that was replaced, and still has connections, has the
/// same name as the key in its place.
fn labels(key: &Key) -> Labels<'_> {
    vec![("key", &key.name), ("key_id", &key.id)]
}

fn by_reason<'a>(
    labels: &[(&'static str, &'a str)],
    closed: &'a BTreeMap<String, u64>,
) -> Vec<(Labels<'a>, u64)> {
    let labelled =
        |(reason, count): (&'a String, &u64)| ([labels, &[("reason", &**reason)]].concat(), *count);
    closed.iter().map(labelled).collect()
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "the format has no other")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A label's value with all that the format has to escape.
    #[test]
    fn a_name_cannot_become_another_series() {
        let mut families = Families(Vec::new());
        families.counter("a_total", "A \\ \n \".", [(vec![("key", "x\"\\\n} 1")], 3)]);
        let text = TextEncoder::new().encode_to_string(&families.0).unwrap();
        let expected = "# HELP a_total A \\\\ \\n \".\n# TYPE a_total counter\n\
                        a_total{key=\"x\\\"\\\\\\n} 1\"} 3\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_histogram_ends_with_all() {
        let mut families = Families(Vec::new());
        let seen = Histogram { le: vec![0.5, 1.0], counts: vec![1, 2], count: 3, sum: 4.25 };
        families.histogram("a_seconds", "A.", &seen);
        let text = TextEncoder::new().encode_to_string(&families.0).unwrap();
        let expected = "# HELP a_seconds A.\n# TYPE a_seconds histogram\n\
                        a_seconds_bucket{le=\"0.5\"} 1\na_seconds_bucket{le=\"1\"} 2\n\
                        a_seconds_bucket{le=\"+Inf\"} 3\na_seconds_sum 4.25\na_seconds_count 3\n";
        assert_eq!(text, expected);
    }
}
