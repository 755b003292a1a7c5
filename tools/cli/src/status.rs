//! `ordermesh status`: the state of the platform on one screen.

mod alerts;
mod groups;
mod process;
mod render;
mod samples;
mod snapshot;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chassis::config;
use engine::Cluster;
use engine::log::kafka::client::ReplaceableClient;
use http::uri::Authority;
use lag::{BrokerProbe, ProbeResult};
use terminal::print_line;

use self::alerts::Alerts;
use self::groups::Groups;
use self::process::Reading;
use self::snapshot::Snapshot;

/// Time between two snapshots with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Time between the first two readings, from which the first rates are computed.
const RATE_INTERVAL: Duration = Duration::from_secs(1);
/// Time limit for one answer; a part without an answer by then is shown as failed.
const DEADLINE: Duration = Duration::from_secs(2);

/// Flags of `ordermesh status`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Parts that do not answer are marked, and the others are shown. Exits with 0 whenever something could be shown: for a
verdict use ordermesh doctor.

Examples:
  ordermesh status
  ordermesh status --watch
  ordermesh status --admin 127.0.0.1:9464 --admin 127.0.0.1:9465
  ordermesh status --json | jq '.log.groups[] | select(.owner == null)'")]
pub struct Args {
    /// Draw again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print one line of JSON in place of each drawing
    #[arg(long)]
    json: bool,
    /// Where the processes tell their health and metrics, host:port; may be repeated, or separated by commas
    #[arg(long = "admin", id = "admin", value_name = "ADDRESSES", env = chassis::env::ADMIN, value_delimiter = ',', default_value = "127.0.0.1:9464", value_parser = platform_client::host_port)]
    admins: Vec<Authority>,
    #[command(flatten)]
    kafka: config::Kafka,
    #[command(flatten)]
    alerts: alerts::Config,
}

/// Prints one snapshot, or one every [`WATCH_INTERVAL`] until interrupted.
///
/// # Errors
///
/// Standard output is closed, or the Kafka clients refuse their settings.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut status = Status::new(&args)?;
    if args.watch {
        watch(&mut status, args.json).await?;
    } else {
        // The first snapshot is the base for rates, and for partitions whose last stable offset does not advance.
        status.snapshot().await;
        tokio::time::sleep(RATE_INTERVAL).await;
        let snapshot = status.snapshot().await;
        print_line(if args.json {
            serde_json::to_string(&snapshot)?
        } else {
            snapshot.to_string()
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn watch(status: &mut Status, json: bool) -> anyhow::Result<()> {
    let interruption = platform_client::shutdown_signal()?;
    status.snapshot().await;
    let first = tokio::time::Instant::now() + RATE_INTERVAL;
    let mut interval = tokio::time::interval_at(first, WATCH_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let next_snapshot = async {
            interval.tick().await;
            status.snapshot().await
        };
        let Some(snapshot) = interruption.run_until_cancelled(next_snapshot).await else {
            return Ok(());
        };
        if json {
            print_line(serde_json::to_string(&snapshot)?)?;
        } else {
            redraw(&snapshot.to_string())?;
        }
    }
}

/// Overwrites the screen line by line: clearing it first would flicker.
fn redraw(text: &str) -> anyhow::Result<()> {
    let mut screen = String::from("\x1b[H");
    for line in text.lines() {
        screen.push_str(line);
        screen.push_str("\x1b[K\n");
    }
    screen.push_str("\x1b[J");
    let mut output = std::io::stdout().lock();
    output.write_all(screen.as_bytes())?;
    Ok(output.flush()?)
}

/// Takes snapshots; keeps the previous readings for rates.
struct Status {
    cluster: Cluster,
    /// `None` while a probe runs, and for ever after a probe has panicked.
    probe: Option<ReplaceableClient<BrokerProbe>>,
    admins: Vec<Authority>,
    alerts: Alerts,
    http: reqwest::Client,
    /// The last reading of each process, with its time.
    previous: Vec<Option<(Instant, Reading)>>,
}

impl Status {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let cluster = platform_client::cluster(&args.kafka);
        let http = platform_client::http_client(DEADLINE)?;
        Ok(Self {
            probe: Some(BrokerProbe::replaceable(cluster.clone())?.without_outage_log()),
            cluster,
            admins: args.admins.clone(),
            alerts: Alerts::new(args.alerts.clone()),
            http,
            previous: args.admins.iter().map(|_| None).collect(),
        })
    }

    async fn readings(&self) -> Vec<Result<(Instant, Reading), String>> {
        let readings = self.admins.iter().map(async |admin| {
            let reading = Reading::of(&self.http, admin).await?;
            Ok((Instant::now(), reading))
        });
        futures::future::join_all(readings).await
    }

    async fn snapshot(&mut self) -> Snapshot {
        let probe = self.probe.take();
        let (readings, (probe, probed), alerts) = tokio::join!(
            self.readings(),
            probe_broker(probe),
            self.alerts.firing(&self.http)
        );
        self.probe = probe;
        let processes = self
            .admins
            .iter()
            .zip(&readings)
            .zip(&self.previous)
            .map(|((admin, now), before)| snapshot::process(admin, now.as_ref(), before.as_ref()))
            .collect();
        self.previous = readings.into_iter().map(Result::ok).collect();
        let broker = &self.cluster.bootstrap;
        let current = self.previous.iter().flatten().map(|(_, reading)| reading);
        Snapshot::new(
            processes,
            Groups::new(broker, &probed, self.cluster.partitions),
            current,
            alerts,
        )
    }
}

/// Probes the broker on a blocking thread: the Kafka clients block.
async fn probe_broker(
    probe: Option<ReplaceableClient<BrokerProbe>>,
) -> (
    Option<ReplaceableClient<BrokerProbe>>,
    Result<ProbeResult, String>,
) {
    let Some(mut probe) = probe else {
        return (
            None,
            Err("an earlier probe of the broker panicked".to_owned()),
        );
    };
    let task = tokio::task::spawn_blocking(move || {
        let probed = probe
            .call(BrokerProbe::probe)
            .map_err(|error| error.to_string());
        (probe, probed)
    });
    match task.await {
        Ok((probe, probed)) => (Some(probe), probed),
        Err(error) => (None, Err(error.to_string())),
    }
}
