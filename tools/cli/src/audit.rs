//! `ordermesh audit`: reads everything again and checks every invariant.

#[cfg(test)]
mod fault_seeding;

use std::path::PathBuf;
use std::process::ExitCode;

use audit::{ClientObservation, DeciderConfig, Report, RuleBooks};
use auditor::{Sources, System};
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
use terminal::{Align, Table, count, is_unread, say};

/// Something could not be read: nothing is known.
const EXIT_UNCHECKED: u8 = 2;

/// What is audited.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Reads only, joins no group, and works while the system does: everything is taken at one consistent cut. What holds
only at rest is checked when everything is.

Exits with 0 when everything holds, 1 when something is violated, 2 when it could not be checked.

Examples:
  ordermesh audit
  ordermesh audit --journal baskets.csv.gz.journal --json")]
pub struct Args {
    /// A client's journal: what it says was acknowledged must be there
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

/// Audits once and prints what came out.
///
/// # Errors
///
/// The journal is none.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let unchecked = |error: anyhow::Error| {
        eprintln!("error: not checked: {error:#}");
        Ok(ExitCode::from(EXIT_UNCHECKED))
    };
    // Before the cut: what it tells of is there then.
    let notes = match args.journal.as_deref().map(journal::notes).transpose() {
        Ok(notes) => notes,
        Err(error) if error.is_input() => return Err(error.into()),
        Err(error) => return unchecked(error.into()),
    };
    let report = match report(&args, notes).await {
        Ok(report) => report,
        Err(error) => return unchecked(error),
    };
    let said = say(if args.json {
        json!(report).to_string()
    } else {
        text(&report)
    });
    match said {
        // Nobody need hear the end of it: the exit code tells as well.
        Err(error) if report.is_clean() && !is_unread(&error) => unchecked(error),
        _ => Ok(terminal::verdict(report.is_clean())),
    }
}

async fn report(args: &Args, notes: Option<Vec<ClientObservation>>) -> anyhow::Result<Report> {
    let mut system = System::open(&sources(&args.stack, &args.sandbox), notes).await?;
    if !args.json {
        let total = usize::try_from(system.commands()).unwrap_or(usize::MAX);
        let progress = Progress::new("commands", total);
        system.report_progress(move |commands| {
            progress.reach(usize::try_from(commands).unwrap_or(usize::MAX));
        });
    }
    let books = rule_books(&system, args.order_times, args.payment_times);
    Ok(block_in_place(|| ::audit::audit(&system, &books))?)
}

/// Where the auditor finds the parts of a platform.
pub fn sources(stack: &Stack, sandbox: &Sandbox) -> Sources {
    Sources {
        stack: stack.clone(),
        read_model_schema: query::SCHEMA,
        sandbox: sandbox.clone(),
    }
}

/// The rule books of the services.
pub type Books = RuleBooks<OrderRules, StockRules, PaymentRules, ShipmentRules>;

/// The rule books of the services with their settings, and what deciding again needs besides.
pub fn rule_books(system: &System, orders: orders::Config, payments: payments::Config) -> Books {
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

/// The report as people read it: a line for each invariant, then what is wrong.
fn text(report: &Report) -> String {
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
        "under way: what holds only at rest was left out"
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
