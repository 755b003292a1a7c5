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

use audit::{Cut, Error, Evidence as _, Example, Invariant, Report};
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
        let went_back = self
            .previous
            .as_ref()
            .map(|previous| went_back(previous, &cut))
            .unwrap_or_default();
        // `previous` stays as it is until the cut has caught up, so that every audit reports it.
        if went_back.is_empty() {
            self.previous = Some(cut);
        }
        let mut report = (self.audit)(&system)?;
        for example in went_back {
            report.add_violation(Invariant::I9, example);
        }
        Ok(report)
    }
}

/// The positions, committed offsets and ends that are lower than in the previous audit: a group was reset, or a topic or
/// the read model recreated.
fn went_back(previous: &Cut, cut: &Cut) -> Vec<Example> {
    fn lower<K: Ord + std::fmt::Debug>(
        what: &str,
        previous: &BTreeMap<K, i64>,
        now: &BTreeMap<K, i64>,
    ) -> Vec<Example> {
        let before_and_after = previous
            .iter()
            .map(|(key, before)| (key, *before, now.get(key).copied().unwrap_or(0)));
        before_and_after
            .filter(|(_, before, after)| after < before)
            .map(|(key, before, after)| {
                Example::new(format!(
                    "the {what} of {key:?} went back from {before} to {after}"
                ))
            })
            .collect()
    }
    let ends = |cut: &Cut| -> BTreeMap<String, i64> {
        let ends = cut.ends.iter();
        ends.map(|(topic_partition, ends)| (topic_partition.to_string(), ends.high))
            .collect()
    };
    [
        lower("read model's position", &previous.positions, &cut.positions),
        lower("group's offset", &previous.committed, &cut.committed),
        lower("end", &ends(previous), &ends(cut)),
    ]
    .concat()
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
    fn a_decreased_position_or_offset_is_found() {
        let mut previous = Cut::default();
        previous.positions.insert((Service::Orders, 0), 7);
        previous.committed.insert((Service::Orders, 0), 5);
        let found = |cut: &Cut| -> Vec<_> {
            let examples = went_back(&previous, cut);
            examples.iter().map(ToString::to_string).collect()
        };
        assert!(found(&previous).is_empty());
        let mut cut = previous.clone();
        cut.positions.insert((Service::Orders, 0), 6);
        assert_eq!(
            found(&cut),
            ["the read model's position of (Orders, 0) went back from 7 to 6"]
        );
        cut.positions.insert((Service::Orders, 0), 8);
        cut.committed.clear();
        assert_eq!(
            found(&cut),
            ["the group's offset of (Orders, 0) went back from 5 to 0"]
        );
    }
}
