//! The auditor as a role: audits again and again, and reports violations in logs and metrics.
//!
//! `system` takes one consistent cut of log, read model and ledgers; the rules are those of the crate `audit`.

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

pub use system::{Sources, System};

/// Environment: see [`Config`].
mod env {
    pub const EVERY_MS: &str = "ORDERMESH_AUDIT_EVERY_MS";
}

/// How often everything is audited.
#[derive(clap::Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct Config {
    /// Rest of the auditor after each audit, in milliseconds
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

/// Audits a system by the rule books of the services.
pub type Audit = Box<dyn Fn(&System) -> Result<Report, Error> + Send>;

/// Runs the auditor on a thread of its own until the process ends.
///
/// # Errors
///
/// The metrics are registered already, or the system gives no thread. What cannot be read is tried again: that is what
/// the auditor is there to tell.
pub fn serve(
    process: &Process,
    sources: Sources,
    audit: Audit,
    config: Config,
) -> anyhow::Result<()> {
    process.readiness().component("auditor").ready();
    let auditor = Auditor {
        metrics: Metrics::new(process.registry(), now())?,
        sources,
        audit,
        every: Duration::from_millis(config.every_ms),
        runtime: Handle::current(),
        last: None,
    };
    process.spawn_thread("auditor", move |shutdown| auditor.run(&shutdown))?;
    Ok(())
}

struct Auditor {
    metrics: Metrics,
    sources: Sources,
    audit: Audit,
    every: Duration,
    runtime: Handle,
    /// The cut of the last audit.
    last: Option<Cut>,
}

impl Auditor {
    fn run(mut self, shutdown: &CancellationToken) {
        // Clients are made from this thread.
        let runtime = self.runtime.clone();
        let _inside = runtime.enter();
        while !shutdown.is_cancelled() {
            let begun = Instant::now();
            match self.audit(shutdown) {
                Ok(report) => {
                    let seconds = begun.elapsed().as_secs_f64();
                    self.metrics.completed(&report, now(), seconds);
                    tell(&report, seconds);
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
        let opening = System::open(&self.sources, None);
        let mut system = self.runtime.block_on(opening)?;
        system.stop_with(shutdown);
        let cut = system.cut().clone();
        if let Some(last) = &self.last {
            // Told again and again, until it has come as far as it was.
            forward(last, &cut)?;
        }
        self.last = Some(cut);
        Ok((self.audit)(&system)?)
    }
}

/// Nothing goes back from one audit to the next: neither positions nor offsets nor ends.
fn forward(last: &Cut, cut: &Cut) -> anyhow::Result<()> {
    fn moved<K: Ord + std::fmt::Debug>(
        what: &str,
        last: &BTreeMap<K, i64>,
        now: &BTreeMap<K, i64>,
    ) -> anyhow::Result<()> {
        for (key, before) in last {
            let after = now.get(key).copied().unwrap_or(0);
            if after < *before {
                bail!(
                    "the {what} of {key:?} went back from {before} to {after}: it was reset, or its topic made anew"
                );
            }
        }
        Ok(())
    }
    moved("read model's position", &last.positions, &cut.positions)?;
    moved("group's offset", &last.committed, &cut.committed)?;
    let ends = |cut: &Cut| -> BTreeMap<String, i64> {
        let ends = cut.ends.iter();
        ends.map(|(place, ends)| (place.to_string(), ends.high))
            .collect()
    };
    moved("end", &ends(last), &ends(cut))
}

fn tell(report: &Report, seconds: f64) {
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

/// Unix seconds.
#[allow(clippy::cast_precision_loss)]
fn now() -> f64 {
    jiff::Timestamp::now().as_millisecond() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use contracts::Service;

    use super::*;

    #[test]
    fn what_went_back_since_the_last_audit_is_told() {
        let mut last = Cut::default();
        last.positions.insert((Service::Orders, 0), 7);
        last.committed.insert((Service::Orders, 0), 5);
        assert!(forward(&last, &last).is_ok());
        let mut cut = last.clone();
        cut.positions.insert((Service::Orders, 0), 6);
        let error = forward(&last, &cut).expect_err("a position went back");
        assert!(error.to_string().contains("position"), "{error}");
        cut.positions.insert((Service::Orders, 0), 8);
        cut.committed.clear();
        let error = forward(&last, &cut).expect_err("an offset is gone");
        assert!(error.to_string().contains("group"), "{error}");
    }
}
