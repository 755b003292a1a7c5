//! Constructors of [`Indeterminate`] with uniform texts.

use std::fmt::Display;

use super::Indeterminate;

impl Indeterminate {
    /// The partner is still processing the key.
    pub fn in_progress(partner: &str) -> Self {
        Self {
            reason: format!("the {partner} is still processing the key"),
            partner_fault: false,
        }
    }

    /// The partner's response has no result for the key.
    pub fn no_result(partner: &str) -> Self {
        Self {
            reason: format!("the {partner}'s response has no result for the key"),
            partner_fault: true,
        }
    }

    /// The call failed. It counts as a fault of the partner, unless the error blames this one request.
    pub fn failed(partner: &str, error: impl Display, blames_request: bool) -> Self {
        Self {
            reason: format!("the {partner} failed: {error}"),
            partner_fault: !blames_request,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partner_has_a_fault_unless_it_is_busy_or_the_request_is_wrong() {
        for (answer, reason, partner_fault) in [
            (
                Indeterminate::in_progress("carrier"),
                "the carrier is still processing the key",
                false,
            ),
            (
                Indeterminate::no_result("carrier"),
                "the carrier's response has no result for the key",
                true,
            ),
            (
                Indeterminate::failed("carrier", "down", false),
                "the carrier failed: down",
                true,
            ),
            (
                Indeterminate::failed("carrier", "no such key", true),
                "the carrier failed: no such key",
                false,
            ),
        ] {
            assert_eq!(answer.reason, reason);
            assert_eq!(answer.partner_fault, partner_fault, "{answer}");
        }
    }
}
