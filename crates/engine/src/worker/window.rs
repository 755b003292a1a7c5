//! How long the worker gathers a batch.

use std::time::Duration;

/// A transaction costs milliseconds regardless of its size, and costs the broker more than the worker. So the window
/// follows the load: an idle worker commits at once; one that spends much of its time in transactions gathers longer
/// and puts more into each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    length: Duration,
    /// Share of the recent time that went into transactions, 0 to 1.
    busy: f64,
}

/// First length of a window that opens, and the one below which it closes again.
const MIN_LENGTH: Duration = Duration::from_millis(4);
/// Longest window.
pub const MAX_LENGTH: Duration = Duration::from_millis(80);
/// Above this share of time in transactions, the window grows.
const BUSY: f64 = 0.4;
/// Below this share, the window shrinks.
const QUIET: f64 = 0.15;
/// Weight of the newest transaction in the share.
const WEIGHT: f64 = 0.2;

impl Window {
    /// How long to gather after the first input.
    pub fn length(self) -> Duration {
        self.length
    }

    /// Adapts the window after a transaction: `work` of `elapsed`, the time since the previous one ended, was spent in
    /// it.
    pub fn adapt(&mut self, work: Duration, elapsed: Duration) {
        if elapsed.is_zero() {
            return;
        }
        let share = (work.as_secs_f64() / elapsed.as_secs_f64()).min(1.0);
        self.busy += WEIGHT * (share - self.busy);
        if self.busy > BUSY {
            self.length = self.length.mul_f64(1.5).clamp(MIN_LENGTH, MAX_LENGTH);
        } else if self.busy < QUIET {
            self.length = self.length.mul_f64(0.67);
            if self.length < MIN_LENGTH {
                self.length = Duration::ZERO;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Duration = Duration::from_millis(10);

    #[test]
    fn opens_under_load_and_closes_again() {
        let mut window = Window::default();
        for _ in 0..50 {
            window.adapt(WORK, WORK);
        }
        assert_eq!(window.length(), MAX_LENGTH, "back to back");
        for _ in 0..50 {
            window.adapt(WORK, WORK * 20);
        }
        assert_eq!(window.length(), Duration::ZERO, "mostly idle");
    }

    #[test]
    fn settles_where_transactions_take_a_fair_share() {
        let mut window = Window::default();
        for _ in 0..200 {
            let elapsed = WORK + window.length();
            window.adapt(WORK, elapsed);
        }
        let settled = window.length();
        assert!(settled > WORK && settled < MAX_LENGTH, "{settled:?}");
    }

    #[test]
    fn a_single_order_now_and_then_never_waits() {
        let mut window = Window::default();
        for _ in 0..50 {
            window.adapt(WORK, Duration::from_millis(30));
        }
        assert_eq!(window.length(), Duration::ZERO);
    }
}
