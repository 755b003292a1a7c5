//! Capped exponential back-off with full jitter.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(10);

/// How long to wait after the try `number` (1, 2, 3…) failed: anything up to the cap of that try, so that many
/// waiting effects do not come back together.
pub fn after(number: u32, random: &mut fastrand::Rng) -> Duration {
    let cap = FIRST
        .saturating_mul(1 << number.saturating_sub(1).min(10))
        .min(LONGEST);
    cap.mul_f64(random.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_cap_and_uses_all_of_it() {
        let mut random = fastrand::Rng::with_seed(7);
        for (number, cap) in [(1, 50), (2, 100), (5, 800), (40, 10_000)] {
            let waits: Vec<_> = (0..500).map(|_| after(number, &mut random)).collect();
            let cap = Duration::from_millis(cap);
            assert!(waits.iter().all(|wait| *wait <= cap), "try {number}");
            assert!(waits.iter().any(|wait| *wait > cap / 2), "try {number}");
            assert!(waits.iter().any(|wait| *wait < cap / 2), "try {number}");
        }
    }
}
