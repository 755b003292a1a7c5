//! Choices and references that are derived from hashes: they look random and are the same on every run.

use sha2::{Digest, Sha256};

/// Whether `subject` is among the `percent` that the seed selects.
pub(crate) fn is_selected(seed: u64, subject: &str, percent: u32) -> bool {
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

/// A partner's reference for its action under an idempotency key.
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
    fn a_seed_selects_about_the_percentage_and_is_deterministic() {
        let select = |seed| -> Vec<bool> {
            (0..10_000)
                .map(|n| is_selected(seed, &format!("customer-{n}"), 10))
                .collect()
        };
        let selected = select(1).into_iter().filter(|selected| *selected).count();
        assert!((900..1100).contains(&selected), "{selected} of 10000");
        assert_eq!(select(1), select(1));
        assert_ne!(select(1), select(2));
        assert!(!(0..1000).any(|seed| is_selected(seed, "ada", 0)));
        assert!((0..1000).all(|seed| is_selected(seed, "ada", 100)));
    }

    #[test]
    fn a_reference_depends_on_its_key_only() {
        assert_eq!(reference("ch_", "a"), reference("ch_", "a"));
        assert_ne!(reference("ch_", "a"), reference("ch_", "b"));
    }
}
