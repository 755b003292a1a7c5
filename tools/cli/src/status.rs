//! `ordermesh status`: the platform at work, on one screen.

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
use engine::log::kafka::client::Renewable;
use http::uri::Authority;

use self::alerts::Alerts;
use self::groups::Groups;
use self::process::Reading;
use self::snapshot::Snapshot;
use lag::{BrokerProbe, ProbeResult};
use terminal::say;

/// Between two drawings, and between the two readings that a rate is made of.
const WATCH_EVERY: Duration = Duration::from_secs(2);
const RATE_OVER: Duration = Duration::from_secs(1);
/// For one answer: what has not come by then is told as such.
const DEADLINE: Duration = Duration::from_secs(2);

/// Where the parts are.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
What does not answer is told as such, and the rest is shown all the same. Exits with 0 when it could render, whatever
the snapshot: for a verdict ask ordermesh doctor.

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

/// Draws once, or until it is interrupted.
///
/// # Errors
///
/// Nobody looks, or the clients of the broker refuse their settings.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut status = Status::new(&args)?;
    if args.watch {
        watch(&mut status, args.json).await?;
    } else {
        // What the rates are counted from, and whether a partition stands still.
        status.snapshot().await;
        tokio::time::sleep(RATE_OVER).await;
        let snapshot = status.snapshot().await;
        say(if args.json {
            serde_json::to_string(&snapshot)?
        } else {
            snapshot.to_string()
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn watch(status: &mut Status, json: bool) -> anyhow::Result<()> {
    let interruption = platform_client::interruption()?;
    status.snapshot().await;
    let first = tokio::time::Instant::now() + RATE_OVER;
    let mut every = tokio::time::interval_at(first, WATCH_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let drawing = async {
            every.tick().await;
            status.snapshot().await
        };
        let Some(snapshot) = interruption.run_until_cancelled(drawing).await else {
            return Ok(());
        };
        if json {
            say(serde_json::to_string(&snapshot)?)?;
        } else {
            redraw(&snapshot.to_string())?;
        }
    }
}

/// Writes over what stood there, line by line: a screen that is cleared first flickers.
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

/// Looks again and again.
struct Status {
    cluster: Cluster,
    /// Away while it looks, and for good when it panics.
    observer: Option<Renewable<BrokerProbe>>,
    admins: Vec<Authority>,
    alerts: Alerts,
    http: reqwest::Client,
    /// What each process said at last, and when.
    former: Vec<Option<(Instant, Reading)>>,
}

impl Status {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let cluster = platform_client::cluster(&args.kafka);
        let http = platform_client::http(DEADLINE)?;
        Ok(Self {
            observer: Some(BrokerProbe::renewable(cluster.clone())?.silent()),
            cluster,
            admins: args.admins.clone(),
            alerts: Alerts::new(args.alerts.clone()),
            http,
            former: args.admins.iter().map(|_| None).collect(),
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
        let observer = self.observer.take();
        let (readings, (observer, look), alerts) = tokio::join!(
            self.readings(),
            look(observer),
            self.alerts.firing(&self.http)
        );
        self.observer = observer;
        let processes = self
            .admins
            .iter()
            .zip(&readings)
            .zip(&self.former)
            .map(|((admin, now), before)| snapshot::process(admin, now.as_ref(), before.as_ref()))
            .collect();
        self.former = readings.into_iter().map(Result::ok).collect();
        let broker = &self.cluster.bootstrap;
        let current = self.former.iter().flatten().map(|(_, reading)| reading);
        Snapshot::new(
            processes,
            Groups::new(broker, &look, self.cluster.partitions),
            current,
            alerts,
        )
    }
}

/// The clients of the log block.
async fn look(
    observer: Option<Renewable<BrokerProbe>>,
) -> (Option<Renewable<BrokerProbe>>, Result<ProbeResult, String>) {
    let Some(mut observer) = observer else {
        return (None, Err("looking at the broker failed before".to_owned()));
    };
    let looked = tokio::task::spawn_blocking(move || {
        let look = observer
            .ask(BrokerProbe::look)
            .map_err(|error| error.to_string());
        (observer, look)
    });
    match looked.await {
        Ok((observer, look)) => (Some(observer), look),
        Err(error) => (None, Err(error.to_string())),
    }
}
