//! What an answer of the API means for a basket.

use std::collections::BTreeMap;

use orders::reasons::STALE_UNKNOWN;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use platform_client::retry;

/// An answer that is not an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// These lines, by their index among those that were sent, break rules. Nothing was written: the same id may be
    /// used again.
    Lines(BTreeMap<usize, String>),
    /// The id is too old, and no order has it: only now may another be used.
    Stale,
    /// The basket will never be an order.
    Basket(String),
    /// Nothing is known: the same call under the same id may succeed later.
    Unanswered,
    /// No basket can be placed here.
    Api,
}

/// Reads an answer.
pub fn refusal(status: &Status) -> Refusal {
    match status.code() {
        Code::InvalidArgument => {
            let violations = status
                .get_details_bad_request()
                .map(|request| request.field_violations);
            let violations = violations.unwrap_or_default();
            let fields = violations
                .iter()
                .map(|violation| (violation.field.as_str(), violation.description.as_str()));
            lines(fields).map_or_else(|| Refusal::Basket(retry::describe(status)), Refusal::Lines)
        }
        Code::FailedPrecondition if retry::reason(status) == STALE_UNKNOWN => Refusal::Stale,
        Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied => Refusal::Api,
        _ if retry::may_pass(status) => Refusal::Unanswered,
        _ => Refusal::Basket(retry::describe(status)),
    }
}

/// The lines that are named and why; `None` when something else is named, or nothing.
fn lines<'a>(
    violations: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<BTreeMap<usize, String>> {
    let mut lines: BTreeMap<usize, String> = BTreeMap::new();
    for (field, description) in violations {
        let (index, field) = line_field(field)?;
        let reasons = lines.entry(index).or_default();
        if !reasons.is_empty() {
            reasons.push_str("; ");
        }
        reasons.push_str(field);
        reasons.push(' ');
        reasons.push_str(description);
    }
    (!lines.is_empty()).then_some(lines)
}

/// `lines[3].quantity` is line 3 and its quantity.
fn line_field(path: &str) -> Option<(usize, &str)> {
    let (index, field) = path.strip_prefix("lines[")?.split_once(']')?;
    Some((index.parse().ok()?, field.trim_start_matches('.')))
}

#[cfg(test)]
mod tests {
    use chassis::error;
    use contracts::orders::v1::PlaceOrderRequest;

    use super::*;
    use crate::baskets::{Basket, Line};

    #[test]
    fn the_violations_of_the_api_name_the_lines_of_a_basket() {
        let line = |sku: &str, quantity| Line {
            number: 0,
            sku: sku.into(),
            description: String::new(),
            quantity,
            amount_cents: 5,
        };
        let lines = vec![
            line("a", 1),
            line("b", 0),
            line("", 0),
            line("c", 2),
            line("a", 1),
        ];
        let basket = Basket {
            id: "1".into(),
            customer_id: "ada".into(),
            lines,
        };
        let request = PlaceOrderRequest {
            customer_id: basket.customer_id.clone(),
            contact: Some(basket.contact()),
            lines: basket.lines.iter().map(Line::order_line).collect(),
            currency: "USD".into(),
            ..Default::default()
        };
        // The very check that the API makes, and its answer.
        let status = error::validate(&request).expect_err("some lines are wrong");
        let Refusal::Lines(lines) = refusal(&status) else {
            panic!("lines were refused: {status:?}")
        };
        assert_eq!(lines.keys().copied().collect::<Vec<_>>(), [1, 2, 4]);
        assert!(lines[&1].starts_with("quantity "), "{lines:?}");
        assert!(
            lines[&2].contains("quantity ") && lines[&2].contains("; "),
            "{lines:?}"
        );
        assert!(lines[&4].starts_with("sku "), "{lines:?}");
    }

    #[test]
    fn a_fault_of_the_basket_is_not_one_of_its_lines() {
        let status = error::invalid_field("customer_id", "is too long");
        assert!(
            matches!(refusal(&status), Refusal::Basket(reason) if reason.contains("customer_id is too long"))
        );
        assert!(matches!(
            refusal(&error::invalid_field("lines", "are too many")),
            Refusal::Basket(_)
        ));
        assert!(matches!(
            refusal(&Status::invalid_argument("no")),
            Refusal::Basket(_)
        ));
        assert!(matches!(
            refusal(&error::already_exists("X", "no")),
            Refusal::Basket(_)
        ));
    }

    #[test]
    fn only_a_stale_and_unknown_id_is_given_up() {
        assert_eq!(
            refusal(&error::rejected(STALE_UNKNOWN, "too old")),
            Refusal::Stale
        );
        assert!(matches!(
            refusal(&error::rejected("TOO_LATE", "no")),
            Refusal::Basket(_)
        ));
        for status in [
            error::unavailable("orders", error::RETRY_AFTER),
            error::deadline(),
            error::exhausted(error::RETRY_AFTER),
            Status::unknown("connection reset"),
        ] {
            assert_eq!(refusal(&status), Refusal::Unanswered, "{status:?}");
        }
        assert_eq!(refusal(&Status::unimplemented("")), Refusal::Api);
    }
}
