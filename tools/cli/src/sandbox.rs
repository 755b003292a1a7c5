//! `ordermesh sandbox`: how the payment provider and the carrier fail, and what stands in their ledgers.

mod faults;
mod ledger;

use clap::Subcommand;

/// What to do with the sandbox.
#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  ordermesh sandbox faults --provider-outage on
  ordermesh sandbox ledger payments")]
pub enum Command {
    /// Show how the partners behave, or change it from the next call on
    Faults(Box<faults::Args>),
    /// Print what a partner has done
    Ledger(ledger::Args),
}

/// Does it.
///
/// # Errors
///
/// A setting makes no sense, or the sandbox does not answer.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Faults(args) => faults::faults(&args).await,
        Command::Ledger(args) => ledger::ledger(&args).await,
    }
}
