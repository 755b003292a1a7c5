//! The auditor role: repeats audits, and reports violations in its log and metrics.
//!
//! `system` takes one consistent cut of log, read model and ledgers. The rules are in the crate `audit`.

mod database;
mod ledgers;
mod log;
pub mod metrics;
mod system;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use audit::{Cut, Error, Evidence as _, Report};
use chassis::Process;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use metrics::Metrics;

pub use system::{Sources, SystemEvidence};

/// Environment: see [`Config`].
mod env {
    pub const EVERY_MS: &str = "ORDERMESH_AUDIT_EVERY_MS";
}

/// Configuration of the auditor role.
#[derive(clap::Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct Config {
    /// Pause between audits, in milliseconds
    #[arg(
        id = "audit-every-ms",
        long,
        value_name = "MS",
        env = env::EVERY_MS,
        default_value_t = 300_000,
        value_parser = clap::value_parser!(u64).range(100..=86_400_000)
    )]
    every_ms: u64,
}

/// Audits the evidence with the rule books of the services.
pub type AuditFn = Box<dyn Fn(&SystemEvidence) -> Result<Report, Error> + Send>;

/// Runs the auditor on a thread of its own until the process ends.
///
/// # Errors
///
/// The metrics are registered already, or the thread cannot be created. An audit that cannot be completed is counted,
/// logged and repeated.
pub fn serve(
    process: &Process,
    sources: Sources,
    audit: AuditFn,
    config: Config,
) -> anyhow::Result<()> {
    process.readiness().component("auditor").ready();
    let auditor = Auditor {
        metrics: Metrics::new(process.registry(), now())?,
        sources,
        audit,
        every: Duration::from_millis(config.every_ms),
        runtime: Handle::current(),
        previous: None,
    };
    process.spawn_thread("auditor", move |shutdown| auditor.run(&shutdown))?;
    Ok(())
}

struct Auditor {
    metrics: Metrics,
    sources: Sources,
    audit: AuditFn,
    every: Duration,
    runtime: Handle,
    /// The cut of the previous audit.
    previous: Option<Cut>,
}

impl Auditor {
    fn run(mut self, shutdown: &CancellationToken) {
        // Clients need the context of the runtime on this thread.
        let runtime = self.runtime.clone();
        let _inside = runtime.enter();
        while !shutdown.is_cancelled() {
            let begun = Instant::now();
            match self.audit(shutdown) {
                Ok(report) => {
                    let seconds = begun.elapsed().as_secs_f64();
                    self.metrics.completed(&report, now(), seconds);
                    log_report(&report, seconds);
                }
                Err(_) if shutdown.is_cancelled() => break,
                Err(error) => {
                    self.metrics.unchecked();
                    tracing::warn!(error = format!("{error:#}"), "not audited");
                }
            }
            runtime.block_on(async {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = tokio::time::sleep(self.every) => {}
                }
            });
        }
    }

    fn audit(&mut self, shutdown: &CancellationToken) -> anyhow::Result<Report> {
        let opening = SystemEvidence::open(&self.sources, None);
        let mut system = self.runtime.block_on(opening)?;
        system.stop_with(shutdown);
        let cut = system.cut().clone();
        if let Some(previous) = &self.previous {
            // `previous` stays as it is: every audit reports it until the cut has caught up.
            check_monotonic(previous, &cut)?;
        }
        self.previous = Some(cut);
        Ok((self.audit)(&system)?)
    }
}

/// Checks that positions, committed offsets and ends do not decrease from one audit to the next.
fn check_monotonic(previous: &Cut, cut: &Cut) -> anyhow::Result<()> {
    fn check_map<K: Ord + std::fmt::Debug>(
        what: &str,
        previous: &BTreeMap<K, i64>,
        now: &BTreeMap<K, i64>,
    ) -> anyhow::Result<()> {
        for (key, before) in previous {
            let after = now.get(key).copied().unwrap_or(0);
            if after < *before {
                bail!(
                    "the {what} of {key:?} went back from {before} to {after}: it was reset, or its topic recreated"
                );
            }
        }
        Ok(())
    }
    check_map("read model's position", &previous.positions, &cut.positions)?;
    check_map("group's offset", &previous.committed, &cut.committed)?;
    let ends = |cut: &Cut| -> BTreeMap<String, i64> {
        let ends = cut.ends.iter();
        ends.map(|(topic_partition, ends)| (topic_partition.to_string(), ends.high))
            .collect()
    };
    check_map("end", &ends(previous), &ends(cut))
}

fn log_report(report: &Report, seconds: f64) {
    let (events, at_rest) = (report.events, report.at_rest);
    if report.is_clean() {
        tracing::info!(events, at_rest, seconds, "audited: clean");
    }
    for finding in &report.findings {
        for example in &finding.examples {
            let invariant = finding.id.id();
            let violated = finding.violated;
            tracing::error!(invariant, violated, %example, "{}: violated", finding.name);
        }
    }
}

/// The current time in Unix seconds.
#[allow(clippy::cast_precision_loss)]
fn now() -> f64 {
    jiff::Timestamp::now().as_millisecond() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use contracts::Service;

    use super::*;

    #[test]
    fn a_decreased_position_or_offset_is_an_error() {
        let mut previous = Cut::default();
        previous.positions.insert((Service::Orders, 0), 7);
        previous.committed.insert((Service::Orders, 0), 5);
        assert!(check_monotonic(&previous, &previous).is_ok());
        let mut cut = previous.clone();
        cut.positions.insert((Service::Orders, 0), 6);
        let error = check_monotonic(&previous, &cut).expect_err("a position went back");
        assert!(error.to_string().contains("position"), "{error}");
        cut.positions.insert((Service::Orders, 0), 8);
        cut.committed.clear();
        let error = check_monotonic(&previous, &cut).expect_err("an offset is gone");
        assert!(error.to_string().contains("group"), "{error}");
    }
}
