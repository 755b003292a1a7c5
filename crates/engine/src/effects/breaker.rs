//! A circuit breaker per target.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open it.
const OPENS_AFTER: u32 = 10;
/// How long it stays open before one effect may probe.
const OPEN_FOR: Duration = Duration::from_secs(1);

/// Counts a target's failures in a row. Open, it lets nothing through; then one probe decides.
///
/// Once it is open, failures of what was asked before tell nothing new. An answer does, also to something that was asked
/// before: the target is there, and only its failures were faster.
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

/// What a breaker says to an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go ahead, and say how it ended.
    Go(Pass),
    /// Come back after this long.
    Wait(Duration),
    /// Come back when the probe has ended.
    WaitForProbe,
}

/// How an effect came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// With all others.
    Closed,
    /// Alone, to try the target out.
    Probe,
}

/// How the try of an effect that passed has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The target has answered.
    Answered,
    /// The target has failed.
    Failed,
    /// It was given up without telling anything about the target.
    Abandoned,
}

/// What a breaker lets through; the numbers are those of the metric.
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
    /// Asks to pass.
    pub fn ask(&mut self, now: Instant) -> Answer {
        match self.phase {
            Phase::Closed { .. } => Answer::Go(Pass::Closed),
            Phase::Open { until } if now < until => Answer::Wait(until - now),
            Phase::Open { .. } => {
                self.phase = Phase::Probing;
                Answer::Go(Pass::Probe)
            }
            Phase::Probing => Answer::WaitForProbe,
        }
    }

    /// The try of an effect that passed has ended.
    pub fn ended(&mut self, pass: Pass, how: Ended, now: Instant) {
        match (&mut self.phase, pass, how) {
            (_, _, Ended::Answered) => *self = Self::default(),
            (Phase::Closed { failures }, _, Ended::Failed) => {
                *failures += 1;
                if *failures >= OPENS_AFTER {
                    self.phase = Phase::Open {
                        until: now + OPEN_FOR,
                    };
                }
            }
            (Phase::Probing, Pass::Probe, Ended::Failed) => {
                self.phase = Phase::Open {
                    until: now + OPEN_FOR,
                };
            }
            // The next one may probe at once.
            (Phase::Probing, Pass::Probe, Ended::Abandoned) => {
                self.phase = Phase::Open { until: now };
            }
            _ => {}
        }
    }

    /// What it lets through now.
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
    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..OPENS_AFTER {
            assert_eq!(breaker.state(now), State::Closed);
            assert_eq!(breaker.ask(now), Answer::Go(Pass::Closed));
            breaker.ended(Pass::Closed, Ended::Failed, now);
        }
        breaker
    }

    #[test]
    fn opens_probes_once_and_closes() {
        let start = Instant::now();
        let mut breaker = open(start);
        assert_eq!(breaker.state(start), State::Open);
        assert_eq!(breaker.ask(start), Answer::Wait(OPEN_FOR));

        let later = start + OPEN_FOR;
        assert_eq!(breaker.state(later), State::HalfOpen);
        assert_eq!(breaker.ask(later), Answer::Go(Pass::Probe));
        assert_eq!(breaker.ask(later), Answer::WaitForProbe);
        assert_eq!(breaker.state(later), State::HalfOpen);
        breaker.ended(Pass::Probe, Ended::Failed, later);
        assert_eq!(breaker.ask(later), Answer::Wait(OPEN_FOR));

        let later = later + OPEN_FOR;
        assert_eq!(breaker.ask(later), Answer::Go(Pass::Probe));
        breaker.ended(Pass::Probe, Ended::Answered, later);
        assert_eq!(breaker.state(later), State::Closed);
        assert_eq!(breaker.ask(later), Answer::Go(Pass::Closed));
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for number in 1..OPENS_AFTER * 3 {
            let is_answer = number % OPENS_AFTER == 0;
            let how = if is_answer {
                Ended::Answered
            } else {
                Ended::Failed
            };
            breaker.ended(Pass::Closed, how, now);
            breaker.ended(Pass::Closed, Ended::Abandoned, now);
        }
        assert_eq!(breaker.state(now), State::Closed);
    }

    #[test]
    fn failures_of_what_was_asked_before_it_opened_tell_nothing_new() {
        let start = Instant::now();
        let mut breaker = open(start);
        let later = start + OPEN_FOR;
        for how in [Ended::Failed, Ended::Abandoned] {
            breaker.ended(Pass::Closed, how, later);
            assert_eq!(breaker.ask(start), Answer::Wait(OPEN_FOR), "{how:?}");
        }
        assert_eq!(breaker.ask(later), Answer::Go(Pass::Probe));
        for how in [Ended::Failed, Ended::Abandoned] {
            breaker.ended(Pass::Closed, how, later);
            assert_eq!(breaker.ask(later), Answer::WaitForProbe, "{how:?}");
        }
    }

    #[test]
    fn any_answer_closes_it() {
        let start = Instant::now();
        let mut breaker = open(start);
        breaker.ended(Pass::Closed, Ended::Answered, start);
        assert_eq!(breaker.state(start), State::Closed);

        let mut breaker = open(start);
        let later = start + OPEN_FOR;
        assert_eq!(breaker.ask(later), Answer::Go(Pass::Probe));
        breaker.ended(Pass::Closed, Ended::Answered, later);
        assert_eq!(breaker.state(later), State::Closed);
        // The probe is now one among all others.
        breaker.ended(Pass::Probe, Ended::Failed, later);
        assert_eq!(breaker.state(later), State::Closed);
    }

    #[test]
    fn an_abandoned_probe_leaves_its_place_to_the_next() {
        let start = Instant::now();
        let mut breaker = open(start);
        let later = start + OPEN_FOR;
        for _ in 0..3 {
            assert_eq!(breaker.ask(later), Answer::Go(Pass::Probe));
            breaker.ended(Pass::Probe, Ended::Abandoned, later);
        }
    }
}
