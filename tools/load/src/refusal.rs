//! Classifies the errors of the API for the loader.

use std::collections::BTreeMap;

use orders::reasons::STALE_UNKNOWN;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use platform_client::retry;

/// The meaning of an error for a basket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Lines that violate rules, with reasons, by index among the lines sent. Nothing was written: the order id may be
    /// used again.
    Lines(BTreeMap<usize, String>),
    /// The order id is too old, and no order has it: another id may be used.
    Stale,
    /// The basket will never be an order.
    Basket(String),
    /// The result is unknown: the same call under the same id may succeed later.
    Unanswered,
    /// The server places no orders for this client.
    Api,
}

/// Classifies an error.
pub fn classify(status: &Status) -> Refusal {
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
        _ if retry::is_retryable(status) => Refusal::Unanswered,
        _ => Refusal::Basket(retry::describe(status)),
    }
}

/// The lines that the violations name, with the reasons; `None` when a violation names something else, or there is
/// none.
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

/// `lines[3].quantity` gives line 3 and the field `quantity`.
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
    fn violations_of_the_api_are_assigned_to_lines() {
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
        // The API makes the same check and returns the same status.
        let status = error::validate(&request).expect_err("some lines are wrong");
        let Refusal::Lines(lines) = classify(&status) else {
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
    fn an_error_of_the_basket_is_not_assigned_to_a_line() {
        let status = error::invalid_field("customer_id", "is too long");
        assert!(
            matches!(classify(&status), Refusal::Basket(reason) if reason.contains("customer_id is too long"))
        );
        assert!(matches!(
            classify(&error::invalid_field("lines", "are too many")),
            Refusal::Basket(_)
        ));
        assert!(matches!(
            classify(&Status::invalid_argument("no")),
            Refusal::Basket(_)
        ));
        assert!(matches!(
            classify(&error::already_exists("X", "no")),
            Refusal::Basket(_)
        ));
    }

    #[test]
    fn only_a_stale_and_unknown_id_is_replaced() {
        assert_eq!(
            classify(&error::rejected(STALE_UNKNOWN, "too old")),
            Refusal::Stale
        );
        assert!(matches!(
            classify(&error::rejected("TOO_LATE", "no")),
            Refusal::Basket(_)
        ));
        for status in [
            error::unavailable("orders", error::RETRY_AFTER),
            error::deadline(),
            error::exhausted(error::RETRY_AFTER),
            Status::unknown("connection reset"),
        ] {
            assert_eq!(classify(&status), Refusal::Unanswered, "{status:?}");
        }
        assert_eq!(classify(&Status::unimplemented("")), Refusal::Api);
    }
}
