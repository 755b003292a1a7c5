//! Metrics of the lag exporter. Labels are groups, topics and partitions, without the prefix.

use observability::Metric;
use prometheus::{GaugeVec, Histogram, IntGaugeVec, Registry, exponential_buckets};

use super::broker_probe::ProbeResult;

/// Every metric, defined once.
pub mod names {
    use observability::Metric;

    /// Lag in records.
    pub const RECORDS: Metric = Metric::gauge(
        "ordermesh_lag_records",
        &["group", "topic", "partition"],
        "Offsets between a group's committed offset and the high watermark; absent when the broker does not answer.",
    );
    /// Lag in seconds.
    pub const SECONDS: Metric = Metric::gauge(
        "ordermesh_lag_seconds",
        &["group", "topic", "partition"],
        "Time since the append of the oldest record that a group has not processed, 0 when there is none; absent when \
         it could not be read.",
    );
    /// Members of a group.
    pub const MEMBERS: Metric = Metric::gauge(
        "ordermesh_lag_members",
        &["group"],
        "Members of a group; a process that was killed stays one until its session ends.",
    );
    /// Stalled last stable offsets.
    pub const UNSTABLE_SECONDS: Metric = Metric::gauge(
        "ordermesh_lag_unstable_seconds",
        &["topic", "partition"],
        "For how long the last stable offset has stood still behind the high watermark: a transaction does not \
         end. 0 when it moves or is not behind.",
    );
    /// End offsets.
    pub const END_OFFSET: Metric = Metric::gauge(
        "ordermesh_lag_end_offset",
        &["topic", "partition"],
        "High watermark.",
    );
    /// Dead letters.
    pub const DEAD_LETTERS: Metric = Metric::gauge(
        "ordermesh_lag_dead_letters",
        &["topic"],
        "Records in a topic of dead letters; absent until they have been counted.",
    );
    /// Availability of the broker.
    pub const BROKER_UP: Metric = Metric::gauge(
        "ordermesh_lag_broker_up",
        &[],
        "Whether the broker answered the last look (1) or not (0).",
    );
    /// Duration of a probe.
    pub const LOOK_SECONDS: Metric = Metric::histogram(
        "ordermesh_lag_look_seconds",
        &[],
        "Duration of one look at the broker.",
    );
}

/// All metrics, for the generated list.
pub const ALL: &[Metric] = &[
    names::RECORDS,
    names::SECONDS,
    names::MEMBERS,
    names::UNSTABLE_SECONDS,
    names::END_OFFSET,
    names::DEAD_LETTERS,
    names::BROKER_UP,
    names::LOOK_SECONDS,
];

/// The metrics of the lag exporter. Each is described at its name.
pub struct Metrics {
    records: IntGaugeVec,
    seconds: GaugeVec,
    members: IntGaugeVec,
    unstable_seconds: GaugeVec,
    end_offset: IntGaugeVec,
    dead_letters: IntGaugeVec,
    /// A family, so that it is absent before the first probe.
    broker_up: IntGaugeVec,
    /// [`names::LOOK_SECONDS`]
    pub look_seconds: Histogram,
}

impl Metrics {
    /// Registers the metrics on `registry`.
    ///
    /// # Errors
    ///
    /// A metric is already registered.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            records: names::RECORDS.int_gauges(registry)?,
            seconds: names::SECONDS.float_gauges(registry)?,
            members: names::MEMBERS.int_gauges(registry)?,
            unstable_seconds: names::UNSTABLE_SECONDS.float_gauges(registry)?,
            end_offset: names::END_OFFSET.int_gauges(registry)?,
            dead_letters: names::DEAD_LETTERS.int_gauges(registry)?,
            broker_up: names::BROKER_UP.int_gauges(registry)?,
            look_seconds: names::LOOK_SECONDS
                .single_histogram(registry, exponential_buckets(0.005, 2.0, 12)?)?,
        })
    }

    /// Sets whether the broker has answered.
    pub fn broker_up(&self, is_up: bool) {
        self.broker_up
            .with_label_values(&[] as &[&str])
            .set(i64::from(is_up));
    }

    /// Replaces the values with those of a probe.
    pub fn update(&self, result: &ProbeResult) {
        for lag in &result.lags {
            let (topic, partition) = (lag.topic(), lag.partition.to_string());
            let labels = [lag.service.name(), &topic, &partition];
            self.records.with_label_values(&labels).set(lag.records);
            match lag.seconds {
                Some(seconds) => self.seconds.with_label_values(&labels).set(seconds),
                // Remove the value of an earlier probe, if there is one.
                None => drop(self.seconds.remove_label_values(&labels)),
            }
        }
        for group in &result.groups {
            self.members
                .with_label_values(&[group.service.name()])
                .set(count(group.members.len()));
        }
        for end in &result.ends {
            let (topic, partition) = (end.topic(), end.partition.to_string());
            let labels = [topic.as_str(), &partition];
            self.unstable_seconds
                .with_label_values(&labels)
                .set(end.unstable.as_secs_f64());
            self.end_offset.with_label_values(&labels).set(end.high);
        }
        if result.dead_letters.is_empty() {
            self.dead_letters.reset();
        }
        for (topic, dead_letters) in &result.dead_letters {
            self.dead_letters
                .with_label_values(&[topic])
                .set(count(*dead_letters));
        }
    }

    /// Removes all values: stale values would look current.
    pub fn reset(&self) {
        for gauges in [
            &self.records,
            &self.members,
            &self.end_offset,
            &self.dead_letters,
        ] {
            gauges.reset();
        }
        self.seconds.reset();
        self.unstable_seconds.reset();
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
