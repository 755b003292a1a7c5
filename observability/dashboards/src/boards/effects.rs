//! Effects and timers: calls to partners, and timers that are waiting.

use crate::panel::Unit;
use crate::query::{rate, total_rate};
use crate::{Dashboard, Panel};

const TRIES: &str = "ordermesh_engine_effects_total";
/// Selects the chosen services.
const CHOSEN: &str = "{service=~\"$service\"}";

pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        "effects",
        "Effects",
        "What is asked of the payment provider and the carrier, how they answer, and which timers come due.",
    )
    .variable("service", "ordermesh_engine_effects_outstanding")
    .row("Answers", answers())
    .row("What is outstanding", outstanding())
    .row("Timers", timers())
    .row("The partners' own side", partners())
}

fn answers() -> Vec<Panel> {
    let tries = format!("{TRIES}{CHOSEN}");
    let answered = format!("{TRIES}{{service=~\"$service\",result=\"answered\"}}");
    vec![
        Panel::stack(
            "Tries by result",
            "How often is which partner called, and with what result?",
            Unit::PerSecond,
        )
        .query(
            rate(&tries, "service, target, result"),
            "{{service}} {{target}} {{result}}",
        )
        .traces_of("${__field.labels.service}"),
        Panel::lines(
            "Answered share",
            "Which part of the tries brings an answer?",
            Unit::Ratio,
        )
        .query(
            format!("{} / {}", rate(&answered, "target"), rate(&tries, "target")),
            "{{target}}",
        )
        .alarm_below(0.5),
        Panel::lines(
            "Duration of a try",
            "How long does a partner take to answer once?",
            Unit::Seconds,
        )
        .quantiles(
            &[0.5, 0.99],
            "ordermesh_engine_effect_seconds",
            CHOSEN,
            "service, target",
        )
        .alarm_at(5.0)
        .traces_of("${__field.labels.service}"),
        Panel::states(
            "Breakers",
            "Which partners are not called because they do not answer?",
            &["closed", "half-open", "open"],
        )
        .query(
            format!("max by (service, target) (ordermesh_engine_breaker_state{CHOSEN})"),
            "{{service}} {{target}}",
        )
        .warn_at(1.0)
        .alarm_at(2.0),
        Panel::lines(
            "Tries per answer",
            "How many tries does an answer need?",
            Unit::Count,
        )
        .query(
            format!("{} / {}", rate(&tries, "target"), rate(&answered, "target")),
            "mean {{target}}",
        )
        .quantiles(
            &[0.99],
            "ordermesh_engine_effect_attempts",
            CHOSEN,
            "target",
        )
        .warn_at(2.0),
    ]
}

fn outstanding() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Effects outstanding",
            "How many effects wait for an answer?",
            Unit::Count,
        )
        .query(
            format!("sum by (service) (ordermesh_engine_effects_outstanding{CHOSEN})"),
            "{{service}}",
        ),
        Panel::lines(
            "Oldest effect",
            "For how long has the oldest effect waited for its answer?",
            Unit::Seconds,
        )
        .query(
            format!("max by (service, target) (ordermesh_engine_effects_oldest_seconds{CHOSEN})"),
            "{{service}} {{target}}",
        )
        .warn_at(30.0)
        .alarm_at(300.0),
    ]
}

fn timers() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Timers fired",
            "How many timers come due, per second? Each one is a step that took longer than it may.",
            Unit::PerSecond,
        )
        .query(
            rate(
                &format!("ordermesh_engine_timers_fired_total{CHOSEN}"),
                "service",
            ),
            "{{service}}",
        ),
        Panel::lines(
            "Timers waiting",
            "How many timers are set?",
            Unit::Count,
        )
        .query(
            format!("sum by (service) (ordermesh_engine_timers_waiting{CHOSEN})"),
            "{{service}}",
        ),
    ]
}

fn partners() -> Vec<Panel> {
    let sandbox = "ordermesh_rpc_calls_total{server=\"sandbox\"}";
    vec![
        Panel::lines(
            "Calls to the sandbox",
            "What do the sandbox's provider and carrier answer, as they see it?",
            Unit::RequestsPerSecond,
        )
        .query(rate(sandbox, "method, code"), "{{method}} {{code}}")
        .traces_of("sandbox"),
        Panel::lines(
            "Duration of calls to the sandbox",
            "Is it the partner that is slow, or the way to it?",
            Unit::Seconds,
        )
        .quantiles(
            &[0.5, 0.99],
            "ordermesh_rpc_seconds",
            "{server=\"sandbox\"}",
            "method",
        )
        .traces_of("sandbox"),
        Panel::lines(
            "Refusals by partners",
            "How often do partners say a definite no?",
            Unit::PerSecond,
        )
        .query_or_zero(
            total_rate("ordermesh_engine_events_total{kind=\"payment_declined\"}"),
            "charge declined",
        )
        .query_or_zero(
            total_rate("ordermesh_engine_events_total{kind=\"payment_refund_refused\"}"),
            "refund refused",
        )
        .query_or_zero(
            total_rate("ordermesh_engine_events_total{kind=\"shipment_refused\"}"),
            "shipment refused",
        ),
    ]
}
