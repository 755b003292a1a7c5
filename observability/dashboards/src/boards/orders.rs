//! Orders: throughput, progress, latency, value.

use crate::panel::Unit;
use crate::query::{rate, rise, total_rate};
use crate::{Dashboard, Panel};

const MONEY: &str = "ordermesh_query_order_value_minor_total";

pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        "orders",
        "Orders",
        "What customers get: how many orders there are, how far they come, how long it takes, and their money.",
    )
    .row("Now", now())
    .row("Throughput and endings", throughput())
    .row("Money", money())
    .row("Latency", latency())
    .row("Under way", under_way())
}

fn reached(status: &str) -> String {
    format!("ordermesh_query_orders_total{{status=~\"{status}\"}}")
}

fn now() -> Vec<Panel> {
    vec![
        Panel::number(
            "Placed per second",
            "How many orders come in?",
            Unit::PerSecond,
        )
        .query(total_rate(&reached("created")), "placed"),
        Panel::number(
            "Delivered share",
            "Of the orders that ended in the time shown, how many arrived?",
            Unit::Ratio,
        )
        .query(
            format!(
                "{} / {}",
                rise(&reached("delivered")),
                rise(&reached("delivered|cancelled|rejected"))
            ),
            "delivered",
        )
        .alarm_below(0.5),
        Panel::number(
            "Confirmed within (p95)",
            "How long does a customer wait for the confirmation?",
            Unit::Seconds,
        )
        .quantiles(
            &[0.95],
            "ordermesh_query_order_seconds",
            "{until=\"confirmed\"}",
            "",
        )
        .warn_at(2.0)
        .alarm_at(10.0),
        Panel::number(
            "Open orders",
            "How many orders have neither arrived nor ended otherwise?",
            Unit::Count,
        )
        // Every replica of the read side reports the same rows.
        .query("sum(max by (status) (ordermesh_query_open_orders))", "open"),
        Panel::number("Oldest open order", "Is an order stuck?", Unit::Seconds)
            .query("max(ordermesh_query_oldest_open_order_seconds)", "oldest")
            .warn_at(300.0)
            .alarm_at(3_600.0),
        Panel::number(
            "Refused calls",
            "How many calls about orders fail at the public port, per second?",
            Unit::PerSecond,
        )
        .query_or_zero(
            total_rate("ordermesh_rpc_calls_total{server=\"gateway\",code!=\"OK\"}"),
            "not OK",
        ),
    ]
}

fn throughput() -> Vec<Panel> {
    let stages = [
        "created",
        "awaiting_payment",
        "confirmed",
        "shipped",
        "delivered",
    ];
    let funnel = Panel::bars(
        "Funnel",
        "How many orders came how far in the time shown, and where do they fall out?",
        Unit::Count,
    );
    vec![
        Panel::lines(
            "Orders by status reached",
            "How many orders reach which status, per second?",
            Unit::PerSecond,
        )
        .query(rate("ordermesh_query_orders_total", "status"), "{{status}}")
        .traces_of("orders"),
        stages.into_iter().fold(funnel, |funnel, stage| {
            funnel.query(rise(&reached(stage)), stage)
        }),
        Panel::stack(
            "Endings",
            "How do orders end: delivered, cancelled or rejected?",
            Unit::PerSecond,
        )
        .query(
            rate(&reached("delivered|cancelled|rejected"), "status"),
            "{{status}}",
        ),
        Panel::stack(
            "Commands to orders",
            "What are orders asked to do, and do the rules allow it?",
            Unit::PerSecond,
        )
        .query(
            rate(
                "ordermesh_engine_commands_total{service=\"orders\"}",
                "kind, outcome",
            ),
            "{{kind}} {{outcome}}",
        ),
        Panel::lines(
            "Why orders fall out",
            "Which refusals end orders: no stock, a declined payment, a refused shipment, a cancellation?",
            Unit::PerSecond,
        )
        .query_or_zero(
            rate(
                "ordermesh_engine_events_total{service=\"orders\",kind=~\"order_line_refused|order_payment_declined|order_shipment_refused|order_cancelling\"}",
                "kind",
            ),
            "{{kind}}",
        ),
        Panel::stack(
            "Calls to the public port",
            "What do customers call, and how often?",
            Unit::RequestsPerSecond,
        )
        .query(
            rate("ordermesh_rpc_calls_total{server=\"gateway\"}", "method"),
            "{{method}}",
        )
        .traces_of("gateway"),
    ]
}

fn money() -> Vec<Panel> {
    let per_hour =
        |status: &str| format!("sum by (currency) (increase({MONEY}{{status=~\"{status}\"}}[1h]))");
    vec![
        Panel::lines(
            "Money placed in the last hour",
            "What are the orders worth that come in, by currency?",
            Unit::MinorUnits,
        )
        .query(per_hour("created"), "{{currency}}"),
        Panel::lines(
            "Money delivered in the last hour",
            "What are the orders worth that arrive, by currency?",
            Unit::MinorUnits,
        )
        .query(per_hour("delivered"), "{{currency}}"),
        Panel::lines(
            "Share of money lost",
            "How much of the money that ends is cancelled or rejected, by currency?",
            Unit::Ratio,
        )
        .query(
            format!(
                "{} / {}",
                per_hour("cancelled|rejected"),
                per_hour("delivered|cancelled|rejected")
            ),
            "{{currency}}",
        )
        .alarm_at(0.5),
    ]
}

fn latency() -> Vec<Panel> {
    let seconds = "ordermesh_query_order_seconds";
    vec![
        Panel::lines(
            "From creation to confirmed",
            "How long until an order is reserved and paid for?",
            Unit::Seconds,
        )
        .quantiles(&[0.5, 0.95, 0.99], seconds, "{until=\"confirmed\"}", "")
        .alarm_at(10.0)
        .traces_of("orders"),
        Panel::lines(
            "From creation to a status (p95)",
            "Which step of an order's life takes the time?",
            Unit::Seconds,
        )
        .quantiles(&[0.95], seconds, "", "until")
        .traces_of("orders"),
        Panel::heatmap(
            "Spread of the time to confirmed",
            "Are all orders a little slow, or a few very slow?",
            Unit::Seconds,
        )
        .query(
            rate(&format!("{seconds}_bucket{{until=\"confirmed\"}}"), "le"),
            "{{le}}",
        ),
        Panel::lines(
            "Answer to a placed order",
            "How long does the public port take to acknowledge an order?",
            Unit::Seconds,
        )
        .quantiles(
            &[0.5, 0.95, 0.99],
            "ordermesh_rpc_seconds",
            "{server=\"gateway\",method=~\".*PlaceOrder|POST /v1/orders\"}",
            "",
        )
        .alarm_at(1.0)
        .traces_of("gateway"),
        Panel::lines(
            "Until visible (p95)",
            "How long after an event do readers see it, by the service that wrote it?",
            Unit::Seconds,
        )
        .quantiles(&[0.95], "ordermesh_query_visible_seconds", "", "service")
        .alarm_at(5.0)
        .traces_of("query"),
    ]
}

fn under_way() -> Vec<Panel> {
    vec![
        Panel::stack(
            "Open orders by status",
            "What do the orders wait for that have not ended?",
            Unit::Count,
        )
        .query(
            "max by (status) (ordermesh_query_open_orders)",
            "{{status}}",
        ),
        Panel::lines(
            "Oldest open order by status",
            "In which status is an order stuck, and for how long?",
            Unit::Seconds,
        )
        .query(
            "max by (status) (ordermesh_query_oldest_open_order_seconds)",
            "{{status}}",
        )
        .alarm_at(3_600.0),
        Panel::lines(
            "Other services' refusals",
            "What do inventory, payments and shipping refuse, per second?",
            Unit::PerSecond,
        )
        .query_or_zero(
            rate(
                "ordermesh_engine_events_total{service!=\"orders\",kind=~\".*_(refused|declined|voided)\"}",
                "service, kind",
            ),
            "{{service}} {{kind}}",
        ),
    ]
}
