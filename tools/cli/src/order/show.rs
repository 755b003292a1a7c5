//! `ordermesh order get`.

use contracts::Body as _;
use contracts::orders::v1::OrderEvent;
use contracts::query::v1::{GetOrderHistoryRequest, GetOrderRequest, OrderView};
use contracts::rules::line_total;
use platform_client::{Api, request};
use prost_types::Timestamp;
use terminal::{
    Align, Table, amount, count, money, print_json, print_line, status, time, timestamp,
};
use uuid::Uuid;

use super::order_id;

/// Flags of `ordermesh order get`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Example:
  ordermesh order get 0191b2f0-5a4e-7cc3-9d1f-6f0f1f6f0a11 --min-version 1")]
pub struct Args {
    /// The order's id
    #[arg(value_name = "ID", value_parser = order_id)]
    id: Uuid,
    /// Wait until the read model has at least this version of the order
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    min_version: u64,
    /// Print the order as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: Api,
}

/// Shows an order, its lines and its events.
///
/// # Errors
///
/// There is no such order, or the API does not answer.
pub async fn get(args: &Args) -> anyhow::Result<()> {
    let mut clients = args.api.connect();
    let order_id = args.id.to_string();
    let read = GetOrderRequest {
        order_id: order_id.clone(),
        min_version: args.min_version,
        min_position: None,
    };
    let found = clients
        .query
        .get_order(request(read))
        .await
        .map_err(|status| clients.failed(&status))?;
    let order = found.into_inner().order.unwrap_or_default();
    if args.json {
        return print_json(&order);
    }
    let read = GetOrderHistoryRequest { order_id };
    let found = clients
        .query
        .get_order_history(request(read))
        .await
        .map_err(|status| clients.failed(&status))?;
    print_line(header(&order))?;
    print_line(format!("\n{}", lines(&order)))?;
    print_line(format!("\n{}", timeline(found.into_inner().events)))
}

fn header(order: &OrderView) -> String {
    let mut table = Table::new([("", Align::Left), ("", Align::Left)]);
    let mut row = |name: &str, value: String| table.row([name.into(), value]);
    row("order", order.order_id.clone());
    row("status", status(order.status(), order.end_reason()));
    row("customer", order.customer_id.clone());
    row("total", money(order.total, &order.currency));
    if order.refunded > 0 {
        row("refunded", money(order.refunded, &order.currency));
    }
    row("placed", timestamp(order.placed_at.as_ref()));
    if order.confirmed_at.is_some() {
        row(
            "confirmed",
            timestamp(order.confirmed_at.as_ref()) + &since(order, order.confirmed_at.as_ref()),
        );
    }
    row(
        "updated",
        timestamp(order.updated_at.as_ref()) + &since(order, order.updated_at.as_ref()),
    );
    if !order.tracking_number.is_empty() {
        row("tracking", order.tracking_number.clone());
    }
    if order.late {
        row("late", "not delivered by its deadline".into());
    }
    table.to_string()
}

fn since(order: &OrderView, at: Option<&Timestamp>) -> String {
    let ms = |time: &Timestamp| time.seconds * 1000 + i64::from(time.nanos) / 1_000_000;
    match (order.placed_at.as_ref(), at) {
        (Some(placed), Some(at)) => format!("  (after {} ms)", count(ms(at) - ms(placed))),
        _ => String::new(),
    }
}

fn lines(order: &OrderView) -> Table {
    let mut table = Table::new([
        ("sku", Align::Left),
        ("description", Align::Left),
        ("pieces", Align::Right),
        ("unit price", Align::Right),
        ("discount", Align::Right),
        ("total", Align::Right),
    ]);
    let price = |minor_units| amount(minor_units, &order.currency);
    for line in &order.lines {
        table.row([
            line.sku.clone(),
            line.description.clone(),
            count(line.quantity),
            price(line.unit_price),
            price(line.discount),
            price(line_total(line).unwrap_or_default()),
        ]);
    }
    table
}

fn timeline(events: Vec<OrderEvent>) -> Table {
    let mut table = Table::new([
        ("version", Align::Right),
        ("time", Align::Left),
        ("event", Align::Left),
    ]);
    for event in events {
        let metadata = event.metadata.unwrap_or_default();
        let kind = event.event.map_or("unknown", |event| event.kind());
        table.row([
            metadata.aggregate_version.to_string(),
            time(metadata.time_ms),
            kind.to_owned(),
        ]);
    }
    table
}
