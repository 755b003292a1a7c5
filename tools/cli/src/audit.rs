//! `ordermesh audit`: reads everything again and checks every invariant.

#[cfg(test)]
mod fault_seeding;

use std::path::PathBuf;
use std::process::ExitCode;

use load::journal;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::system_audit::{SystemAudit, report_text, sources};
use platform_client::{Sandbox, Stack};
use terminal::{is_broken_pipe, print_line};

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
    let audit = SystemAudit {
        sources: sources(&args.stack, &args.sandbox),
        order_times: args.order_times,
        payment_times: args.payment_times,
        stop: CancellationToken::new(),
    };
    let report = match audit.run(observations, !args.json).await {
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
