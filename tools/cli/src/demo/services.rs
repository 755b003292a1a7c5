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

const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A little longer than the shutdown deadline of the services.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Faults of the partners while the baskets are placed; variables of the environment take precedence.
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
/// How long an order waits for its payment in the scenarios.
const SHORT_PAYMENT_WAIT_MS: &str = "5000";

/// The phases of the demo; each has its own services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Many orders, with partners that sometimes fail.
    Baskets,
    /// Single orders, one for each ending.
    Endings,
}

impl Phase {
    /// Environment variables of the services.
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

/// The child process; killed on drop.
pub struct Services {
    child: Child,
    log: PathBuf,
}

impl Services {
    /// Starts the services with the addresses of the demo.
    ///
    /// # Errors
    ///
    /// The log file cannot be opened, or the process cannot be started.
    pub fn start(args: &Args, phase: Phase) -> anyhow::Result<Self> {
        let log = log_path(&args.folder);
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "all"]);
        // Not as flags: the URL of the database may contain a password.
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
        command.envs(phase.variables());
        // A process group of its own: Ctrl-C reaches only the demo, which then stops its services in order.
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

    /// Runs `work` while the services run; `None` when `stop` is cancelled meanwhile.
    ///
    /// # Errors
    ///
    /// `work` fails, or the services exit.
    pub async fn run_while_up<T>(
        &mut self,
        work: impl Future<Output = anyhow::Result<T>>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<T>> {
        tokio::select! {
            result = work => match result {
                // It may have failed because it was interrupted.
                Err(_) if stop.is_cancelled() => Ok(None),
                result => result.map(Some),
            },
            error = self.unexpected_exit() => Err(error),
            () = stop.cancelled() => Ok(None),
        }
    }

    /// Returns only when the services have exited on their own: the error with the last error of their log.
    async fn unexpected_exit(&mut self) -> anyhow::Error {
        let status = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let log = self.log.display();
        match last_error(&self.log) {
            Some(message) => {
                anyhow::anyhow!("the services ended ({status}): {message}; log in {log}")
            }
            None => anyhow::anyhow!("the services ended ({status}); log in {log}"),
        }
    }

    /// Sends SIGTERM to the services, and kills them when they do not exit in time.
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
            && timeout(STOP_TIMEOUT, self.child.wait()).await.is_ok()
        {
            return;
        }
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "the services cannot be ended");
        }
    }
}

/// The log file of the services.
pub fn log_path(folder: &Path) -> PathBuf {
    folder.join("services.log")
}

/// Waits until the services are ready. Returns how long that took.
///
/// # Errors
///
/// The services are not ready in time; the error has the components that are not ready.
pub async fn wait_until_ready(admin: SocketAddr) -> anyhow::Result<Duration> {
    let client = platform_client::http_client(Duration::from_secs(2))?;
    let url = format!("http://{}/health/ready", platform_client::reachable(admin)?);
    let began = Instant::now();
    loop {
        let reason = match client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(began.elapsed()),
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => "the admin port does not answer".to_owned(),
        };
        if began.elapsed() > START_TIMEOUT {
            bail!(
                "the services are not ready after {} s: {}",
                START_TIMEOUT.as_secs(),
                reason.trim()
            );
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// The last error in a log, cut to the width of a terminal.
fn last_error(log: &Path) -> Option<String> {
    const WIDTH: usize = 300;
    const ERROR: &str = "error: ";
    let text = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text);
    let message = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix(ERROR))?;
    Some(message.chars().take(WIDTH).collect())
}
