//! An audit of the running system with the rule books of the services, and its report as text.

use std::time::{Duration, Instant};

use audit::{ClientObservation, DeciderConfig, Report, RuleBooks};
use auditor::{Sources, SystemEvidence};
use engine::worker::Settings;
use inventory::StockRules;
use orders::OrderRules;
use payments::PaymentRules;
use shipping::ShipmentRules;
use tokio::task::block_in_place;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use platform_client::{Sandbox, Stack};
use terminal::progress::Progress;
use terminal::{Align, Table, count};

/// Pause before an audit that was not at rest is repeated.
const PAUSE: Duration = Duration::from_millis(500);

/// What an audit of the running system needs.
pub struct SystemAudit {
    /// The parts of the platform.
    pub sources: Sources,
    /// The times of the orders' rule book. They must be those of the services.
    pub order_times: orders::Config,
    /// The times of the payments' rule book. They must be those of the services.
    pub payment_times: payments::Config,
    /// Cancels the audit.
    pub stop: CancellationToken,
}

impl SystemAudit {
    /// Audits once, and shows the progress if wanted. The observations must be read before this call, because the cut must
    /// be later.
    ///
    /// # Errors
    ///
    /// A part does not answer, or the audit is cancelled.
    pub async fn run(
        &self,
        observations: Option<Vec<ClientObservation>>,
        shows_progress: bool,
    ) -> anyhow::Result<Report> {
        let mut system = SystemEvidence::open(&self.sources, observations).await?;
        system.stop_with(&self.stop);
        if shows_progress {
            let total = usize::try_from(system.commands()).unwrap_or(usize::MAX);
            let progress = Progress::new("commands", total);
            system.report_progress(move |commands| {
                progress.set_position(usize::try_from(commands).unwrap_or(usize::MAX));
            });
        }
        let rule_books = rule_books(&system, self.order_times, self.payment_times);
        Ok(block_in_place(|| ::audit::audit(&system, &rule_books))?)
    }

    /// Audits until everything is at rest or something is violated. After `patience` the last report is returned, in
    /// progress or not.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn run_at_rest(
        &self,
        observations: &[ClientObservation],
        patience: Duration,
    ) -> anyhow::Result<Report> {
        let deadline = Instant::now() + patience;
        loop {
            let report = self.run(Some(observations.to_vec()), true).await?;
            if report.at_rest || !report.is_clean() || Instant::now() >= deadline {
                return Ok(report);
            }
            sleep(PAUSE).await;
        }
    }
}

/// The parts of a platform, for the auditor.
pub fn sources(stack: &Stack, sandbox: &Sandbox) -> Sources {
    Sources {
        stack: stack.clone(),
        read_model_schema: query::SCHEMA,
        sandbox: sandbox.clone(),
    }
}

/// The rule books of the services.
pub type ServiceRuleBooks = RuleBooks<OrderRules, StockRules, PaymentRules, ShipmentRules>;

/// The rule books of the services with their settings, and the other inputs of a decision.
pub fn rule_books(
    system: &SystemEvidence,
    orders: orders::Config,
    payments: payments::Config,
) -> ServiceRuleBooks {
    let settings = Settings::default();
    RuleBooks {
        orders: DeciderConfig::new(orders.rules(), &orders.settings()),
        inventory: DeciderConfig::new(StockRules::default(), &settings),
        payments: DeciderConfig::new(payments.rules(), &settings),
        shipping: DeciderConfig::new(ShipmentRules, &settings),
        codec: system.codec(),
        cluster: system.cluster().clone().into(),
        has_constant_times: false,
    }
}

/// The report as text: a line for each invariant, then the violations.
pub fn report_text(report: &Report) -> String {
    let mut table = Table::new([
        ("", Align::Left),
        ("checked", Align::Right),
        ("violated", Align::Right),
        ("", Align::Left),
    ]);
    for finding in &report.findings {
        let mark = match (finding.violated, finding.checked) {
            (0, 0) => '-',
            (0, _) => '✓',
            _ => '✗',
        };
        let mut notes = Vec::from_iter(finding.note.clone());
        if finding.unchecked > 0 {
            notes.push(format!("{} not checked", count(finding.unchecked)));
        }
        table.row([
            format!("{mark} {:<3} {}", finding.id.id(), finding.name),
            count(finding.checked),
            count(finding.violated),
            notes.join("; "),
        ]);
    }
    let state = if report.at_rest {
        "at rest"
    } else {
        "in progress: invariants that hold only at rest were not checked"
    };
    let mut text = format!(
        "{table}\n{} records, {} commands, {} events of {} aggregates, at most {} in memory; {state}",
        count(report.records),
        count(report.commands),
        count(report.events),
        count(report.aggregates),
        count(report.most_live),
    );
    for finding in report
        .findings
        .iter()
        .filter(|finding| finding.violated > 0)
    {
        text.push_str(&format!("\n\n{} {}:", finding.id.id(), finding.name));
        for example in &finding.examples {
            text.push_str(&format!("\n  {example}"));
        }
        let more = finding.violated - finding.examples.len() as u64;
        if more > 0 {
            text.push_str(&format!("\n  and {} more", count(more)));
        }
    }
    text
}
