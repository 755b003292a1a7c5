//! The life of a process: its tasks, its readiness, its end.

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

/// Time between the end of the drain and the end of the process, for what hangs while it is dropped.
const DROP_GRACE: Duration = Duration::from_secs(2);

/// A process and everything that lives as long as it does. Clones are handles on one process.
///
/// A task that ends before it was asked to ends the process with a non-zero code: nothing runs on with a part
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
    shutdown: CancellationToken,
    tasks: watch::Sender<Tasks>,
}

#[derive(Debug, Default)]
struct Tasks {
    last_id: u64,
    running: BTreeMap<u64, String>,
    faulty: bool,
}

/// How a task ended. Made from what the task returns: nothing, or a result.
#[derive(Debug)]
pub struct Ending(Result<(), Box<dyn Error + Send + Sync>>);

impl From<()> for Ending {
    fn from((): ()) -> Self {
        Self(Ok(()))
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<Result<(), E>> for Ending {
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
                shutdown: CancellationToken::new(),
                tasks: watch::Sender::new(Tasks::default()),
            }),
        }
    }

    /// Where the process's parts register their metrics.
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// Where the process's calls of its peers are counted.
    pub(crate) fn calls(&self) -> Arc<CallMetrics> {
        Arc::clone(&self.inner.calls)
    }

    /// Where the process's parts say whether they are ready.
    pub fn readiness(&self) -> &Readiness {
        &self.inner.readiness
    }

    /// Cancelled when the process shuts down: stop intake, finish what was begun, leave.
    pub fn shutdown(&self) -> CancellationToken {
        self.inner.shutdown.clone()
    }

    /// Runs a task until it ends after [`Self::shutdown`]. An end before that, an error or a panic at any time makes
    /// the process end with a non-zero code. Call it within a tokio runtime.
    pub fn spawn<F>(&self, name: impl Into<String>, task: F)
    where
        F: Future<Output: Into<Ending>> + Send + 'static,
    {
        let task = self.watched(self.begin(name.into()), task);
        tokio::spawn(task);
    }

    /// Like [`Self::spawn`], for a task that lasts as long as the process itself: a shutdown does not wait for it.
    pub fn spawn_beside<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output: Into<Ending>> + Send + 'static,
    {
        let process = self.clone();
        tokio::spawn(async move {
            let ending = AssertUnwindSafe(task).catch_unwind().await;
            process.note(name, ending.map(Into::into));
        });
    }

    /// Like [`Self::spawn`], on an OS thread of its own. The token is that of [`Self::shutdown`].
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn spawn_thread<F, T>(&self, name: impl Into<String>, task: F) -> io::Result<()>
    where
        F: FnOnce(CancellationToken) -> T + Send + 'static,
        T: Into<Ending>,
    {
        let name = name.into();
        let id = self.begin(name.clone());
        let process = self.clone();
        let thread = thread::Builder::new().name(name).spawn(move || {
            let shutdown = process.shutdown();
            let ending = panic::catch_unwind(AssertUnwindSafe(|| task(shutdown).into()));
            process.end(id, ending);
        });
        if thread.is_err() {
            self.inner
                .tasks
                .send_modify(|tasks| drop(tasks.running.remove(&id)));
        }
        thread.map(drop)
    }

    /// Waits for SIGTERM, SIGINT or a task's end, then shuts down and waits for all tasks, at most `drain` long; a
    /// second signal cuts that short. A watchdog ends the process even when its last drop hangs.
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
            () = self.faulty() => tracing::error!("shutting down because of a fault"),
        }
        watchdog(drain + DROP_GRACE, end_process);
        tokio::select! {
            code = self.stop(drain) => code,
            name = signals.next() => {
                tracing::warn!(signal = name, running = ?self.running(), "leaving without waiting");
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
        let faulty = self.inner.tasks.borrow().faulty;
        if drained && !faulty {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Waits until a task has failed or ended early.
    async fn faulty(&self) {
        // Never closed while `self` holds a sender.
        let _ = self
            .inner
            .tasks
            .subscribe()
            .wait_for(|tasks| tasks.faulty)
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

    fn begin(&self, name: String) -> u64 {
        let mut id = 0;
        self.inner.tasks.send_modify(|tasks| {
            tasks.last_id += 1;
            id = tasks.last_id;
            tasks.running.insert(id, name);
        });
        id
    }

    fn watched<F>(&self, id: u64, task: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output: Into<Ending>> + Send + 'static,
    {
        let process = self.clone();
        async move {
            let ending = AssertUnwindSafe(task).catch_unwind().await;
            process.end(id, ending.map(Into::into));
        }
    }

    fn end(&self, id: u64, ending: thread::Result<Ending>) {
        let name = self
            .inner
            .tasks
            .borrow()
            .running
            .get(&id)
            .cloned()
            .unwrap_or_default();
        self.note(&name, ending);
        self.inner
            .tasks
            .send_modify(|tasks| drop(tasks.running.remove(&id)));
    }

    fn note(&self, name: &str, ending: thread::Result<Ending>) {
        match ending {
            Ok(Ending(Ok(()))) if self.inner.shutdown.is_cancelled() => {
                tracing::debug!(task = name, "ended");
                return;
            }
            Ok(Ending(Ok(()))) => tracing::error!(task = name, "ended before it was asked to"),
            Ok(Ending(Err(error))) => {
                tracing::error!(task = name, error = %chain(&*error), "failed")
            }
            Err(panic) => tracing::error!(task = name, panic = panic_message(&*panic), "panicked"),
        }
        self.inner.tasks.send_modify(|tasks| tasks.faulty = true);
    }
}

/// An error and everything that caused it, on one line.
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

/// Ends the process whatever still runs: the drain has had its time.
#[expect(
    clippy::disallowed_methods,
    reason = "the watchdog is what comes after the drain"
)]
fn end_process() {
    std::process::exit(1);
}

/// Calls `end` after a while, whatever the runtime is doing by then.
#[expect(
    clippy::disallowed_methods,
    reason = "the passing of time is what a watchdog waits for"
)]
fn watchdog(after: Duration, end: impl FnOnce() + Send + 'static) {
    let spawned = thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || {
            thread::sleep(after);
            end();
        });
    if let Err(error) = spawned {
        tracing::warn!(%error, "the end of the process has no watchdog");
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
    async fn tasks_that_end_when_asked_give_a_clean_end() {
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
    async fn a_task_that_ends_by_itself_ends_the_process() {
        let process = Process::new();
        process.spawn("task", async {});
        assert_eq!(process.run(DRAIN).await, ExitCode::FAILURE);
        assert!(process.shutdown().is_cancelled());
    }

    #[tokio::test]
    async fn so_does_a_thread_and_a_task_beside() {
        let process = Process::new();
        process
            .spawn_thread("thread", |_| ())
            .expect("there are threads left");
        process.faulty().await;

        let process = Process::new();
        process.spawn_beside("beside", async {});
        process.faulty().await;
    }

    #[tokio::test]
    async fn an_error_or_a_panic_while_draining_is_a_fault() {
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
    async fn a_task_that_hangs_does_not_hold_the_process() {
        let process = Process::new();
        process.spawn("hangs", std::future::pending::<()>());
        assert_eq!(process.stop(AT_ONCE).await, ExitCode::FAILURE);
        assert_eq!(process.running(), ["hangs"]);
    }

    #[tokio::test]
    async fn what_runs_beside_is_not_waited_for() {
        let process = Process::new();
        process.spawn_beside("beside", std::future::pending::<()>());
        assert_eq!(process.stop(DRAIN).await, ExitCode::SUCCESS);
    }

    #[test]
    fn the_watchdog_needs_no_runtime() {
        let (sender, receiver) = mpsc::channel();
        watchdog(AT_ONCE, move || {
            sender.send("bites").expect("the test waits")
        });
        assert_eq!(receiver.recv(), Ok("bites"));
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
