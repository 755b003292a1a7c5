//! How far each partition lies behind, in offsets and in time: pure.

use std::collections::HashMap;

use super::log::Source;

/// What is known about the partitions that are measured in turn.
///
/// The log tells how far it reaches, not when the first record was sent that is missing here. That record was sent
/// after the last one that is applied, and after any look at the end of the log that has been reached since.
#[derive(Debug)]
pub struct Lag {
    /// Partitions in the order in which they are measured.
    turns: Vec<Source>,
    next: usize,
    /// When measuring began, in Unix milliseconds.
    begun_ms: i64,
    seen: HashMap<Source, Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// When the last applied record was sent.
    applied_ms: Option<i64>,
    /// An end of the log that was not reached when it was seen, and when that was.
    end: Option<(i64, i64)>,
    /// Everything that stood in the log at this time is applied.
    complete_ms: Option<i64>,
}

impl Lag {
    /// Nothing is known yet.
    pub fn new(turns: Vec<Source>, now_ms: i64) -> Self {
        Self {
            turns,
            next: 0,
            begun_ms: now_ms,
            seen: HashMap::new(),
        }
    }

    /// Whose turn it is.
    pub fn turn(&mut self) -> Option<Source> {
        let source = self.turns.get(self.next).copied();
        self.next = (self.next + 1) % self.turns.len().max(1);
        source
    }

    /// A record of the partition is applied that was sent at this time.
    pub fn applied(&mut self, source: Source, sent_ms: i64) {
        let seen = self.seen.entry(source).or_default();
        // Producers have clocks of their own.
        seen.applied_ms = seen.applied_ms.max(Some(sent_ms));
    }

    /// Takes in that the log now reaches to `end`, and says for how many seconds the oldest record has been waiting
    /// that is not applied: 0 when all are. When it was sent is known of one that is held back (`held_ms`); of others
    /// the answer is the longest that can be.
    pub fn measured(
        &mut self,
        source: Source,
        position: i64,
        end: i64,
        held_ms: Option<i64>,
        now_ms: i64,
    ) -> f64 {
        let seen = self.seen.entry(source).or_default();
        if let Some((reached, at_ms)) = seen.end
            && position >= reached
        {
            seen.complete_ms = Some(at_ms);
            seen.end = None;
        }
        if position >= end {
            seen.complete_ms = Some(now_ms);
            return 0.0;
        }
        seen.end.get_or_insert((end, now_ms));
        let since_ms = held_ms
            .or(seen.applied_ms.max(seen.complete_ms))
            .unwrap_or(self.begun_ms);
        (now_ms - since_ms).max(0) as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use contracts::Service;

    use super::*;

    const SOURCE: Source = (Service::Orders, 0);

    fn lag() -> Lag {
        Lag::new(vec![SOURCE], 1_000_000)
    }

    #[test]
    fn a_partition_that_is_complete_has_no_lag() {
        let mut lag = lag();
        assert_eq!(lag.measured(SOURCE, 7, 7, None, 1_000_100), 0.0);
    }

    #[test]
    fn what_just_came_to_a_quiet_partition_is_not_as_old_as_what_came_before() {
        let mut lag = lag();
        lag.applied(SOURCE, 10_000);
        assert_eq!(lag.measured(SOURCE, 7, 7, None, 1_000_000), 0.0);
        assert_eq!(lag.measured(SOURCE, 7, 8, None, 1_004_000), 4.0);
        // Applied at last, but others came meanwhile: all that stood there at the last look is through.
        assert_eq!(lag.measured(SOURCE, 8, 9, None, 1_006_000), 2.0);
    }

    #[test]
    fn a_backlog_is_as_old_as_what_is_being_applied_from_it() {
        let mut lag = lag();
        lag.applied(SOURCE, 400_000);
        assert_eq!(lag.measured(SOURCE, 10, 90, None, 1_000_000), 600.0);
        lag.applied(SOURCE, 600_000);
        assert_eq!(lag.measured(SOURCE, 20, 90, None, 1_001_000), 401.0);
    }

    #[test]
    fn a_partition_that_stands_still_ages() {
        let mut lag = lag();
        assert_eq!(lag.measured(SOURCE, 10, 90, None, 1_030_000), 30.0);
        assert_eq!(lag.measured(SOURCE, 10, 95, None, 1_060_000), 60.0);
        // The record at which it waits says it better.
        assert_eq!(
            lag.measured(SOURCE, 10, 95, Some(10_000), 1_060_000),
            1_050.0
        );
    }

    #[test]
    fn partitions_are_measured_in_turn() {
        let other = (Service::Payments, 1);
        let mut lag = Lag::new(vec![SOURCE, other], 0);
        let turns: Vec<_> = (0..3).filter_map(|_| lag.turn()).collect();
        assert_eq!(turns, [SOURCE, other, SOURCE]);
    }
}
