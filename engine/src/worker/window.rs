//! How long a batch is gathered.

use std::time::Duration;

/// A transaction costs milliseconds whatever it holds, so the window follows the load: a quiet system commits at
/// once, a busy one collects and packs a thousand inputs or more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    length: Duration,
}

/// First length of a window that opens, and the step below which it closes again.
const SMALLEST: Duration = Duration::from_millis(5);
/// Longest window.
pub const LARGEST: Duration = Duration::from_millis(80);
/// A batch of at least this many inputs was worth waiting for more.
const BUSY: usize = 50;
/// A batch of fewer inputs was not worth its wait.
const QUIET: usize = 10;

impl Window {
    /// How long to gather after the first input.
    pub fn length(self) -> Duration {
        self.length
    }

    /// Learns from a batch.
    pub fn learn(&mut self, inputs: usize) {
        if inputs >= BUSY {
            self.length = (self.length * 2).clamp(SMALLEST, LARGEST);
        } else if inputs < QUIET {
            self.length /= 2;
            if self.length < SMALLEST {
                self.length = Duration::ZERO;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_load() {
        let mut window = Window::default();
        assert_eq!(window.length(), Duration::ZERO);
        for _ in 0..10 {
            window.learn(1_000);
        }
        assert_eq!(window.length(), LARGEST);
        window.learn(QUIET);
        assert_eq!(window.length(), LARGEST, "in between it stays");
        for _ in 0..10 {
            window.learn(1);
        }
        assert_eq!(window.length(), Duration::ZERO);
    }
}
