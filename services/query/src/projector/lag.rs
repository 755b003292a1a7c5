//! Estimates the age of the oldest event that is not applied, for each partition. Pure.

use std::collections::HashMap;

use super::log::Source;

/// Estimates the lag of partitions that are measured one after the other.
///
/// The broker reports the end of a partition, not the send time of its first unapplied record. That record was sent
/// after the last applied record, and after every measurement whose end offset has been applied since.
#[derive(Debug)]
pub struct LagEstimator {
    /// Partitions in the order in which they are measured.
    partitions: Vec<Source>,
    next: usize,
    /// When measuring began, in Unix milliseconds.
    started_ms: i64,
    observations: HashMap<Source, Observation>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Observation {
    /// When the last applied record was sent.
    applied_ms: Option<i64>,
    /// An end offset that was not yet applied when it was measured, and the time of the measurement.
    end: Option<(i64, i64)>,
    /// Every record that was in the log at this time is applied.
    complete_ms: Option<i64>,
}

impl LagEstimator {
    /// An estimator without observations.
    pub fn new(partitions: Vec<Source>, now_ms: i64) -> Self {
        Self {
            partitions,
            next: 0,
            started_ms: now_ms,
            observations: HashMap::new(),
        }
    }

    /// The partition to measure next.
    pub fn next_partition(&mut self) -> Option<Source> {
        let source = self.partitions.get(self.next).copied();
        self.next = (self.next + 1) % self.partitions.len().max(1);
        source
    }

    /// Records that a record with this send time was applied.
    pub fn record_applied(&mut self, source: Source, sent_ms: i64) {
        let observed = self.observations.entry(source).or_default();
        // The clocks of producers differ.
        observed.applied_ms = observed.applied_ms.max(Some(sent_ms));
    }

    /// Records that the partition ends at `end`, and returns the age in seconds of the oldest record that is not
    /// applied, 0 when all are. The age is exact for a held record (`held_ms` is its send time), and an upper bound
    /// otherwise.
    pub fn measure(
        &mut self,
        source: Source,
        position: i64,
        end: i64,
        held_ms: Option<i64>,
        now_ms: i64,
    ) -> f64 {
        let observed = self.observations.entry(source).or_default();
        if let Some((reached, at_ms)) = observed.end
            && position >= reached
        {
            observed.complete_ms = Some(at_ms);
            observed.end = None;
        }
        if position >= end {
            observed.complete_ms = Some(now_ms);
            return 0.0;
        }
        observed.end.get_or_insert((end, now_ms));
        let since_ms = held_ms
            .or(observed.applied_ms.max(observed.complete_ms))
            .unwrap_or(self.started_ms);
        (now_ms - since_ms).max(0) as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use contracts::Service;

    use super::*;

    const SOURCE: Source = (Service::Orders, 0);

    fn lag() -> LagEstimator {
        LagEstimator::new(vec![SOURCE], 1_000_000)
    }

    #[test]
    fn a_fully_applied_partition_has_no_lag() {
        let mut lag = lag();
        assert_eq!(lag.measure(SOURCE, 7, 7, None, 1_000_100), 0.0);
    }

    #[test]
    fn the_lag_of_a_quiet_partition_counts_from_its_last_complete_measurement() {
        let mut lag = lag();
        lag.record_applied(SOURCE, 10_000);
        assert_eq!(lag.measure(SOURCE, 7, 7, None, 1_000_000), 0.0);
        assert_eq!(lag.measure(SOURCE, 7, 8, None, 1_004_000), 4.0);
        // Applied, but another record followed: everything up to the last measurement is applied.
        assert_eq!(lag.measure(SOURCE, 8, 9, None, 1_006_000), 2.0);
    }

    #[test]
    fn the_lag_of_a_backlog_counts_from_the_last_applied_record() {
        let mut lag = lag();
        lag.record_applied(SOURCE, 400_000);
        assert_eq!(lag.measure(SOURCE, 10, 90, None, 1_000_000), 600.0);
        lag.record_applied(SOURCE, 600_000);
        assert_eq!(lag.measure(SOURCE, 20, 90, None, 1_001_000), 401.0);
    }

    #[test]
    fn the_lag_of_a_stalled_partition_grows() {
        let mut lag = lag();
        assert_eq!(lag.measure(SOURCE, 10, 90, None, 1_030_000), 30.0);
        assert_eq!(lag.measure(SOURCE, 10, 95, None, 1_060_000), 60.0);
        // The send time of the held record is more precise.
        assert_eq!(
            lag.measure(SOURCE, 10, 95, Some(10_000), 1_060_000),
            1_050.0
        );
    }

    #[test]
    fn partitions_are_measured_in_turn() {
        let other = (Service::Payments, 1);
        let mut lag = LagEstimator::new(vec![SOURCE, other], 0);
        let measured: Vec<_> = (0..3).filter_map(|_| lag.next_partition()).collect();
        assert_eq!(measured, [SOURCE, other, SOURCE]);
    }
}
