//! The read side: progress and writes of the projector, and the database.

use crate::panel::Unit;
use crate::query::{mean, quantile, rate, total_rate};
use crate::{Dashboard, Panel};

/// Selects the events of the chosen services.
const CHOSEN: &str = "{service=~\"$service\"}";

pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        "read-side",
        "Read side",
        "How far the read model is, how the projector writes it, and how the database answers its readers.",
    )
    .variable("service", "ordermesh_query_position")
    .row("How far it is", progress())
    .row("Writing", writing())
    .row("The database", database())
    .row("What is held up", held_up())
    .row("The audit", audit())
}

fn progress() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Lag in events",
            "How many events has the projector still to apply, by the service that wrote them?",
            Unit::Count,
        )
        .query(
            format!("sum by (service) (ordermesh_query_lag_records{CHOSEN})"),
            "{{service}}",
        )
        .warn_at(1_000.0)
        .alarm_at(10_000.0),
        Panel::lines(
            "Lag in seconds",
            "How old is the oldest event that is not applied?",
            Unit::Seconds,
        )
        .query(
            format!("max by (service) (ordermesh_query_lag_seconds{CHOSEN})"),
            "{{service}}",
        )
        .warn_at(5.0)
        .alarm_at(60.0),
        Panel::lines(
            "Until visible",
            "How long after an event do readers see it?",
            Unit::Seconds,
        )
        .quantiles(
            &[0.5, 0.99],
            "ordermesh_query_visible_seconds",
            CHOSEN,
            "service",
        )
        .alarm_at(5.0)
        .traces_of("query"),
        Panel::lines("Positions", "Does every partition move on?", Unit::Count).query(
            format!("max by (service, partition) (ordermesh_query_position{CHOSEN})"),
            "{{service}} {{partition}}",
        ),
        Panel::lines(
            "Partitions that lie furthest behind",
            "Which partition is held up?",
            Unit::Seconds,
        )
        .query(
            format!("topk(8, max by (service, partition) (ordermesh_query_lag_seconds{CHOSEN}))"),
            "{{service}} {{partition}}",
        )
        .alarm_at(60.0),
        Panel::lines(
            "Partitions applied",
            "Is every partition applied?",
            Unit::Count,
        )
        .query(
            format!("count by (service) (ordermesh_query_position{CHOSEN})"),
            "{{service}}",
        ),
    ]
}

fn writing() -> Vec<Panel> {
    let (batch, write) = (
        "ordermesh_query_batch_events",
        "ordermesh_query_write_seconds",
    );
    vec![
        Panel::stack(
            "Events by fate",
            "How many events are applied, found applied already, or parked?",
            Unit::PerSecond,
        )
        .query(
            rate(
                &format!("ordermesh_query_events_total{CHOSEN}"),
                "service, fate",
            ),
            "{{service}} {{fate}}",
        ),
        Panel::lines(
            "Events per SQL transaction",
            "Do the batches grow with the load?",
            Unit::Count,
        )
        .query(
            format!(
                "{} / {}",
                total_rate(&format!("{batch}_sum")),
                total_rate(&format!("{batch}_count"))
            ),
            "mean",
        )
        .query(quantile(0.99, batch, "", ""), "p99"),
        Panel::lines(
            "Duration of SQL transactions",
            "How long does a batch take to write?",
            Unit::Seconds,
        )
        .quantiles(&[0.5, 0.95, 0.99], write, "", "")
        .warn_at(0.5)
        .alarm_at(5.0),
        Panel::lines(
            "SQL transactions",
            "How many batches are written, per second?",
            Unit::PerSecond,
        )
        .query(total_rate(&format!("{write}_count")), "written"),
        Panel::lines(
            "Time spent writing",
            "Which part of a second does the projector write? At 1 it can do no more.",
            Unit::Ratio,
        )
        .query(total_rate(&format!("{write}_sum")), "writing")
        .warn_at(0.7)
        .alarm_at(0.9),
        Panel::heatmap(
            "Spread of the write times",
            "Is a slow write the rule or the exception?",
            Unit::Seconds,
        )
        .query(rate(&format!("{write}_bucket"), "le"), "{{le}}"),
    ]
}

fn database() -> Vec<Panel> {
    let statement = "ordermesh_query_statement_seconds";
    vec![
        Panel::stack(
            "Statements",
            "What is the database asked, per second?",
            Unit::PerSecond,
        )
        .query(
            rate(&format!("{statement}_count"), "statement"),
            "{{statement}}",
        ),
        Panel::lines(
            "Duration of statements (p95)",
            "Which statement is slow?",
            Unit::Seconds,
        )
        .quantiles(&[0.95], statement, "", "statement")
        .warn_at(0.1)
        .alarm_at(1.0),
        Panel::lines(
            "Mean duration of statements",
            "Which statement is slow as a rule?",
            Unit::Seconds,
        )
        .query(mean(statement, "", "statement"), "{{statement}}")
        .warn_at(0.05),
        Panel::stack(
            "Connections",
            "Is a connection free for the next reader?",
            Unit::Count,
        )
        .query(
            "sum by (state) (ordermesh_query_pool_connections)",
            "{{state}}",
        ),
        Panel::lines(
            "Failures of the database",
            "Does the projector lose its connection, and do looks at the tables fail, per second?",
            Unit::PerSecond,
        )
        .query(
            total_rate("ordermesh_query_database_failures_total"),
            "projector",
        )
        .query(
            total_rate("ordermesh_query_look_failures_total"),
            "looks at the tables",
        )
        .alarm_at(0.1),
        Panel::lines(
            "Calls to the read API",
            "What do readers ask for, and how often?",
            Unit::RequestsPerSecond,
        )
        .query(
            rate("ordermesh_rpc_calls_total{server=\"query\"}", "method"),
            "{{method}}",
        )
        .traces_of("query"),
    ]
}

fn held_up() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Parked keys",
            "How many orders, payments, products or shipments are not up to date because an event of theirs could not be applied?",
            Unit::Count,
        )
        // Every replica reports the same rows.
        .query("max(ordermesh_query_parked_keys)", "parked")
        .alarm_at(1.0),
        Panel::lines(
            "Waiting partitions",
            "How many partitions wait for the registry, or for a newer program?",
            Unit::Count,
        )
        .query("sum(ordermesh_query_waiting_partitions)", "waiting")
        .alarm_at(1.0),
        Panel::lines(
            "Fenced batches",
            "How often did another projector move a position, per second?",
            Unit::PerSecond,
        )
        .query(total_rate("ordermesh_query_fenced_total"), "fenced")
        .warn_at(0.1),
    ]
}

fn audit() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Violations",
            "Does the auditor find something in log, read model or ledgers that must not be?",
            Unit::Count,
        )
        .query(
            "max by (invariant) (ordermesh_audit_violations)",
            "{{invariant}}",
        )
        .alarm_at(1.0),
        Panel::lines(
            "Audits by result",
            "Are audits completed, and how do they end, per second?",
            Unit::PerSecond,
        )
        .query(rate("ordermesh_audit_runs_total", "result"), "{{result}}"),
        Panel::lines(
            "Since the last audit",
            "How long ago was an audit completed, and how long ago was one clean?",
            Unit::Seconds,
        )
        .query(
            "time() - max(ordermesh_audit_completed_timestamp_seconds)",
            "completed",
        )
        .query(
            "time() - max(ordermesh_audit_clean_timestamp_seconds)",
            "clean",
        )
        .alarm_at(3_600.0),
        Panel::lines(
            "Duration of an audit",
            "How long does reading everything again take?",
            Unit::Seconds,
        )
        .query(
            mean("ordermesh_audit_seconds", "", "instance"),
            "{{instance}}",
        ),
    ]
}
