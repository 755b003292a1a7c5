//! `ordermesh audit`: reads everything again and checks every invariant.

#[cfg(test)]
mod fault_seeding;

use std::path::PathBuf;
use std::process::ExitCode;

use audit::{ClientObservation, DeciderConfig, Report, RuleBooks};
use auditor::{Sources, SystemEvidence};
use engine::worker::Settings;
use inventory::StockRules;
use load::journal;
use orders::OrderRules;
use payments::PaymentRules;
use serde_json::json;
use shipping::ShipmentRules;
use tokio::task::block_in_place;

use platform_client::{Sandbox, Stack};
use terminal::progress::Progress;
use terminal::{Align, Table, count, is_broken_pipe, print_line};

/// Exit code when the audit could not be completed.
const EXIT_UNCHECKED: u8 = 2;

/// Arguments of the audit.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
The audit only reads, joins no group, and works on a running system: it reads everything at one consistent cut.
Invariants that hold only at rest are checked only at rest.

Exits with 0 when every invariant holds, 1 when one is violated, 2 when the audit could not be completed.

Examples:
  ordermesh audit
  ordermesh audit --journal baskets.csv.gz.journal --json")]
pub struct Args {
    /// The journal of a client: its acknowledged orders must exist
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: Stack,
    #[command(flatten)]
    sandbox: Sandbox,
    #[command(flatten)]
    order_times: orders::Config,
    #[command(flatten)]
    payment_times: payments::Config,
}

/// Audits once and prints the report.
///
/// # Errors
///
/// The file is not a journal.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let unchecked = |error: anyhow::Error| {
        eprintln!("error: not checked: {error:#}");
        Ok(ExitCode::from(EXIT_UNCHECKED))
    };
    // The journal is read before the cut, so that the cut has all that it refers to.
    let observations = match args
        .journal
        .as_deref()
        .map(journal::client_observations)
        .transpose()
    {
        Ok(observations) => observations,
        Err(error) if error.is_input() => return Err(error.into()),
        Err(error) => return unchecked(error.into()),
    };
    let report = match report(&args, observations).await {
        Ok(report) => report,
        Err(error) => return unchecked(error),
    };
    let printed = print_line(if args.json {
        json!(report).to_string()
    } else {
        report_text(&report)
    });
    match printed {
        // A broken pipe is no failure: the exit code has the result.
        Err(error) if report.is_clean() && !is_broken_pipe(&error) => unchecked(error),
        _ => Ok(terminal::exit_code(report.is_clean())),
    }
}

async fn report(
    args: &Args,
    observations: Option<Vec<ClientObservation>>,
) -> anyhow::Result<Report> {
    let mut system =
        SystemEvidence::open(&sources(&args.stack, &args.sandbox), observations).await?;
    if !args.json {
        let total = usize::try_from(system.commands()).unwrap_or(usize::MAX);
        let progress = Progress::new("commands", total);
        system.report_progress(move |commands| {
            progress.set_position(usize::try_from(commands).unwrap_or(usize::MAX));
        });
    }
    let rule_books = rule_books(&system, args.order_times, args.payment_times);
    Ok(block_in_place(|| ::audit::audit(&system, &rule_books))?)
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
fn report_text(report: &Report) -> String {
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
        "{table}\n{} records, {} commands, {} events of {} aggregates, {} of them in memory at once; {state}",
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
