//! Calls that wait for an outcome: receives the outcomes, and keeps the workers running during shutdown until the calls
//! are answered.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use chassis::Process;
use contracts::Contract;
use engine::CommandClient;
use tokio_util::sync::CancellationToken;

use super::readiness::report_loop_health;

/// Longest time for which pending calls delay the shutdown of the workers.
const MAX_SHUTDOWN_DELAY: Duration = Duration::from_secs(5);

/// The command clients of this process. During shutdown the workers run until the pending calls are answered.
#[derive(Clone, Default)]
pub struct PendingCalls {
    clients: Vec<Arc<dyn OutcomeListener>>,
    shutdown_started: Arc<OnceLock<Instant>>,
}

/// A command client of any contract.
trait OutcomeListener: Send + Sync {
    fn name(&self) -> &'static str;
    fn in_flight(&self) -> usize;
    fn health(&self) -> Result<(), String>;
    fn iterations(&self) -> u64;
    fn listen(&self, stopped: &dyn Fn() -> bool) -> Result<(), engine::log::Error>;
}

impl<C: Contract> OutcomeListener for CommandClient<C> {
    fn name(&self) -> &'static str {
        C::SERVICE.name()
    }

    fn in_flight(&self) -> usize {
        Self::in_flight(self)
    }

    fn health(&self) -> Result<(), String> {
        Self::health(self)
    }

    fn iterations(&self) -> u64 {
        Self::iterations(self)
    }

    fn listen(&self, stopped: &dyn Fn() -> bool) -> Result<(), engine::log::Error> {
        Self::listen(self, stopped)
    }
}

impl PendingCalls {
    /// Adds a client.
    pub fn add<C: Contract>(&mut self, client: &CommandClient<C>) {
        self.clients.push(Arc::new(client.clone()));
    }

    /// Receives outcomes, each client on a thread of its own. The process is ready only while all of them receive.
    pub fn listen(&self, process: &Process) -> anyhow::Result<()> {
        for client in &self.clients {
            let (listener, pending_calls) = (Arc::clone(client), self.clone());
            process.spawn_thread(format!("{} outcomes", client.name()), move |shutdown| {
                listener.listen(&|| pending_calls.allow_shutdown(&shutdown))
            })?;
            let component = process
                .readiness()
                .component(format!("{} outcomes", client.name()));
            let (listener, health) = (Arc::clone(client), Arc::clone(client));
            let report = report_loop_health(
                move || listener.iterations(),
                move || health.health(),
                component,
            );
            process.spawn_detached("outcomes readiness", report);
        }
        Ok(())
    }

    /// Whether the process shuts down and no call is pending, or the shutdown was delayed long enough.
    pub fn allow_shutdown(&self, shutdown: &CancellationToken) -> bool {
        if !shutdown.is_cancelled() {
            return false;
        }
        let started = self.shutdown_started.get_or_init(Instant::now);
        started.elapsed() > MAX_SHUTDOWN_DELAY
            || self.clients.iter().all(|client| client.in_flight() == 0)
    }
}
