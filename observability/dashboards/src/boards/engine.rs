//! Kafka and the engine: lag, and the processing of commands.

use crate::panel::Unit;
use crate::query::{mean, quantile, rate};
use crate::{Dashboard, Panel};

/// Selects the chosen services.
const CHOSEN: &str = "{service=~\"$service\"}";

pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        "engine",
        "Kafka & engine",
        "What waits in the log, how the workers process it, and what goes wrong on the way.",
    )
    .variable("service", "ordermesh_engine_partitions")
    .row("Lag, as the broker sees it", lag_at_the_broker())
    .row("Lag, as the workers see it", lag_of_the_workers())
    .row("Commands and events", commands())
    .row("Windows and transactions", transactions())
    .row("Partitions and take-overs", take_overs())
    .row("Dead letters", dead_letters())
}

fn lag_at_the_broker() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Lag in records",
            "How many records has each group still to process?",
            Unit::Count,
        )
        .query("sum by (group) (max by (group, topic, partition) (ordermesh_lag_records))", "{{group}}")
        .warn_at(1_000.0)
        .alarm_at(10_000.0),
        Panel::lines(
            "Lag in seconds",
            "How old is the oldest record that a group has not processed?",
            Unit::Seconds,
        )
        .query("max by (group) (ordermesh_lag_seconds)", "{{group}}")
        .warn_at(10.0)
        .alarm_at(60.0),
        Panel::lines(
            "Partitions that lie furthest behind",
            "Which partition holds a group up?",
            Unit::Seconds,
        )
        .query(
            "topk(8, max by (group, topic, partition) (ordermesh_lag_seconds))",
            "{{group}} {{topic}} {{partition}}",
        )
        .alarm_at(60.0),
        Panel::lines(
            "Members of the groups",
            "Does every group have a member?",
            Unit::Count,
        )
        .query("max by (group) (ordermesh_lag_members)", "{{group}}")
        .alarm_below(1.0),
        Panel::lines(
            "Stuck transactions",
            "For how long has an open transaction held readers up?",
            Unit::Seconds,
        )
        .query(
            "max by (topic) (ordermesh_lag_unstable_seconds)",
            "{{topic}}",
        )
        .warn_at(5.0)
        .alarm_at(15.0),
        Panel::stack(
            "Growth of the topics",
            "Where are records written, per second? Transaction markers count as well.",
            Unit::PerSecond,
        )
        .query(
            "sum by (topic) (max by (topic, partition) (rate(ordermesh_lag_end_offset[$__rate_interval])))",
            "{{topic}}",
        ),
        Panel::lines(
            "Looks at the broker",
            "How long does it take to read all offsets?",
            Unit::Seconds,
        )
        .quantiles(&[0.5, 0.99], "ordermesh_lag_look_seconds", "", "")
        .warn_at(1.0),
        Panel::states(
            "Broker",
            "Does the broker answer the lag exporter?",
            &["down", "up"],
        )
        .query("max(ordermesh_lag_broker_up)", "broker")
        .alarm_below(1.0),
    ]
}

fn lag_of_the_workers() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Records before the worker",
            "How many commands wait, by service?",
            Unit::Count,
        )
        .query(
            format!("sum by (service) (ordermesh_engine_lag_records{CHOSEN})"),
            "{{service}}",
        )
        .warn_at(1_000.0),
        Panel::lines(
            "Age of the command before the worker",
            "How old are the commands that are processed now, by service?",
            Unit::Seconds,
        )
        .query(
            format!("max by (service) (ordermesh_engine_lag_seconds{CHOSEN})"),
            "{{service}}",
        )
        .warn_at(10.0)
        .alarm_at(60.0),
        Panel::lines(
            "From command to decision",
            "How long does a command wait from its append to the commit of its decision?",
            Unit::Seconds,
        )
        .quantiles(
            &[0.5, 0.99],
            "ordermesh_engine_command_wait_seconds",
            CHOSEN,
            "service",
        )
        .alarm_at(5.0)
        .traces_of("${__field.labels.service}"),
    ]
}

fn commands() -> Vec<Panel> {
    vec![
        Panel::stack(
            "Commands",
            "What are the services asked to do, per second?",
            Unit::PerSecond,
        )
        .query(
            rate(
                &format!("ordermesh_engine_commands_total{CHOSEN}"),
                "service, kind",
            ),
            "{{service}} {{kind}}",
        )
        .traces_of("${__field.labels.service}"),
        Panel::lines(
            "What becomes of commands",
            "How many commands are accepted, rejected, or change nothing?",
            Unit::PerSecond,
        )
        .query(
            rate(
                &format!("ordermesh_engine_commands_total{CHOSEN}"),
                "service, outcome",
            ),
            "{{service}} {{outcome}}",
        ),
        Panel::stack("Events", "What happens, per second?", Unit::PerSecond).query(
            rate(
                &format!("ordermesh_engine_events_total{CHOSEN}"),
                "service, kind",
            ),
            "{{service}} {{kind}}",
        ),
    ]
}

fn transactions() -> Vec<Panel> {
    let seconds = "ordermesh_engine_transaction_seconds";
    vec![
        Panel::lines(
            "Transactions",
            "How many transactions does each service write, per second? They are what processing costs.",
            Unit::PerSecond,
        )
        .query(rate(&format!("{seconds}_count{CHOSEN}"), "service"), "{{service}}"),
        Panel::lines(
            "Inputs per transaction",
            "Do the windows grow with the load?",
            Unit::Count,
        )
        .query(
            mean("ordermesh_engine_batch_inputs", CHOSEN, "service"),
            "mean {{service}}",
        )
        .query(
            quantile(0.99, "ordermesh_engine_batch_inputs", CHOSEN, "service"),
            "p99 {{service}}",
        ),
        Panel::lines(
            "Duration of transactions",
            "How long do transactions take, begin to commit?",
            Unit::Seconds,
        )
        .quantiles(&[0.5, 0.99], seconds, CHOSEN, "service")
        .warn_at(0.5)
        .alarm_at(5.0),
        Panel::lines(
            "Failed transactions",
            "How many transactions are aborted, end unclear or are fenced, per second?",
            Unit::PerSecond,
        )
        .query(
            rate(
                &format!("ordermesh_engine_failed_transactions_total{CHOSEN}"),
                "service, result",
            ),
            "{{service}} {{result}}",
        )
        .alarm_at(0.1),
        Panel::lines(
            "Recreated clients",
            "How often were producers and consumers recreated, in the time shown?",
            Unit::Count,
        )
        .query(
            format!(
                "sum by (service) (increase(ordermesh_engine_producers_recreated_total{CHOSEN}[$__range]))"
            ),
            "producers {{service}}",
        )
        .query(
            format!(
                "sum by (service) (increase(ordermesh_engine_consumers_recreated_total{CHOSEN}[$__range]))"
            ),
            "consumers {{service}}",
        )
        .warn_at(1.0),
        Panel::heatmap(
            "Spread of the transactions' duration",
            "Is a slow transaction the rule or the exception?",
            Unit::Seconds,
        )
        .query(rate(&format!("{seconds}_bucket{CHOSEN}"), "le"), "{{le}}"),
    ]
}

fn take_overs() -> Vec<Panel> {
    let restore = "ordermesh_engine_restore_seconds";
    let gauge = |metric: &str, how: &str| format!("{how} by (service) ({metric}{CHOSEN})");
    vec![
        Panel::lines(
            "Partitions processed",
            "Is every partition processed?",
            Unit::Count,
        )
        .query(gauge("ordermesh_engine_partitions", "sum"), "{{service}}"),
        Panel::lines(
            "Blocked partitions",
            "How many partitions wait for something that the worker cannot mend, such as an unknown schema or a violated \
             invariant?",
            Unit::Count,
        )
        .query(
            gauge("ordermesh_engine_blocked_partitions", "sum"),
            "{{service}}",
        )
        .query(
            format!(
                "sum by (service) (increase(ordermesh_engine_invariant_violations_total{CHOSEN}[$__range]))"
            ),
            "invariant violated {{service}}",
        )
        .alarm_at(1.0),
        Panel::lines(
            "Stalled partitions",
            "How many partitions have commands that wait and are not delivered, for no reason that the worker knows?",
            Unit::Count,
        )
        .query(
            gauge("ordermesh_engine_standing_partitions", "sum"),
            "{{service}}",
        )
        .alarm_at(1.0),
        Panel::lines(
            "Take-over under way",
            "How long has the oldest unfinished take-over lasted?",
            Unit::Seconds,
        )
        .query(
            gauge("ordermesh_engine_restoring_seconds", "max"),
            "{{service}}",
        )
        .warn_at(10.0)
        .alarm_at(60.0),
        // Most take-overs end before the first scrape, so a rate would not show them.
        Panel::bars(
            "Duration of take-overs",
            "How long did it take to restore a partition, on average since the processes started?",
            Unit::Seconds,
        )
        .query(
            format!("sum by (service) ({restore}_sum{CHOSEN}) / sum by (service) ({restore}_count{CHOSEN})"),
            "{{service}}",
        )
        .alarm_at(60.0),
        Panel::lines(
            "Take-overs",
            "How many partitions were taken over since the processes started, and how many with a full replay because states were damaged?",
            Unit::Count,
        )
        .query(
            format!("sum by (service) ({restore}_count{CHOSEN})"),
            "{{service}}",
        )
        .query(
            format!("sum by (service) (ordermesh_engine_full_replays_total{CHOSEN})"),
            "full replay {{service}}",
        ),
        Panel::lines(
            "Records read by take-overs",
            "Did take-overs read states and the events behind them, or the whole history?",
            Unit::Count,
        )
        .query(
            format!(
                "sum by (service, topic) (ordermesh_engine_restored_records_total{CHOSEN})"
            ),
            "{{service}} {{topic}}",
        ),
        Panel::lines(
            "Aggregates in memory",
            "How many aggregates does each service hold?",
            Unit::Count,
        )
        .query(gauge("ordermesh_engine_aggregates", "sum"), "{{service}}"),
    ]
}

fn dead_letters() -> Vec<Panel> {
    vec![
        // The first dead letter creates the series, so a rate would not count it.
        Panel::lines(
            "Dead letters by class",
            "Which records could not be processed since the processes started, and why?",
            Unit::Count,
        )
        .query_or_zero(
            format!("sum by (service, class) (ordermesh_engine_dead_letters_total{CHOSEN})"),
            "{{service}} {{class}}",
        )
        .alarm_at(1.0),
        Panel::lines(
            "Records in the dead-letter topics",
            "How many dead letters wait for inspection?",
            Unit::Count,
        )
        .query("max by (topic) (ordermesh_lag_dead_letters)", "{{topic}}")
        .alarm_at(1.0),
    ]
}
