//! A circuit breaker per target.

use std::time::Duration;

use tokio::time::Instant;

/// Consecutive failures that open the breaker.
const FAILURE_THRESHOLD: u32 = 10;
/// How long the breaker stays open before it admits one probe.
const OPEN_DURATION: Duration = Duration::from_secs(1);

/// Counts a target's consecutive failures. While open it admits no call; then the result of one probe decides.
///
/// Once it is open, failures of earlier calls are ignored. An answer to an earlier call closes it: the target is
/// available, and only its failures arrived sooner.
#[derive(Debug)]
pub struct Breaker {
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant },
    Probing,
}

/// A breaker's decision about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Make the call and record its result.
    Admitted(CallKind),
    /// Ask again after this time.
    Wait(Duration),
    /// Ask again when the probe has ended.
    WaitForProbe,
}

/// In which phase the breaker admitted a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// While closed, like all other calls.
    Normal,
    /// Alone, to test the target.
    Probe,
}

/// Result of an admitted call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// The target has answered.
    Answered,
    /// The target has failed.
    Failed,
    /// Cancelled; says nothing about the target.
    Abandoned,
}

/// What a breaker admits; the discriminants are the values of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Everything.
    Closed = 0,
    /// One probe.
    HalfOpen = 1,
    /// Nothing.
    Open = 2,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            phase: Phase::Closed { failures: 0 },
        }
    }
}

impl Breaker {
    /// Decides whether a call may be made now.
    pub fn admit(&mut self, now: Instant) -> Admission {
        match self.phase {
            Phase::Closed { .. } => Admission::Admitted(CallKind::Normal),
            Phase::Open { until } if now < until => Admission::Wait(until - now),
            Phase::Open { .. } => {
                self.phase = Phase::Probing;
                Admission::Admitted(CallKind::Probe)
            }
            Phase::Probing => Admission::WaitForProbe,
        }
    }

    /// Records the result of an admitted call.
    pub fn record(&mut self, kind: CallKind, result: CallResult, now: Instant) {
        match (&mut self.phase, kind, result) {
            (_, _, CallResult::Answered) => *self = Self::default(),
            (Phase::Closed { failures }, _, CallResult::Failed) => {
                *failures += 1;
                if *failures >= FAILURE_THRESHOLD {
                    self.phase = Phase::Open {
                        until: now + OPEN_DURATION,
                    };
                }
            }
            (Phase::Probing, CallKind::Probe, CallResult::Failed) => {
                self.phase = Phase::Open {
                    until: now + OPEN_DURATION,
                };
            }
            // The next call may probe at once.
            (Phase::Probing, CallKind::Probe, CallResult::Abandoned) => {
                self.phase = Phase::Open { until: now };
            }
            _ => {}
        }
    }

    /// What the breaker admits now.
    pub fn state(&self, now: Instant) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { until } if now < until => State::Open,
            Phase::Open { .. } | Phase::Probing => State::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A breaker that has just opened.
    fn opened_breaker(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURE_THRESHOLD {
            assert_eq!(breaker.state(now), State::Closed);
            assert_eq!(breaker.admit(now), Admission::Admitted(CallKind::Normal));
            breaker.record(CallKind::Normal, CallResult::Failed, now);
        }
        breaker
    }

    #[test]
    fn opens_probes_once_and_closes() {
        let start = Instant::now();
        let mut breaker = opened_breaker(start);
        assert_eq!(breaker.state(start), State::Open);
        assert_eq!(breaker.admit(start), Admission::Wait(OPEN_DURATION));

        let later = start + OPEN_DURATION;
        assert_eq!(breaker.state(later), State::HalfOpen);
        assert_eq!(breaker.admit(later), Admission::Admitted(CallKind::Probe));
        assert_eq!(breaker.admit(later), Admission::WaitForProbe);
        assert_eq!(breaker.state(later), State::HalfOpen);
        breaker.record(CallKind::Probe, CallResult::Failed, later);
        assert_eq!(breaker.admit(later), Admission::Wait(OPEN_DURATION));

        let later = later + OPEN_DURATION;
        assert_eq!(breaker.admit(later), Admission::Admitted(CallKind::Probe));
        breaker.record(CallKind::Probe, CallResult::Answered, later);
        assert_eq!(breaker.state(later), State::Closed);
        assert_eq!(breaker.admit(later), Admission::Admitted(CallKind::Normal));
    }

    #[test]
    fn only_consecutive_failures_open_it() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for number in 1..FAILURE_THRESHOLD * 3 {
            let is_answer = number % FAILURE_THRESHOLD == 0;
            let result = if is_answer {
                CallResult::Answered
            } else {
                CallResult::Failed
            };
            breaker.record(CallKind::Normal, result, now);
            breaker.record(CallKind::Normal, CallResult::Abandoned, now);
        }
        assert_eq!(breaker.state(now), State::Closed);
    }

    #[test]
    fn failures_of_calls_from_before_it_opened_are_ignored() {
        let start = Instant::now();
        let mut breaker = opened_breaker(start);
        let later = start + OPEN_DURATION;
        for result in [CallResult::Failed, CallResult::Abandoned] {
            breaker.record(CallKind::Normal, result, later);
            assert_eq!(
                breaker.admit(start),
                Admission::Wait(OPEN_DURATION),
                "{result:?}"
            );
        }
        assert_eq!(breaker.admit(later), Admission::Admitted(CallKind::Probe));
        for result in [CallResult::Failed, CallResult::Abandoned] {
            breaker.record(CallKind::Normal, result, later);
            assert_eq!(breaker.admit(later), Admission::WaitForProbe, "{result:?}");
        }
    }

    #[test]
    fn any_answer_closes_it() {
        let start = Instant::now();
        let mut breaker = opened_breaker(start);
        breaker.record(CallKind::Normal, CallResult::Answered, start);
        assert_eq!(breaker.state(start), State::Closed);

        let mut breaker = opened_breaker(start);
        let later = start + OPEN_DURATION;
        assert_eq!(breaker.admit(later), Admission::Admitted(CallKind::Probe));
        breaker.record(CallKind::Normal, CallResult::Answered, later);
        assert_eq!(breaker.state(later), State::Closed);
        // The probe now counts as a normal call.
        breaker.record(CallKind::Probe, CallResult::Failed, later);
        assert_eq!(breaker.state(later), State::Closed);
    }

    #[test]
    fn after_an_abandoned_probe_the_next_call_probes() {
        let start = Instant::now();
        let mut breaker = opened_breaker(start);
        let later = start + OPEN_DURATION;
        for _ in 0..3 {
            assert_eq!(breaker.admit(later), Admission::Admitted(CallKind::Probe));
            breaker.record(CallKind::Probe, CallResult::Abandoned, later);
        }
    }
}
