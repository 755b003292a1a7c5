//! What the lag exporter tells. Labels are groups, topics and partitions, without the prefix.

use observability::Metric;
use prometheus::{GaugeVec, Histogram, IntGaugeVec, Registry, exponential_buckets};

use super::broker_probe::ProbeResult;

/// Every metric, defined once.
pub mod names {
    use observability::Metric;

    /// What a group has not processed.
    pub const RECORDS: Metric = Metric::gauge(
        "ordermesh_lag_records",
        &["group", "topic", "partition"],
        "Offsets between a group's committed offset and the high watermark; absent when the broker does not answer.",
    );
    /// Age of the oldest of it.
    pub const SECONDS: Metric = Metric::gauge(
        "ordermesh_lag_seconds",
        &["group", "topic", "partition"],
        "Time since the append of the oldest record that a group has not processed, 0 when there is none; absent when \
         it could not be read.",
    );
    /// Who processes.
    pub const MEMBERS: Metric = Metric::gauge(
        "ordermesh_lag_members",
        &["group"],
        "Members of a group; a process that was killed stays one until its session ends.",
    );
    /// What nobody may read yet.
    pub const UNSTABLE_SECONDS: Metric = Metric::gauge(
        "ordermesh_lag_unstable_seconds",
        &["topic", "partition"],
        "For how long the last stable offset has stood still behind the high watermark: somebody's transaction does \
         not end. 0 when it moves or is not behind.",
    );
    /// How much there is.
    pub const END_OFFSET: Metric = Metric::gauge(
        "ordermesh_lag_end_offset",
        &["topic", "partition"],
        "High watermark.",
    );
    /// What can never be processed.
    pub const DEAD_LETTERS: Metric = Metric::gauge(
        "ordermesh_lag_dead_letters",
        &["topic"],
        "Records in a topic of dead letters; absent until they have been counted.",
    );
    /// Whether the broker answers.
    pub const BROKER_UP: Metric = Metric::gauge(
        "ordermesh_lag_broker_up",
        &[],
        "Whether the broker answered the last look (1) or not (0).",
    );
    /// Cost of a look.
    pub const LOOK_SECONDS: Metric = Metric::histogram(
        "ordermesh_lag_look_seconds",
        &[],
        "Duration of one look at the broker.",
    );
}

/// All of them, for the list of metrics.
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

/// Figures of the lag exporter; what each says stands at its name.
pub struct Metrics {
    records: IntGaugeVec,
    seconds: GaugeVec,
    members: IntGaugeVec,
    unstable_seconds: GaugeVec,
    end_offset: IntGaugeVec,
    dead_letters: IntGaugeVec,
    /// A family, so that it is absent before the first look.
    broker_up: IntGaugeVec,
    /// [`names::LOOK_SECONDS`]
    pub look_seconds: Histogram,
}

impl Metrics {
    /// Registers everything on `registry`.
    ///
    /// # Errors
    ///
    /// When a name is taken there.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            records: names::RECORDS.int_gauges(registry)?,
            seconds: names::SECONDS.gauges_of_fractions(registry)?,
            members: names::MEMBERS.int_gauges(registry)?,
            unstable_seconds: names::UNSTABLE_SECONDS.gauges_of_fractions(registry)?,
            end_offset: names::END_OFFSET.int_gauges(registry)?,
            dead_letters: names::DEAD_LETTERS.int_gauges(registry)?,
            broker_up: names::BROKER_UP.int_gauges(registry)?,
            look_seconds: names::LOOK_SECONDS
                .one_histogram(registry, exponential_buckets(0.005, 2.0, 12)?)?,
        })
    }

    /// Shows whether the broker has answered.
    pub fn broker_up(&self, is_up: bool) {
        self.broker_up
            .with_label_values(&[] as &[&str])
            .set(i64::from(is_up));
    }

    /// Shows what was seen in place of what was seen before.
    pub fn show(&self, look: &ProbeResult) {
        for lag in &look.lags {
            let (topic, partition) = (lag.topic(), lag.partition.to_string());
            let labels = [lag.service.name(), &topic, &partition];
            self.records.with_label_values(&labels).set(lag.records);
            match lag.seconds {
                Some(seconds) => self.seconds.with_label_values(&labels).set(seconds),
                // Shown the last time, or never.
                None => drop(self.seconds.remove_label_values(&labels)),
            }
        }
        for group in &look.groups {
            self.members
                .with_label_values(&[group.service.name()])
                .set(count(group.members.len()));
        }
        for end in &look.ends {
            let (topic, partition) = (end.topic(), end.partition.to_string());
            let labels = [topic.as_str(), &partition];
            self.unstable_seconds
                .with_label_values(&labels)
                .set(end.unstable.as_secs_f64());
            self.end_offset.with_label_values(&labels).set(end.high);
        }
        if look.dead_letters.is_empty() {
            self.dead_letters.reset();
        }
        for (topic, letters) in &look.dead_letters {
            self.dead_letters
                .with_label_values(&[topic])
                .set(count(*letters));
        }
    }

    /// Forgets what was seen: old figures would be taken for new ones.
    pub fn forget(&self) {
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
