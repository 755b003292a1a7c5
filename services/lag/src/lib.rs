//! The lag exporter: how far the services' groups lie behind, as the broker tells it, so that a group whose workers
//! are all dead is seen as well.

pub mod broker_probe;
mod dead_letters;
mod members;
pub mod metrics;
mod oldest;
mod stability;

use std::time::{Duration, Instant};

use chassis::Process;
use chassis::stall::{self, Limits, Rounds};
use clap::Args;
use engine::Cluster;
use engine::log::kafka::client::Renewable;
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

/// The longest look asks some hundred questions of some seconds at most, and ends with the first that fails.
const STALL_LIMITS: Limits = Limits {
    not_ready: Duration::from_secs(120),
    stuck: Duration::from_secs(240),
};

/// How often the broker is looked at.
#[derive(Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct Config {
    /// How often the lag exporter looks at the broker, in milliseconds
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
/// The metrics are registered already, or the system gives no thread. A broker that is away is waited for: that is
/// what the exporter is there to tell.
pub fn serve(process: &Process, cluster: Cluster, config: Config) -> anyhow::Result<()> {
    // It is at work while the broker is away, too: that is what it has to tell.
    let component = process.readiness().component("lag");
    component.ready();
    let rounds = Rounds::default();
    process.spawn_beside(
        "lag exporter stalls",
        stall::watch(rounds.clone(), STALL_LIMITS, component),
    );
    let exporter = Exporter {
        metrics: Metrics::new(process.registry())?,
        observer: BrokerProbe::renewable(cluster)?,
        rounds,
        every: Duration::from_millis(config.every_ms),
        runtime: Handle::current(),
    };
    process.spawn_thread("lag exporter", move |shutdown| exporter.run(&shutdown))?;
    Ok(())
}

struct Exporter {
    metrics: Metrics,
    observer: Renewable<BrokerProbe>,
    rounds: Rounds,
    every: Duration,
    runtime: Handle,
}

impl Exporter {
    fn run(mut self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            let begun = Instant::now();
            let looked = self.observer.ask(BrokerProbe::look);
            self.rounds.finish();
            self.metrics
                .look_seconds
                .observe(begun.elapsed().as_secs_f64());
            self.tell(looked);
            let rest = self.every.saturating_sub(begun.elapsed());
            self.runtime.block_on(async {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = tokio::time::sleep(rest) => {}
                }
            });
        }
    }

    fn tell(&self, looked: Result<ProbeResult, KafkaError>) {
        match looked {
            Ok(look) => {
                self.metrics.broker_up(true);
                self.metrics.show(&look);
            }
            Err(error) => {
                self.metrics.broker_up(!broker_probe::is_silence(&error));
                self.metrics.forget();
            }
        }
    }
}
