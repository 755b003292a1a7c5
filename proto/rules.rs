//! Cross-field rules, and checked arithmetic of money. Rules of single fields are in the proto files.

use std::collections::HashSet;

use prost_protovalidate::{Validate, Violation};
use uuid::{Builder, Uuid, Version};

use crate::orders::v1::{OrderLine, OrderStatus, PlaceOrder, PlaceOrderRequest};

/// All violations of a message: of the rules in its proto file and of its cross-field rules.
pub fn violations<M: Validate + CrossField>(message: &M) -> Vec<Violation> {
    let mut violations = field_violations(message);
    message.cross_field(&mut violations);
    violations
}

/// The violations of the rules in the proto file of a message.
pub fn field_violations<M: Validate>(message: &M) -> Vec<Violation> {
    match message.validate() {
        Ok(()) => Vec::new(),
        Err(error) => error.into_violations(),
    }
}

/// Rules that span several fields of a message; most messages have none.
pub trait CrossField {
    /// Appends the violations.
    fn cross_field(&self, _violations: &mut Vec<Violation>) {}
}

impl CrossField for PlaceOrderRequest {
    fn cross_field(&self, violations: &mut Vec<Violation>) {
        text("customer_id", &self.customer_id, violations);
        lines(&self.lines, violations);
        currency(&self.currency, violations);
    }
}

impl CrossField for PlaceOrder {
    fn cross_field(&self, violations: &mut Vec<Violation>) {
        text("customer_id", &self.customer_id, violations);
        lines(&self.lines, violations);
        currency(&self.currency, violations);
    }
}

impl CrossField for crate::inventory::v1::AdjustStockRequest {
    fn cross_field(&self, violations: &mut Vec<Violation>) {
        // An empty SKU violates the rule of the field.
        if !self.sku.is_empty() && !is_sku(&self.sku) {
            violations.push(bad_sku("sku"));
        }
    }
}

impl CrossField for crate::orders::v1::CancelOrderRequest {}
impl CrossField for crate::query::v1::GetOrderRequest {}
impl CrossField for crate::query::v1::WatchOrderRequest {}

impl CrossField for crate::query::v1::ListOrdersRequest {
    fn cross_field(&self, violations: &mut Vec<Violation>) {
        for (field, time) in [
            ("placed_from", &self.placed_from),
            ("placed_before", &self.placed_before),
        ] {
            if time.as_ref().is_some_and(|time| !is_timestamp(time)) {
                violations.push(Violation::new(
                    field,
                    "timestamp.range",
                    "must be a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z",
                ));
            }
        }
        if let (Some(from), Some(before)) = (&self.placed_from, &self.placed_before)
            && (before.seconds, before.nanos) < (from.seconds, from.nanos)
        {
            violations.push(Violation::new(
                "placed_before",
                "orders.period",
                "must not lie before placed_from",
            ));
        }
    }
}

impl CrossField for crate::sandbox::v1::SetBehaviourRequest {
    fn cross_field(&self, violations: &mut Vec<Violation>) {
        let behaviour = self.behaviour.unwrap_or_default();
        for (partner, faults) in [
            ("provider", behaviour.provider),
            ("carrier", behaviour.carrier),
        ] {
            let faults = faults.unwrap_or_default();
            if (faults.slow_percent == 0) != (faults.slow_ms == 0) {
                violations.push(Violation::new(
                    format!("behaviour.{partner}.slow_ms"),
                    "faults.slow",
                    "must be 1 or more exactly when slow_percent is",
                ));
            }
        }
    }
}

/// Whether a time is within the range of google.protobuf.Timestamp, which JSON can represent.
fn is_timestamp(time: &prost_types::Timestamp) -> bool {
    const FIRST_SECOND: i64 = -62_135_596_800;
    const LAST_SECOND: i64 = 253_402_300_799;
    (FIRST_SECOND..=LAST_SECOND).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos)
}
impl CrossField for crate::query::v1::GetOrderHistoryRequest {}
impl CrossField for crate::query::v1::GetStockRequest {}

/// The total of an order's lines in minor units: Σ quantity × unit price − discount.
///
/// `None` when a line's discount exceeds its price, or when the sum does not fit.
pub fn order_total(lines: &[OrderLine]) -> Option<i64> {
    lines
        .iter()
        .try_fold(0_i64, |total, line| total.checked_add(line_total(line)?))
}

/// The total of one line in minor units; `None` when it is negative or does not fit.
pub fn line_total(line: &OrderLine) -> Option<i64> {
    i64::from(line.quantity)
        .checked_mul(line.unit_price)?
        .checked_sub(line.discount)
        .filter(|total| *total >= 0)
}

/// The statuses in which an order ends.
pub const FINAL_ORDER_STATUSES: [OrderStatus; 3] = [
    OrderStatus::Delivered,
    OrderStatus::Cancelled,
    OrderStatus::Rejected,
];

/// Whether an order in this status has ended.
pub fn is_final(status: OrderStatus) -> bool {
    FINAL_ORDER_STATUSES.contains(&status)
}

/// A UUIDv7 of this time (Unix milliseconds); `random` distinguishes ids of the same time.
///
/// [`Uuid::now_v7`] makes one of the current time. This one is for clocks other than that of the machine.
pub fn uuid_v7_at(time_ms: u64, random: &[u8; 10]) -> Uuid {
    Builder::from_unix_timestamp_millis(time_ms, random).into_uuid()
}

/// Parses a UUIDv7 in any form of a UUID; `None` for any other text.
pub fn uuid_v7(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    (id.get_version() == Some(Version::SortRand)).then_some(id)
}

/// Parses a UUID in its canonical form, in lower case with hyphens; `None` for any other text. The id of an aggregate
/// has only this form: two forms of one id would be two record keys, possibly on two partitions.
pub fn canonical_uuid(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    (id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text).then_some(id)
}

/// The timestamp of a UUIDv7, in Unix milliseconds; `None` for any other text.
pub fn uuid_v7_time_ms(text: &str) -> Option<i64> {
    let (seconds, nanos) = uuid_v7(text)?.get_timestamp()?.to_unix();
    i64::try_from(seconds)
        .ok()?
        .checked_mul(1000)?
        .checked_add(i64::from(nanos / 1_000_000))
}

/// The longest reason of a partner's refusal that the field rules allow, characters.
const REASON_MAX_LEN: usize = 256;

/// The reason of a partner's refusal, shortened to what the field rules allow.
pub fn shorten_reason(reason: &str) -> String {
    reason.chars().take(REASON_MAX_LEN).collect()
}

/// Whether `text` is a valid SKU: 1 to 64 bytes, because it is a record key, without control characters.
pub fn is_sku(text: &str) -> bool {
    (1..=64).contains(&text.len()) && !text.contains(char::is_control)
}

fn bad_sku(field: impl Into<String>) -> Violation {
    Violation::new(
        field,
        "sku.key",
        "must have 1 to 64 bytes and no control characters",
    )
}

fn lines(lines: &[OrderLine], violations: &mut Vec<Violation>) {
    let mut skus = HashSet::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        if !line.sku.is_empty() && !is_sku(&line.sku) {
            violations.push(bad_sku(format!("lines[{index}].sku")));
        }
        if !skus.insert(line.sku.as_str()) {
            violations.push(Violation::new(
                format!("lines[{index}].sku"),
                "order.unique_sku",
                "is already in an earlier line",
            ));
        }
        text(
            &format!("lines[{index}].description"),
            &line.description,
            violations,
        );
        if line_total(line).is_none() {
            violations.push(Violation::new(
                format!("lines[{index}].discount"),
                "order.discount",
                "must not exceed quantity × unit price",
            ));
        }
    }
    if violations.is_empty() && order_total(lines).is_none() {
        violations.push(Violation::new(
            "lines",
            "order.total",
            "the total is too large",
        ));
    }
}

/// Checks that text has no control characters, which read models and terminals do not handle.
fn text(field: &str, value: &str, violations: &mut Vec<Violation>) {
    if value.chars().any(char::is_control) {
        violations.push(Violation::new(
            field,
            "order.text",
            "must not contain control characters",
        ));
    }
}

fn currency(code: &str, violations: &mut Vec<Violation>) {
    if iso_currency::Currency::from_code(code).is_none()
        && !violations
            .iter()
            .any(|violation| violation.field_path() == "currency")
    {
        violations.push(Violation::new(
            "currency",
            "order.currency",
            "is not an ISO 4217 code",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sku: &str, quantity: u32, unit_price: i64, discount: i64) -> OrderLine {
        OrderLine {
            sku: sku.into(),
            quantity,
            unit_price,
            discount,
            description: String::new(),
        }
    }

    #[test]
    fn a_total_is_exact_or_none() {
        assert_eq!(
            order_total(&[line("a", 3, 34, 2), line("b", 1, 0, 0)]),
            Some(100)
        );
        assert_eq!(order_total(&[line("a", 1, 1, 2)]), None);
        assert_eq!(order_total(&[line("a", 2, i64::MAX, 0)]), None);
        assert_eq!(
            order_total(&[line("a", 1, i64::MAX, 0), line("b", 1, 1, 0)]),
            None
        );
    }

    #[test]
    fn every_violation_is_reported() {
        let request = PlaceOrderRequest {
            lines: vec![line("a", 0, 1, 0), line("a", 1, -1, 0)],
            currency: "ZZZ".into(),
            ..Default::default()
        };
        let found: Vec<_> = violations(&request)
            .iter()
            .map(|v| v.field_path())
            .collect();
        for field in [
            "customer_id",
            "contact",
            "lines[0].quantity",
            "lines[1].unit_price",
            "lines[1].sku",
            "currency",
        ] {
            assert!(
                found.iter().any(|path| path == field),
                "{field} is missing in {found:?}"
            );
        }
    }

    #[test]
    fn a_period_does_not_end_before_it_begins() {
        let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        for (from, before, expected) in [
            (None, None, None),
            (time(5, 0), None, None),
            (time(5, 0), time(5, 0), None),
            (time(5, 0), time(5, 1), None),
            (time(5, 1), time(5, 0), Some("placed_before")),
            (time(6, 0), time(5, 9), Some("placed_before")),
            (time(i64::MAX, 0), None, Some("placed_from")),
            (None, time(0, -1), Some("placed_before")),
        ] {
            let request = crate::query::v1::ListOrdersRequest {
                placed_from: from,
                placed_before: before,
                ..Default::default()
            };
            let found: Vec<_> = violations(&request)
                .iter()
                .map(|violation| violation.field_path())
                .collect();
            assert_eq!(
                found,
                Vec::from_iter(expected),
                "{:?} {:?}",
                request.placed_from,
                request.placed_before
            );
        }
    }

    #[test]
    fn a_sku_is_a_valid_record_key() {
        for sku in ["a", "85123A", "M & S", "für", &"x".repeat(64)] {
            assert!(is_sku(sku), "{sku:?}");
        }
        for sku in ["", "a\nb", "\u{7f}", &"x".repeat(65), &"ü".repeat(33)] {
            assert!(!is_sku(sku), "{sku:?}");
        }
        let request = PlaceOrderRequest {
            lines: vec![line("a\tb", 1, 1, 0)],
            ..Default::default()
        };
        assert!(
            violations(&request)
                .iter()
                .any(|v| v.rule_id() == "sku.key")
        );
    }

    #[test]
    fn only_a_uuid_v7_has_a_time() {
        let id = uuid_v7_at(1_700_000_000_123, &[7; 10]);
        for text in [
            id.to_string(),
            id.to_string().to_uppercase(),
            id.simple().to_string(),
        ] {
            assert_eq!(uuid_v7(&text), Some(id), "{text}");
            assert_eq!(uuid_v7_time_ms(&text), Some(1_700_000_000_123), "{text}");
        }
        for text in ["6ba7b810-9dad-11d1-80b4-00c04fd430c8", "orders", ""] {
            assert_eq!(uuid_v7(text), None, "{text}");
            assert_eq!(uuid_v7_time_ms(text), None, "{text}");
        }
    }

    #[test]
    fn a_uuid_has_one_canonical_form() {
        for text in [
            "0190d9a2-7d3a-7c1e-8b1a-0123456789ab",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        ] {
            let id: Uuid = text.parse().expect("a UUID");
            assert_eq!(canonical_uuid(text), Some(id));
            for other in [
                text.to_uppercase(),
                id.simple().to_string(),
                id.braced().to_string(),
                id.urn().to_string(),
                format!(" {text}"),
            ] {
                assert_eq!(canonical_uuid(&other), None, "{other}");
            }
        }
    }

    #[test]
    fn a_shortened_reason_satisfies_the_field_rules() {
        let is_valid = |reason: &str| {
            let reason = reason.to_owned();
            let refused = crate::shipping::v1::RecordBookingRefused { reason };
            field_violations(&refused).is_empty()
        };
        let long = "ü".repeat(REASON_MAX_LEN + 1);
        assert!(!is_valid(&long));
        assert!(is_valid(&shorten_reason(&long)));
        assert_eq!(shorten_reason("no stock"), "no stock");
    }
}
