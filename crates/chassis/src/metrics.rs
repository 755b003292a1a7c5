//! The metrics of every process.

use observability::Metric;
use prometheus::Registry;
use tokio::runtime::Handle;

use crate::names::{LABEL_CODE, LABEL_METHOD, LABEL_PEER, LABEL_SERVER};
use crate::process::Process;

/// Finished calls; one whose client left before the end counts as `CANCELLED`.
pub const RPC_CALLS: Metric = Metric::counter(
    "ordermesh_rpc_calls_total",
    &[LABEL_SERVER, LABEL_METHOD, LABEL_CODE],
    "Finished calls, by server of the process, method or route, and gRPC code.",
);
/// From the request's head to the end of its answer.
pub const RPC_SECONDS: Metric = Metric::histogram(
    "ordermesh_rpc_seconds",
    &[LABEL_SERVER, LABEL_METHOD],
    "From a request's head to the end of its answer.",
);
/// Calls being served.
pub const RPC_IN_FLIGHT: Metric = Metric::gauge(
    "ordermesh_rpc_in_flight",
    &[LABEL_SERVER],
    "Calls being served.",
);
/// Calls that this process made; one whose caller left before the end counts as `CANCELLED`.
pub const RPC_CLIENT_CALLS: Metric = Metric::counter(
    "ordermesh_rpc_client_calls_total",
    &[LABEL_PEER, LABEL_METHOD, LABEL_CODE],
    "Calls that this process made, by the service that was asked, method, and gRPC code; repetitions belong to the call.",
);
/// From the first try to the end of the answer.
pub const RPC_CLIENT_SECONDS: Metric = Metric::histogram(
    "ordermesh_rpc_client_seconds",
    &[LABEL_PEER, LABEL_METHOD],
    "From the first try of a call that this process made to the end of its answer.",
);
/// The version of the program.
pub const BUILD_INFO: Metric = Metric::gauge(
    "ordermesh_build_info",
    &["version"],
    "The version of the program.",
);
/// Whether a component is ready.
pub const READY: Metric = Metric::gauge(
    "ordermesh_ready",
    &["component"],
    "Whether a component can do its work (1) or not (0).",
);
/// Threads of the runtime.
pub const TOKIO_WORKERS: Metric = Metric::gauge(
    "ordermesh_tokio_workers",
    &[],
    "Threads of the runtime that run tasks.",
);
/// Tasks that have not ended.
pub const TOKIO_TASKS: Metric = Metric::gauge(
    "ordermesh_tokio_tasks",
    &[],
    "Tasks of the runtime that have not ended.",
);
/// Tasks that wait for a thread.
pub const TOKIO_QUEUE_DEPTH: Metric = Metric::gauge(
    "ordermesh_tokio_queue_depth",
    &[],
    "Tasks that are ready to run and that no thread of the runtime has taken yet.",
);
/// Time in which threads ran tasks.
pub const TOKIO_BUSY_SECONDS: Metric = Metric::counter(
    "ordermesh_tokio_busy_seconds_total",
    &[],
    "Time in which threads of the runtime ran tasks, summed over them.",
);

/// All metrics of this crate. The `prometheus` crate collects those that begin with `process_`, on Linux only.
pub const ALL: &[Metric] = &[
    RPC_CALLS,
    RPC_SECONDS,
    RPC_IN_FLIGHT,
    RPC_CLIENT_CALLS,
    RPC_CLIENT_SECONDS,
    BUILD_INFO,
    READY,
    TOKIO_WORKERS,
    TOKIO_TASKS,
    TOKIO_QUEUE_DEPTH,
    TOKIO_BUSY_SECONDS,
    Metric::counter(
        "process_cpu_seconds_total",
        &[],
        "Processor time, of the user and of the system.",
    ),
    Metric::gauge("process_open_fds", &[], "Open files and sockets."),
    Metric::gauge(
        "process_max_fds",
        &[],
        "Files and sockets that may be open at once.",
    ),
    Metric::gauge(
        "process_virtual_memory_bytes",
        &[],
        "Size of the address space.",
    ),
    Metric::gauge(
        "process_resident_memory_bytes",
        &[],
        "Memory that is really used.",
    ),
    Metric::gauge(
        "process_start_time_seconds",
        &[],
        "When the process was started, since 1970.",
    ),
    Metric::gauge("process_threads", &[], "Threads of the process."),
];

/// Seconds, from the fastest answers over loopback to the default deadline.
pub(crate) const RPC_BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// Registers the metrics of the process and of its telemetry. Must be called within the runtime of the process.
///
/// # Errors
///
/// They are registered already.
pub(crate) fn register(process: &Process) -> Result<(), prometheus::Error> {
    let registry = process.registry();
    observability::metrics::register(registry)?;
    BUILD_INFO
        .int_gauges(registry)?
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
    let readiness = process.readiness().clone();
    READY.on_scrape(registry, move |samples| {
        for (component, reason) in readiness.report().components {
            let ready = reason.is_none();
            samples.add(&[&component], f64::from(u8::from(ready)));
        }
    })?;
    runtime(registry)?;
    #[cfg(target_os = "linux")]
    registry.register(Box::new(
        prometheus::process_collector::ProcessCollector::for_self(),
    ))?;
    Ok(())
}

fn runtime(registry: &Registry) -> Result<(), prometheus::Error> {
    let metrics = Handle::current().metrics();
    let workers = metrics.num_workers();
    TOKIO_WORKERS.on_scrape(registry, move |samples| samples.add(&[], workers as f64))?;
    let tasks = metrics.clone();
    TOKIO_TASKS.on_scrape(registry, move |samples| {
        samples.add(&[], tasks.num_alive_tasks() as f64);
    })?;
    let queue = metrics.clone();
    TOKIO_QUEUE_DEPTH.on_scrape(registry, move |samples| {
        samples.add(&[], queue.global_queue_depth() as f64);
    })?;
    TOKIO_BUSY_SECONDS.on_scrape(registry, move |samples| {
        let busy = (0..workers).map(|worker| metrics.worker_total_busy_duration(worker));
        samples.add(&[], busy.map(|busy| busy.as_secs_f64()).sum());
    })
}
