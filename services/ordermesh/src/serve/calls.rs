//! Calls that wait for an outcome: heard here, and not left alone at the end.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use chassis::Process;
use contracts::Contract;
use engine::CommandClient;
use tokio_util::sync::CancellationToken;

use super::status::follow;

/// How long calls under way hold the workers that answer them.
const ANSWERING: Duration = Duration::from_secs(5);

/// The callers of this process. While calls are under way, the workers that answer them go on.
#[derive(Clone, Default)]
pub struct Calls {
    callers: Vec<Arc<dyn Listen>>,
    stopping: Arc<OnceLock<Instant>>,
}

/// A caller of whatever contract.
trait Listen: Send + Sync {
    fn name(&self) -> &'static str;
    fn in_flight(&self) -> usize;
    fn health(&self) -> Result<(), String>;
    fn rounds(&self) -> u64;
    fn listen(&self, stopped: &dyn Fn() -> bool) -> Result<(), engine::log::Error>;
}

impl<C: Contract> Listen for CommandClient<C> {
    fn name(&self) -> &'static str {
        C::SERVICE.name()
    }

    fn in_flight(&self) -> usize {
        Self::in_flight(self)
    }

    fn health(&self) -> Result<(), String> {
        Self::health(self)
    }

    fn rounds(&self) -> u64 {
        Self::rounds(self)
    }

    fn listen(&self, stopped: &dyn Fn() -> bool) -> Result<(), engine::log::Error> {
        Self::listen(self, stopped)
    }
}

impl Calls {
    /// Adds a caller.
    pub fn add<C: Contract>(&mut self, caller: &CommandClient<C>) {
        self.callers.push(Arc::new(caller.clone()));
    }

    /// Hears outcomes, each caller on a thread of its own; the process is ready only while they are heard.
    pub fn listen(&self, process: &Process) -> anyhow::Result<()> {
        for caller in &self.callers {
            let (listening, calls) = (Arc::clone(caller), self.clone());
            process.spawn_thread(format!("{} outcomes", caller.name()), move |shutdown| {
                listening.listen(&|| calls.are_over(&shutdown))
            })?;
            let component = process
                .readiness()
                .component(format!("{} outcomes", caller.name()));
            let (loops, tells) = (Arc::clone(caller), Arc::clone(caller));
            let follow = follow(move || loops.rounds(), move || tells.health(), component);
            process.spawn_beside("outcomes readiness", follow);
        }
        Ok(())
    }

    /// Whether the process shuts down and nobody waits for an answer any more, or has waited long enough.
    pub fn are_over(&self, shutdown: &CancellationToken) -> bool {
        if !shutdown.is_cancelled() {
            return false;
        }
        let since = self.stopping.get_or_init(Instant::now);
        since.elapsed() > ANSWERING || self.callers.iter().all(|caller| caller.in_flight() == 0)
    }
}
