//! The lifecycle of a process: tasks, readiness, shutdown.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use futures::FutureExt as _;
use prometheus::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::grpc::CallMetrics;
use crate::readiness::Readiness;
use crate::states::States;

/// Time between the end of the drain and the forced exit, for destructors that hang.
const DROP_GRACE: Duration = Duration::from_secs(2);

/// A process: its tasks, metrics registry and readiness. Clones share one process.
///
/// A task that ends before the shutdown ends the process with a non-zero code, so that no process runs with a part
/// missing.
#[derive(Clone, Debug)]
pub struct Process {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    calls: Arc<CallMetrics>,
    readiness: Readiness,
    states: States,
    shutdown: CancellationToken,
    tasks: watch::Sender<Tasks>,
}

#[derive(Debug, Default)]
struct Tasks {
    last_id: u64,
    running: BTreeMap<u64, String>,
    failed: bool,
}

/// The result of a task, converted from `()` or from a `Result`.
#[derive(Debug)]
pub struct TaskResult(Result<(), Box<dyn Error + Send + Sync>>);

impl From<()> for TaskResult {
    fn from((): ()) -> Self {
        Self(Ok(()))
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<Result<(), E>> for TaskResult {
    fn from(result: Result<(), E>) -> Self {
        Self(result.map_err(Into::into))
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

impl Process {
    /// A process without tasks, with a metrics registry of its own.
    pub fn new() -> Self {
        let registry = Registry::new();
        let calls = CallMetrics::register(&registry).expect("nothing else is registered yet");
        Self {
            inner: Arc::new(Inner {
                registry,
                calls: Arc::new(calls),
                readiness: Readiness::default(),
                states: States::default(),
                shutdown: CancellationToken::new(),
                tasks: watch::Sender::new(Tasks::default()),
            }),
        }
    }

    /// The metrics registry of the process.
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// The metrics of the calls that the process makes.
    pub(crate) fn calls(&self) -> Arc<CallMetrics> {
        Arc::clone(&self.inner.calls)
    }

    /// The readiness of the process.
    pub fn readiness(&self) -> &Readiness {
        &self.inner.readiness
    }

    /// The states of the components of the process.
    pub fn states(&self) -> &States {
        &self.inner.states
    }

    /// Cancelled when the process shuts down: tasks stop taking work, finish what they began, and end.
    pub fn shutdown(&self) -> CancellationToken {
        self.inner.shutdown.clone()
    }

    /// Runs a task that ends after [`Self::shutdown`]. An earlier end, or an error or panic at any time, ends the
    /// process with a non-zero code. Must be called within a tokio runtime.
    pub fn spawn<F>(&self, name: impl Into<String>, task: F)
    where
        F: Future<Output: Into<TaskResult>> + Send + 'static,
    {
        let task = self.supervise(self.register_task(name.into()), task);
        tokio::spawn(task);
    }

    /// Like [`Self::spawn`], for a task that runs until the process exits: the shutdown does not wait for it.
    pub fn spawn_detached<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output: Into<TaskResult>> + Send + 'static,
    {
        let process = self.clone();
        tokio::spawn(async move {
            let result = AssertUnwindSafe(task).catch_unwind().await;
            process.record_result(name, result.map(Into::into));
        });
    }

    /// Like [`Self::spawn`], on a dedicated OS thread. The token is [`Self::shutdown`].
    ///
    /// # Errors
    ///
    /// The thread cannot be created.
    pub fn spawn_thread<F, T>(&self, name: impl Into<String>, task: F) -> io::Result<()>
    where
        F: FnOnce(CancellationToken) -> T + Send + 'static,
        T: Into<TaskResult>,
    {
        let name = name.into();
        let id = self.register_task(name.clone());
        let process = self.clone();
        let thread = thread::Builder::new().name(name).spawn(move || {
            let shutdown = process.shutdown();
            let result = panic::catch_unwind(AssertUnwindSafe(|| task(shutdown).into()));
            process.finish_task(id, result);
        });
        if thread.is_err() {
            self.inner
                .tasks
                .send_modify(|tasks| drop(tasks.running.remove(&id)));
        }
        thread.map(drop)
    }

    /// Waits for SIGTERM, SIGINT or a failed task, then shuts down and waits for all tasks, at most `drain` long; a
    /// second signal ends the wait. A watchdog ends the process even when a destructor hangs.
    pub async fn run(&self, drain: Duration) -> ExitCode {
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "the system delivers no signals");
                return ExitCode::FAILURE;
            }
        };
        tokio::select! {
            name = signals.next() => tracing::info!(signal = name, "shutting down"),
            () = self.task_failed() => tracing::error!("shutting down because of a fault"),
        }
        watchdog(drain + DROP_GRACE, end_process);
        tokio::select! {
            code = self.stop(drain) => code,
            name = signals.next() => {
                tracing::warn!(signal = name, running = ?self.running(), "exiting without waiting for tasks");
                ExitCode::FAILURE
            }
        }
    }

    /// Shuts down and waits for all tasks, at most `drain` long. The code is non-zero when a task failed, ended
    /// early, or did not end.
    pub async fn stop(&self, drain: Duration) -> ExitCode {
        self.inner.readiness.shut_down();
        self.inner.shutdown.cancel();
        let mut tasks = self.inner.tasks.subscribe();
        let drained = tokio::time::timeout(drain, tasks.wait_for(|tasks| tasks.running.is_empty()))
            .await
            .is_ok();
        if !drained {
            tracing::error!(running = ?self.running(), seconds = drain.as_secs_f64(), "tasks did not end in time");
        }
        let failed = self.inner.tasks.borrow().failed;
        if drained && !failed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Waits until a task has failed or ended early.
    async fn task_failed(&self) {
        // Never closed while `self` holds a sender.
        let _ = self
            .inner
            .tasks
            .subscribe()
            .wait_for(|tasks| tasks.failed)
            .await;
    }

    fn running(&self) -> Vec<String> {
        self.inner
            .tasks
            .borrow()
            .running
            .values()
            .cloned()
            .collect()
    }

    fn register_task(&self, name: String) -> u64 {
        let mut id = 0;
        self.inner.tasks.send_modify(|tasks| {
            tasks.last_id += 1;
            id = tasks.last_id;
            tasks.running.insert(id, name);
        });
        id
    }

    fn supervise<F>(&self, id: u64, task: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output: Into<TaskResult>> + Send + 'static,
    {
        let process = self.clone();
        async move {
            let result = AssertUnwindSafe(task).catch_unwind().await;
            process.finish_task(id, result.map(Into::into));
        }
    }

    fn finish_task(&self, id: u64, result: thread::Result<TaskResult>) {
        let name = self
            .inner
            .tasks
            .borrow()
            .running
            .get(&id)
            .cloned()
            .unwrap_or_default();
        self.record_result(&name, result);
        self.inner
            .tasks
            .send_modify(|tasks| drop(tasks.running.remove(&id)));
    }

    fn record_result(&self, name: &str, result: thread::Result<TaskResult>) {
        match result {
            Ok(TaskResult(Ok(()))) if self.inner.shutdown.is_cancelled() => {
                tracing::debug!(task = name, "ended");
                return;
            }
            Ok(TaskResult(Ok(()))) => tracing::error!(task = name, "ended before the shutdown"),
            Ok(TaskResult(Err(error))) => {
                tracing::error!(task = name, error = %chain(&*error), "failed")
            }
            Err(panic) => tracing::error!(task = name, panic = panic_message(&*panic), "panicked"),
        }
        self.inner.tasks.send_modify(|tasks| tasks.failed = true);
    }
}

/// An error and its causes, on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is no text")
}

/// Ends the process even when tasks still run: the time of the drain is over.
#[expect(
    clippy::disallowed_methods,
    reason = "the watchdog acts after the drain"
)]
fn end_process() {
    std::process::exit(1);
}

/// Calls `end` after this time, independent of the runtime.
#[expect(
    clippy::disallowed_methods,
    reason = "a watchdog waits for time to pass"
)]
fn watchdog(after: Duration, end: impl FnOnce() + Send + 'static) {
    let spawned = thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || {
            thread::sleep(after);
            end();
        });
    if let Err(error) = spawned {
        tracing::warn!(%error, "the shutdown has no watchdog");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const DRAIN: Duration = Duration::from_secs(30);
    const AT_ONCE: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn a_shutdown_is_clean_when_all_tasks_end() {
        let process = Process::new();
        let component = process.readiness().component("work");
        component.ready();
        let shutdown = process.shutdown();
        process.spawn("task", async move { shutdown.cancelled().await });
        let runtime = tokio::runtime::Handle::current();
        process
            .spawn_thread("thread", move |shutdown| {
                runtime.block_on(shutdown.cancelled());
                Ok::<(), io::Error>(())
            })
            .expect("there are threads left");
        assert_eq!(process.running(), ["task", "thread"]);
        assert!(process.readiness().is_ready());

        assert_eq!(process.stop(DRAIN).await, ExitCode::SUCCESS);
        assert!(process.running().is_empty());
        assert!(!process.readiness().is_ready());
    }

    #[tokio::test]
    async fn a_task_that_ends_early_ends_the_process() {
        let process = Process::new();
        process.spawn("task", async {});
        assert_eq!(process.run(DRAIN).await, ExitCode::FAILURE);
        assert!(process.shutdown().is_cancelled());
    }

    #[tokio::test]
    async fn an_early_end_of_a_thread_or_a_detached_task_is_a_failure() {
        let process = Process::new();
        process
            .spawn_thread("thread", |_| ())
            .expect("there are threads left");
        process.task_failed().await;

        let process = Process::new();
        process.spawn_detached("detached", async {});
        process.task_failed().await;
    }

    #[tokio::test]
    async fn an_error_or_a_panic_during_the_drain_is_a_failure() {
        for panics in [false, true] {
            let process = Process::new();
            let shutdown = process.shutdown();
            process.spawn("task", async move {
                shutdown.cancelled().await;
                assert!(!panics, "the panic of this test");
                Err::<(), _>("no disk left")
            });
            assert_eq!(process.stop(DRAIN).await, ExitCode::FAILURE);
        }
    }

    #[tokio::test]
    async fn a_task_that_hangs_does_not_block_the_shutdown() {
        let process = Process::new();
        process.spawn("hangs", std::future::pending::<()>());
        assert_eq!(process.stop(AT_ONCE).await, ExitCode::FAILURE);
        assert_eq!(process.running(), ["hangs"]);
    }

    #[tokio::test]
    async fn the_shutdown_does_not_wait_for_detached_tasks() {
        let process = Process::new();
        process.spawn_detached("detached", std::future::pending::<()>());
        assert_eq!(process.stop(DRAIN).await, ExitCode::SUCCESS);
    }

    #[test]
    fn the_watchdog_needs_no_runtime() {
        let (sender, receiver) = mpsc::channel();
        watchdog(AT_ONCE, move || sender.send(()).expect("the test waits"));
        assert_eq!(receiver.recv(), Ok(()));
    }

    #[test]
    fn the_chain_of_causes_is_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("the log cannot be read")]
        struct Outer(#[source] io::Error);
        assert_eq!(
            chain(&Outer(io::Error::other("disk full"))),
            "the log cannot be read: disk full"
        );
    }
}
