//! The lag exporter: reports the lag of the services' groups as the broker knows it, so that a group without any
//! running worker is reported too.

pub mod broker_probe;
mod dead_letters;
mod members;
pub mod metrics;
mod oldest;
mod stability;

use std::time::{Duration, Instant};

use chassis::Process;
use chassis::stall::{self, Iterations, Limits};
use clap::Args;
use engine::Cluster;
use engine::log::kafka::client::ReplaceableClient;
use rdkafka::error::KafkaError;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub use broker_probe::{BrokerProbe, Group, Lag, ProbeResult};
pub use members::Member;
use metrics::Metrics;

/// Environment: see [`Config`].
mod env {
    pub const EVERY_MS: &str = "ORDERMESH_LAG_EVERY_MS";
}

/// The longest probe sends some hundred requests of at most some seconds each, and ends with the first that fails.
const STALL_LIMITS: Limits = Limits {
    not_ready: Duration::from_secs(120),
    not_live: Duration::from_secs(240),
};

/// Configuration of the lag exporter.
#[derive(Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct Config {
    /// Interval between probes of the broker by the lag exporter, in milliseconds
    #[arg(
        id = "lag-every-ms",
        long,
        value_name = "MS",
        env = env::EVERY_MS,
        default_value_t = 5_000,
        value_parser = clap::value_parser!(u64).range(100..=60_000)
    )]
    every_ms: u64,
}

/// Runs the exporter on a thread of its own until the process ends.
///
/// # Errors
///
/// The metrics are already registered, or the thread cannot be started. An unreachable broker is no error: the exporter
/// reports it.
pub fn serve(process: &Process, cluster: Cluster, config: Config) -> anyhow::Result<()> {
    // Also ready while the broker is unreachable, because reporting that is its task.
    let component = process.readiness().component("lag");
    component.ready();
    let iterations = Iterations::default();
    process.spawn_detached(
        "lag exporter stalls",
        stall::watch(iterations.clone(), STALL_LIMITS, component),
    );
    let exporter = Exporter {
        metrics: Metrics::new(process.registry())?,
        probe: BrokerProbe::replaceable(cluster)?,
        iterations,
        interval: Duration::from_millis(config.every_ms),
        runtime: Handle::current(),
    };
    process.spawn_thread("lag exporter", move |shutdown| exporter.run(&shutdown))?;
    Ok(())
}

struct Exporter {
    metrics: Metrics,
    probe: ReplaceableClient<BrokerProbe>,
    iterations: Iterations,
    interval: Duration,
    runtime: Handle,
}

impl Exporter {
    fn run(mut self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            let start = Instant::now();
            let result = self.probe.call(BrokerProbe::probe);
            self.iterations.increment();
            self.metrics
                .look_seconds
                .observe(start.elapsed().as_secs_f64());
            self.report(result);
            let pause = self.interval.saturating_sub(start.elapsed());
            self.runtime.block_on(async {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            });
        }
    }

    fn report(&self, result: Result<ProbeResult, KafkaError>) {
        match result {
            Ok(result) => {
                self.metrics.broker_up(true);
                self.metrics.update(&result);
            }
            Err(error) => {
                self.metrics
                    .broker_up(!broker_probe::is_unreachable(&error));
                self.metrics.reset();
            }
        }
    }
}
