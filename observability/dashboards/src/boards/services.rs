//! Services: rate, errors and duration of calls, at server and client.

use crate::panel::Unit;
use crate::query::{rate, total_rate};
use crate::{Dashboard, Panel};

const CALLS: &str = "ordermesh_rpc_calls_total";
const CLIENT_CALLS: &str = "ordermesh_rpc_client_calls_total";
/// Codes that are faults of the server; the others are faults of the request.
const FAULTS: &str = "UNKNOWN|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|UNAVAILABLE|DATA_LOSS";
/// Selects the chosen servers.
const CHOSEN: &str = "{server=~\"$server\"}";

pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        "services",
        "Services",
        "Rate, errors and duration of every call, by service and method, on the server's and on the client's side.",
    )
    .variable("server", CALLS)
    .row("Now", now())
    .row("By service", by_service())
    .row("By method", by_method())
    .row("Calls to other services", clients())
}

fn failed(by: &str) -> String {
    let faults = format!("{CALLS}{{server=~\"$server\",code=~\"{FAULTS}\"}}");
    share_of(&faults, &format!("{CALLS}{CHOSEN}"), by)
}

/// The failed share of the calls of each group; 0 for a group without failures.
fn share_of(faults: &str, calls: &str, by: &str) -> String {
    let all = rate(calls, by);
    format!("({} or 0 * {all}) / {all}", rate(faults, by))
}

fn now() -> Vec<Panel> {
    let calls = format!("{CALLS}{CHOSEN}");
    let faults = format!("{CALLS}{{server=~\"$server\",code=~\"{FAULTS}\"}}");
    vec![
        Panel::number("Calls", "How much is called?", Unit::RequestsPerSecond)
            .query(total_rate(&calls), "calls"),
        Panel::number(
            "Failed share",
            "Which part of all calls fails through a fault of ours?",
            Unit::Ratio,
        )
        .query_or_zero(
            format!("{} / {}", total_rate(&faults), total_rate(&calls)),
            "failed",
        )
        .warn_at(0.001)
        .alarm_at(0.01),
        Panel::number(
            "Duration (p99)",
            "How long do the slowest calls take?",
            Unit::Seconds,
        )
        .quantiles(&[0.99], "ordermesh_rpc_seconds", CHOSEN, "")
        .warn_at(0.5)
        .alarm_at(2.5),
        Panel::number("In flight", "How many calls are being served?", Unit::Count)
            .query(format!("sum(ordermesh_rpc_in_flight{CHOSEN})"), "in flight"),
        Panel::number(
            "Components that are not ready",
            "Is every part of every process ready?",
            Unit::Count,
        )
        .query("count(ordermesh_ready) - sum(ordermesh_ready)", "not ready")
        .alarm_at(1.0),
    ]
}

fn by_service() -> Vec<Panel> {
    let calls = format!("{CALLS}{CHOSEN}");
    vec![
        Panel::stack(
            "Rate",
            "Which service is called how often?",
            Unit::RequestsPerSecond,
        )
        .query(rate(&calls, "server"), "{{server}}")
        .traces_of("${__field.labels.server}"),
        Panel::lines(
            "Failed share by service",
            "Which service fails, through a fault of ours?",
            Unit::Ratio,
        )
        .query(failed("server"), "{{server}}")
        .alarm_at(0.01)
        .traces_of("${__field.labels.server}"),
        Panel::lines(
            "Duration by service",
            "Which service is slow?",
            Unit::Seconds,
        )
        .quantiles(&[0.5, 0.99], "ordermesh_rpc_seconds", CHOSEN, "server")
        .alarm_at(2.5)
        .traces_of("${__field.labels.server}"),
        Panel::lines(
            "Answers by code",
            "With which codes do calls end, those that a caller is to blame for included?",
            Unit::RequestsPerSecond,
        )
        .query(rate(&calls, "server, code"), "{{server}} {{code}}"),
        Panel::lines(
            "In flight by service",
            "Where do calls pile up?",
            Unit::Count,
        )
        .query(
            format!("sum by (server) (ordermesh_rpc_in_flight{CHOSEN})"),
            "{{server}}",
        ),
        Panel::states(
            "Readiness",
            "Which component of which process is not ready, and since when?",
            &["not ready", "ready"],
        )
        .query(
            "min by (instance, component) (ordermesh_ready)",
            "{{instance}} {{component}}",
        )
        .alarm_below(1.0),
    ]
}

fn by_method() -> Vec<Panel> {
    vec![
        Panel::stack(
            "Rate by method",
            "What is called, and how often?",
            Unit::RequestsPerSecond,
        )
        .query(
            rate(&format!("{CALLS}{CHOSEN}"), "server, method"),
            "{{server}} {{method}}",
        )
        .traces_of("${__field.labels.server}"),
        Panel::lines(
            "Failed share by method",
            "Which method fails, through a fault of ours?",
            Unit::Ratio,
        )
        .query(failed("server, method"), "{{server}} {{method}}")
        .alarm_at(0.01)
        .traces_of("${__field.labels.server}"),
        Panel::lines(
            "Duration by method (p95)",
            "Which method is slow?",
            Unit::Seconds,
        )
        .quantiles(&[0.95], "ordermesh_rpc_seconds", CHOSEN, "server, method")
        .alarm_at(2.5)
        .traces_of("${__field.labels.server}"),
    ]
}

fn clients() -> Vec<Panel> {
    let faults = format!("{CLIENT_CALLS}{{code=~\"{FAULTS}\"}}");
    vec![
        Panel::stack(
            "Calls by peer",
            "Which peers do our services call, and how often?",
            Unit::RequestsPerSecond,
        )
        .query(rate(CLIENT_CALLS, "peer, method"), "{{peer}} {{method}}"),
        Panel::lines(
            "Failed share by peer",
            "Which peer fails, as its callers see it?",
            Unit::Ratio,
        )
        .query(share_of(&faults, CLIENT_CALLS, "peer"), "{{peer}}")
        .alarm_at(0.01),
        Panel::lines(
            "Duration by peer (p95)",
            "Which peer is slow, the network included?",
            Unit::Seconds,
        )
        .quantiles(&[0.95], "ordermesh_rpc_client_seconds", "", "peer, method")
        .alarm_at(2.5),
    ]
}
