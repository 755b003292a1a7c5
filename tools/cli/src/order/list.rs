//! `ordermesh order list`.

use std::num::NonZeroU32;

use anyhow::bail;
use contracts::orders::v1::OrderStatus;
use contracts::query::v1::ListOrdersRequest;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use platform_client::{Api, request};
use terminal::{Align, Table, money, print_json, print_line, status, timestamp};

use crate::BadInput;

/// Largest page of the API.
const PAGE_SIZE: u32 = 500;

/// Flags of `ordermesh order list`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Times are RFC 3339, or a date for its beginning in UTC.

Examples:
  ordermesh order list --status rejected --status cancelled --limit 20
  ordermesh order list --customer ada --from 2025-03-01 --before 2025-04-01
  ordermesh order list --from 2025-03-01T09:30:00+01:00 --json")]
pub struct Args {
    /// Only orders of this status; may be given several times
    #[arg(long = "status", value_name = "STATUS", value_parser = order_status)]
    statuses: Vec<OrderStatus>,
    /// Only orders of this customer
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    customer: String,
    /// Only orders placed at this time or later
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<Timestamp>,
    /// Only orders placed before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    before: Option<Timestamp>,
    /// Most orders to list
    #[arg(long, value_name = "COUNT", default_value = "50")]
    limit: NonZeroU32,
    /// Print one order a line as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: Api,
}

/// Lists orders, page by page.
///
/// # Errors
///
/// `--before` is not later than `--from`, or the API does not answer.
pub async fn list(args: &Args) -> anyhow::Result<()> {
    if let (Some(from), Some(before)) = (args.from, args.before)
        && from >= before
    {
        bail!(BadInput("--before must be later than --from".into()));
    }
    let mut clients = args.api.connect();
    let limit = args.limit.get();
    let mut orders = Vec::new();
    let mut page_token = String::new();
    loop {
        let left = limit - u32::try_from(orders.len()).unwrap_or(limit).min(limit);
        let page = request(ListOrdersRequest {
            statuses: args
                .statuses
                .iter()
                .map(|status| i32::from(*status))
                .collect(),
            customer_id: args.customer.clone(),
            page_size: left.min(PAGE_SIZE),
            page_token,
            placed_from: args.from.map(to_proto),
            placed_before: args.before.map(to_proto),
        });
        let page = clients
            .query
            .list_orders(page)
            .await
            .map_err(|status| clients.failed(&status))?;
        let page = page.into_inner();
        orders.extend(page.orders);
        page_token = page.next_page_token;
        if page_token.is_empty() || orders.len() >= limit as usize {
            break;
        }
    }
    if args.json {
        return orders.iter().try_for_each(print_json);
    }
    if orders.is_empty() {
        return print_line("no orders");
    }
    let mut table = Table::new([
        ("placed", Align::Left),
        ("order", Align::Left),
        ("customer", Align::Left),
        ("total", Align::Right),
        ("status", Align::Left),
    ]);
    for order in &orders {
        table.row([
            timestamp(order.placed_at.as_ref()),
            order.order_id.clone(),
            order.customer_id.clone(),
            money(order.total, &order.currency),
            status(order.status(), order.end_reason()),
        ]);
    }
    print_line(table.to_string())?;
    if page_token.is_empty() {
        Ok(())
    } else {
        print_line("  …")
    }
}

fn order_status(text: &str) -> Result<OrderStatus, String> {
    let name = format!(
        "ORDER_STATUS_{}",
        text.to_uppercase().replace(['-', ' '], "_")
    );
    OrderStatus::from_str_name(&name).filter(|status| *status != OrderStatus::Unspecified).ok_or_else(|| {
        "expected pending, awaiting-payment, confirmed, shipped, delivered, cancelling, cancelled or rejected"
            .to_owned()
    })
}

/// The format of a date.
const DATE: &str = "2025-03-01";

fn moment(text: &str) -> Result<Timestamp, String> {
    let time = text.parse().ok().or_else(|| {
        // The length is checked because a time without zone also parses as a date.
        let date: Date = text.parse().ok().filter(|_| text.len() == DATE.len())?;
        Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
    });
    time.ok_or_else(|| {
        format!("expected a time such as {DATE}T09:30:00Z, or a date such as {DATE}")
    })
}

fn to_proto(time: Timestamp) -> prost_types::Timestamp {
    // Before 1970, seconds are rounded down: the nanoseconds are never negative.
    let nanos = time.as_nanosecond();
    prost_types::Timestamp {
        seconds: i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or_default(),
        nanos: i32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_parsed_without_regard_to_case() {
        assert_eq!(
            order_status("awaiting-payment"),
            Ok(OrderStatus::AwaitingPayment)
        );
        assert_eq!(order_status("Delivered"), Ok(OrderStatus::Delivered));
        assert!(order_status("unspecified").is_err());
        assert!(order_status("lost").is_err());
    }

    #[test]
    fn a_time_needs_a_zone_and_a_date_is_its_beginning_in_utc() {
        let time = |text| moment(text).map(|time| to_proto(time).seconds);
        assert_eq!(time("1970-01-02T01:00:00+01:00"), Ok(86_400));
        assert_eq!(time("1970-01-02"), Ok(86_400));
        for text in ["yesterday", "1970-13-01", "1970-01-02T01:00:00", ""] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_before_1970_is_rounded_down() {
        let time = to_proto(moment("1969-12-31T23:59:59.75Z").unwrap());
        assert_eq!((time.seconds, time.nanos), (-1, 750_000_000));
    }
}
