//! Choices and names that look random and are the same on every run.

use sha2::{Digest, Sha256};

/// Whether `subject` is among the `percent` that the seed picks.
pub(crate) fn picks(seed: u64, subject: &str, percent: u32) -> bool {
    let digest = Sha256::new()
        .chain_update(seed.to_be_bytes())
        .chain_update(subject)
        .finalize();
    let number = digest
        .iter()
        .take(8)
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    number % 100 < u64::from(percent)
}

/// A partner's own name for what it did under an idempotency key.
pub(crate) fn reference(prefix: &str, key: &str) -> String {
    let digest = Sha256::digest(key);
    let digits: String = digest
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{prefix}{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_picks_about_the_percentage_and_always_the_same() {
        let pick = |seed| -> Vec<bool> {
            (0..10_000)
                .map(|n| picks(seed, &format!("customer-{n}"), 10))
                .collect()
        };
        let picked = pick(1).into_iter().filter(|picked| *picked).count();
        assert!((900..1100).contains(&picked), "{picked} of 10000");
        assert_eq!(pick(1), pick(1));
        assert_ne!(pick(1), pick(2));
        assert!(!(0..1000).any(|seed| picks(seed, "ada", 0)));
        assert!((0..1000).all(|seed| picks(seed, "ada", 100)));
    }

    #[test]
    fn a_reference_is_told_by_its_key() {
        assert_eq!(reference("ch_", "a"), reference("ch_", "a"));
        assert_ne!(reference("ch_", "a"), reference("ch_", "b"));
    }
}
