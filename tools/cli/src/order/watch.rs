//! `ordermesh order watch`.

use contracts::orders::v1::{EndReason, OrderEvent};
use contracts::query::v1::OrderView;
use contracts::rules::is_final;
use platform_client::Api;
use platform_client::order_watch::Watch;
use terminal::{print_json, print_line, status, time};
use uuid::Uuid;

use super::{event_text, order_id};

/// Flags of `ordermesh order watch`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Ends when the order is delivered, cancelled or rejected. After a lost connection the watch reconnects and continues
after the last event that it has shown.

Examples:
  ordermesh order watch 0191b2f0-5a4e-7cc3-9d1f-6f0f1f6f0a11
  ordermesh order watch 0191b2f0-5a4e-7cc3-9d1f-6f0f1f6f0a11 --after-version 4 --json")]
pub struct Args {
    /// The order's id
    #[arg(value_name = "ID", value_parser = order_id)]
    id: Uuid,
    /// Only events behind this version of the order
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after_version: u64,
    /// Print one event a line as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: Api,
}

/// Prints each event as it happens, until the order's end.
///
/// # Errors
///
/// There is no such order, or the API does not answer in time.
pub async fn watch(args: &Args) -> anyhow::Result<()> {
    let mut watch = Watch::new(args.api.connect(), args.id, args.after_version);
    while let Some(change) = watch.next().await? {
        let order = change.order.unwrap_or_default();
        for event in change.events {
            if args.json {
                print_json(&event)?;
            } else {
                print_line(line(&order, event))?;
            }
        }
    }
    Ok(())
}

/// Time, version and text of an event; after the last event the status that it led to.
fn line(order: &OrderView, event: OrderEvent) -> String {
    let metadata = event.metadata.unwrap_or_default();
    let text = event.event.map_or_else(
        || "something that a newer program has written".to_owned(),
        |event| event_text::of_order(&event, &order.currency),
    );
    let version = format!("v{}", metadata.aggregate_version);
    let mut line = format!("{}  {version:<4} {text}", time(metadata.time_ms));
    if metadata.aggregate_version == order.version && !is_final(order.status()) {
        let state = status(order.status(), EndReason::Unspecified);
        line.push_str(&format!("  [{state}]"));
    }
    line
}

#[cfg(test)]
mod tests {
    use contracts::core::v1::Metadata;
    use contracts::orders::v1::{OrderCancelled, OrderLineReserved, OrderStatus, order_event};

    use super::*;

    fn event(version: u64, event: order_event::Event) -> OrderEvent {
        OrderEvent {
            metadata: Some(Metadata {
                aggregate_version: version,
                time_ms: 1_700_000_000_123,
                ..Default::default()
            }),
            event: Some(event),
        }
    }

    #[test]
    fn the_last_event_names_the_status_that_it_led_to() {
        let order = |status: OrderStatus| OrderView {
            version: 3,
            status: status.into(),
            ..Default::default()
        };
        let reserved = |version| {
            let line = OrderLineReserved { sku: "mug".into() };
            event(version, order_event::Event::OrderLineReserved(line))
        };
        let pending = order(OrderStatus::Pending);
        assert_eq!(
            line(&pending, reserved(2)),
            "2023-11-14 22:13:20.123  v2   mug is reserved"
        );
        assert!(line(&pending, reserved(3)).ends_with("mug is reserved  [pending]"));
        let cancelled = event(3, order_event::Event::OrderCancelled(OrderCancelled {}));
        assert!(line(&order(OrderStatus::Cancelled), cancelled).ends_with("v3   cancelled"));
    }
}
