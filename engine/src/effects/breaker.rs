//! A circuit breaker per target.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const OPENS_AFTER: u32 = 10;
/// How long it stays open before one effect may probe.
const OPEN_FOR: Duration = Duration::from_secs(1);

/// Counts a target's failures in a row. Open, it lets nothing through; then one probe decides.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
    probing: bool,
}

/// What a breaker says to an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Go ahead.
    Go,
    /// Come back after this long.
    Wait(Duration),
}

impl Breaker {
    /// Asks to pass.
    pub fn ask(&mut self, now: Instant) -> Pass {
        match self.open_until {
            None => Pass::Go,
            Some(until) if now < until => Pass::Wait(until - now),
            Some(_) if self.probing => Pass::Wait(OPEN_FOR),
            Some(_) => {
                self.probing = true;
                Pass::Go
            }
        }
    }

    /// A definite answer came.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The target failed.
    pub fn failed(&mut self, now: Instant) {
        self.probing = false;
        self.failures = self.failures.saturating_add(1);
        if self.failures >= OPENS_AFTER {
            self.open_until = Some(now + OPEN_FOR);
        }
    }

    /// The effect that passed ended without telling anything about the target.
    pub fn abandoned(&mut self) {
        self.probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_probes_once_and_closes() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        for _ in 0..OPENS_AFTER {
            assert_eq!(breaker.ask(start), Pass::Go);
            breaker.failed(start);
        }
        assert_eq!(breaker.ask(start), Pass::Wait(OPEN_FOR));
        let later = start + OPEN_FOR;
        assert_eq!(breaker.ask(later), Pass::Go);
        assert!(
            matches!(breaker.ask(later), Pass::Wait(_)),
            "one probe at a time"
        );
        breaker.failed(later);
        assert!(matches!(breaker.ask(later), Pass::Wait(_)));
        assert_eq!(breaker.ask(later + OPEN_FOR), Pass::Go);
        breaker.succeeded();
        assert_eq!(breaker.ask(later), Pass::Go);
    }
}
