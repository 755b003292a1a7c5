//! Infrastructure: processes, hosts, the registry, the broker, and telemetry.

use crate::panel::Unit;
use crate::query::{rate, total_rate};
use crate::{Dashboard, Panel};

/// Selects the chosen processes.
const CHOSEN: &str = "{job=\"ordermesh\",instance=~\"$instance\"}";
/// Selects file systems on disks.
const DISKS: &str = "{job=\"node\",fstype!~\"tmpfs|overlay|squashfs|ramfs|devtmpfs\"}";

pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        "infrastructure",
        "Infrastructure",
        "What everything runs on: processes, machine, registry, broker, and the telemetry itself.",
    )
    .variable("instance", "ordermesh_build_info")
    .row("Now", now())
    .row("Processes", processes())
    .row("Runtime", runtime())
    .row("Machine", machine())
    .row("Registry and broker", registry())
    .row("Telemetry itself", telemetry())
}

fn now() -> Vec<Panel> {
    vec![
        Panel::number(
            "Processes up",
            "How many of our processes answer?",
            Unit::Count,
        )
        .query("sum(up{job=\"ordermesh\"})", "up")
        .alarm_below(1.0),
        Panel::number(
            "Processes down",
            "How many of our processes do not answer?",
            Unit::Count,
        )
        .query(
            "count(up{job=\"ordermesh\"}) - sum(up{job=\"ordermesh\"})",
            "down",
        )
        .alarm_at(1.0),
        Panel::number(
            "Alerts that fire",
            "Does anything ask for help?",
            Unit::Count,
        )
        .query_or_zero("count(ALERTS{alertstate=\"firing\"})", "firing")
        .alarm_at(1.0),
        Panel::number("Broker", "Does Kafka answer?", Unit::Count)
            .query("max(ordermesh_lag_broker_up)", "up")
            .alarm_below(1.0),
        Panel::number(
            "Schema ids that wait",
            "Does a partition wait for the schema registry?",
            Unit::Count,
        )
        .query("sum(ordermesh_registry_pending_schema_ids)", "waiting")
        .alarm_at(1.0),
        Panel::number(
            "Restarts",
            "How often did processes start in the time shown?",
            Unit::Count,
        )
        .query(
            "sum(changes(process_start_time_seconds{job=\"ordermesh\"}[$__range]))",
            "restarts",
        )
        .warn_at(1.0),
    ]
}

fn processes() -> Vec<Panel> {
    vec![
        Panel::states(
            "Answering",
            "Which process is away, and since when?",
            &["down", "up"],
        )
        .query(format!("up{CHOSEN}"), "{{instance}}")
        .alarm_below(1.0),
        Panel::table("Versions", "Which version runs where?", Unit::Count).query(
            "count by (instance, version) (ordermesh_build_info{instance=~\"$instance\"})",
            "{{instance}} {{version}}",
        ),
        Panel::lines("CPU", "Which process uses the processor?", Unit::Cores).query(
            rate(&format!("process_cpu_seconds_total{CHOSEN}"), "instance"),
            "{{instance}}",
        ),
        Panel::lines("Memory", "Which process grows?", Unit::Bytes).query(
            format!("sum by (instance) (process_resident_memory_bytes{CHOSEN})"),
            "{{instance}}",
        ),
        Panel::lines(
            "File descriptors",
            "Does a process leak connections or files?",
            Unit::Count,
        )
        .query(
            format!("sum by (instance) (process_open_fds{CHOSEN})"),
            "{{instance}}",
        ),
        Panel::lines(
            "Age of the processes",
            "Which process was started lately?",
            Unit::Seconds,
        )
        .query(
            format!("time() - max by (instance) (process_start_time_seconds{CHOSEN})"),
            "{{instance}}",
        ),
    ]
}

fn runtime() -> Vec<Panel> {
    let chosen = "{instance=~\"$instance\"}";
    let workers = format!("sum by (instance) (ordermesh_tokio_workers{chosen})");
    let busy = rate(
        &format!("ordermesh_tokio_busy_seconds_total{chosen}"),
        "instance",
    );
    vec![
        Panel::lines(
            "Busy workers",
            "Which part of the runtime's threads is at work? At 1 everything waits.",
            Unit::Ratio,
        )
        .query(format!("{busy} / {workers}"), "{{instance}}")
        .warn_at(0.7)
        .alarm_at(0.9),
        Panel::lines("Tasks", "Does a process pile tasks up?", Unit::Count).query(
            format!("sum by (instance) (ordermesh_tokio_tasks{chosen})"),
            "{{instance}}",
        ),
        Panel::lines(
            "Tasks that wait for a thread",
            "Is something blocking the runtime?",
            Unit::Count,
        )
        .query(
            format!("sum by (instance) (ordermesh_tokio_queue_depth{chosen})"),
            "{{instance}}",
        )
        .warn_at(100.0),
    ]
}

fn machine() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Processor",
            "How much of the machine's processor is in use?",
            Unit::Ratio,
        )
        .query(
            "1 - avg by (instance) (rate(node_cpu_seconds_total{job=\"node\",mode=\"idle\"}[$__rate_interval]))",
            "{{instance}}",
        )
        .warn_at(0.8)
        .alarm_at(0.95),
        Panel::lines(
            "Memory in use",
            "How much of the machine's memory is in use?",
            Unit::Ratio,
        )
        .query(
            "1 - sum by (instance) (node_memory_MemAvailable_bytes{job=\"node\"}) / sum by (instance) (node_memory_MemTotal_bytes{job=\"node\"})",
            "{{instance}}",
        )
        .warn_at(0.8)
        .alarm_at(0.95),
        Panel::lines(
            "Disk in use",
            "Which disk fills up?",
            Unit::Ratio,
        )
        .query(
            format!(
                "1 - max by (instance, mountpoint) (node_filesystem_avail_bytes{DISKS}) / max by (instance, mountpoint) (node_filesystem_size_bytes{DISKS})"
            ),
            "{{instance}} {{mountpoint}}",
        )
        .warn_at(0.8)
        .alarm_at(0.9),
        Panel::lines(
            "Disk writes",
            "How much is written to disk?",
            Unit::BytesPerSecond,
        )
        .query(
            rate("node_disk_written_bytes_total{job=\"node\"}", "instance, device"),
            "{{instance}} {{device}}",
        ),
        Panel::lines(
            "Time that disks are busy",
            "Is a disk the bottleneck?",
            Unit::Ratio,
        )
        .query(
            rate("node_disk_io_time_seconds_total{job=\"node\"}", "instance, device"),
            "{{instance}} {{device}}",
        )
        .warn_at(0.8),
        Panel::lines(
            "Load",
            "How many threads want to run?",
            Unit::Count,
        )
        .query("max by (instance) (node_load1{job=\"node\"})", "{{instance}}"),
    ]
}

fn registry() -> Vec<Panel> {
    let seconds = "ordermesh_registry_call_seconds";
    vec![
        // Most calls are made before the first scrape, so a rate would not show them.
        Panel::bars(
            "Registry calls",
            "What was the schema registry asked since our processes started, and did it answer?",
            Unit::Count,
        )
        .query(
            "sum by (operation, result) (ordermesh_registry_calls_total)",
            "{{operation}} {{result}}",
        ),
        Panel::bars(
            "Duration of registry calls",
            "How long did the schema registry take for a call, on average since our processes started?",
            Unit::Seconds,
        )
        .query(
            format!(
                "sum by (operation) ({seconds}_sum) / sum by (operation) ({seconds}_count)"
            ),
            "{{operation}}",
        )
        .warn_at(1.0),
        Panel::lines(
            "Schema ids that wait for the registry",
            "Which process cannot read a record because the registry does not answer?",
            Unit::Count,
        )
        .query(
            "sum by (instance) (ordermesh_registry_pending_schema_ids{instance=~\"$instance\"})",
            "{{instance}}",
        )
        .alarm_at(1.0),
    ]
}

fn telemetry() -> Vec<Panel> {
    vec![
        Panel::states(
            "Parts of the telemetry",
            "Are Prometheus, collector, alertmanager and node exporter there?",
            &["down", "up"],
        )
        .query("min by (job) (up{job!=\"ordermesh\"})", "{{job}}")
        .alarm_below(1.0),
        Panel::lines(
            "Spans",
            "Do traces reach the collector, or are spans lost?",
            Unit::PerSecond,
        )
        .query_or_zero(rate("ordermesh_trace_spans_total", "result"), "{{result}}"),
        Panel::lines(
            "Bad trace parents",
            "Does a caller send trace contexts that are no use, per second?",
            Unit::PerSecond,
        )
        .query_or_zero(total_rate("ordermesh_trace_bad_parents_total"), "bad"),
        Panel::lines(
            "Duration of scrapes",
            "How long does a process take to answer a scrape?",
            Unit::Seconds,
        )
        .query(
            "max by (job, instance) (scrape_duration_seconds)",
            "{{job}} {{instance}}",
        )
        .warn_at(0.05)
        .alarm_at(1.0),
        Panel::lines(
            "Series by process",
            "Does the number of series stay bounded?",
            Unit::Count,
        )
        .query(
            "max by (job, instance) (scrape_samples_scraped)",
            "{{job}} {{instance}}",
        )
        .warn_at(5_000.0),
    ]
}
