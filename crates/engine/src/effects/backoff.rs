//! Capped exponential back-off with full jitter.

use std::time::Duration;

const INITIAL_CAP: Duration = Duration::from_millis(50);
const MAX_CAP: Duration = Duration::from_secs(10);

/// Delay after failed try `number` (1, 2, 3…): uniform up to the cap of that try, so that many waiting effects do not
/// retry together.
pub fn delay(number: u32, random: &mut fastrand::Rng) -> Duration {
    let cap = INITIAL_CAP
        .saturating_mul(1 << number.saturating_sub(1).min(10))
        .min(MAX_CAP);
    cap.mul_f64(random.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_to_its_cap_and_is_spread_over_the_whole_range() {
        let mut random = fastrand::Rng::with_seed(7);
        for (number, cap) in [(1, 50), (2, 100), (5, 800), (40, 10_000)] {
            let delays: Vec<_> = (0..500).map(|_| delay(number, &mut random)).collect();
            let cap = Duration::from_millis(cap);
            assert!(delays.iter().all(|delay| *delay <= cap), "try {number}");
            assert!(delays.iter().any(|delay| *delay > cap / 2), "try {number}");
            assert!(delays.iter().any(|delay| *delay < cap / 2), "try {number}");
        }
    }
}
