//! The services of the demo: `ordermesh serve all` as a child process.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use chassis::env;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Args;

const START_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A little longer than the services themselves give their work.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How the partners fail while the baskets are carried, unless the environment says otherwise.
const FAULTS: [(&str, &str); 8] = [
    (sandbox::env::DECLINE_PERCENT, "3"),
    (sandbox::env::REFUSE_PERCENT, "1"),
    (sandbox::env::provider::ERROR_PERCENT, "2"),
    (sandbox::env::provider::SLOW_PERCENT, "2"),
    (sandbox::env::provider::SLOW_MS, "300"),
    (sandbox::env::provider::REPLY_LOST_PERCENT, "2"),
    (sandbox::env::carrier::ERROR_PERCENT, "1"),
    (sandbox::env::carrier::REPLY_LOST_PERCENT, "1"),
];
/// How long an order waits for its payment while the endings are played.
const SHORT_PAYMENT_WAIT_MS: &str = "5000";

/// What the services are started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Many orders, with partners that fail now and then.
    Baskets,
    /// Single orders, each steered into its ending.
    Endings,
}

impl Act {
    /// The variables of its services.
    fn variables(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Baskets => FAULTS
                .into_iter()
                .filter(|(name, _)| std::env::var_os(name).is_none())
                .collect(),
            Self::Endings => vec![(orders::env::PAYMENT_WAIT_MS, SHORT_PAYMENT_WAIT_MS)],
        }
    }
}

/// The child process. It is killed when this is dropped.
pub struct Services {
    child: Child,
    log: PathBuf,
}

impl Services {
    /// Starts the services with the demo's own flags.
    ///
    /// # Errors
    ///
    /// The log file or the process cannot be made.
    pub fn start(args: &Args, act: Act) -> anyhow::Result<Self> {
        let log = log_path(&args.folder);
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "all"]);
        // Not as flags: the database's URL may hold a password.
        command
            .env(env::KAFKA, &args.stack.kafka.bootstrap)
            .env(env::PREFIX, &args.stack.kafka.prefix)
            .env(env::PARTITIONS, args.stack.kafka.partitions.to_string())
            .env(env::REGISTRY, &args.stack.registry.url)
            .env(env::DATABASE, &args.stack.database.url)
            .env(env::ADMIN, args.admin.address.to_string())
            .env(env::PUBLIC, args.public.address.to_string())
            .env(env::ORDERS_LISTEN, args.listen.orders.to_string())
            .env(env::INVENTORY_LISTEN, args.listen.inventory.to_string())
            .env(env::QUERY_LISTEN, args.listen.query.to_string())
            .env(env::SANDBOX_LISTEN, args.listen.sandbox.to_string());
        command.envs(act.variables());
        // A group of its own: Ctrl-C is for the demo, which then ends its services in order.
        command.process_group(0).kill_on_drop(true);
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        Ok(Self {
            child: command.spawn().context("cannot start the services")?,
            log,
        })
    }

    /// Runs `part` while the services run; `None` when `stop` is cancelled meanwhile.
    ///
    /// # Errors
    ///
    /// That of the part, or the services have ended.
    pub async fn during<T>(
        &mut self,
        part: impl Future<Output = anyhow::Result<T>>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<T>> {
        tokio::select! {
            ended = part => ended.map(Some),
            dead = self.wait() => Err(dead),
            () = stop.cancelled() => Ok(None),
        }
    }

    /// Comes back only when the services have ended by themselves, with what there is to say about it.
    async fn wait(&mut self) -> anyhow::Error {
        let status = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let log = self.log.display();
        match last_words(&self.log) {
            Some(words) => anyhow::anyhow!("the services ended ({status}): {words}; log in {log}"),
            None => anyhow::anyhow!("the services ended ({status}); log in {log}"),
        }
    }

    /// Asks the services to end, and ends them when they do not.
    pub async fn stop(&mut self) {
        let Some(id) = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
        else {
            return;
        };
        if kill_process(id, Signal::TERM).is_ok()
            && timeout(STOP_PATIENCE, self.child.wait()).await.is_ok()
        {
            return;
        }
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "the services cannot be ended");
        }
    }
}

/// The log of the services.
pub fn log_path(folder: &Path) -> PathBuf {
    folder.join("services.log")
}

/// Waits until the services are ready, and says how long that took.
///
/// # Errors
///
/// They are not for too long; says what keeps them.
pub async fn ready(admin: SocketAddr) -> anyhow::Result<Duration> {
    let client = platform_client::http(Duration::from_secs(2))?;
    let url = format!("http://{}/health/ready", platform_client::reachable(admin)?);
    let began = Instant::now();
    loop {
        let reason = match client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(began.elapsed()),
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => "the admin port does not answer".to_owned(),
        };
        if began.elapsed() > START_PATIENCE {
            bail!(
                "the services are not ready after {} s: {}",
                START_PATIENCE.as_secs(),
                reason.trim()
            );
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The last error that a log tells of, cut to what a terminal shows.
fn last_words(log: &Path) -> Option<String> {
    const WIDTH: usize = 300;
    const ERROR: &str = "error: ";
    let text = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text);
    let words = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix(ERROR))?;
    Some(words.chars().take(WIDTH).collect())
}
