//! `ordermesh sandbox`: the faults and the ledgers of the payment provider and the carrier.

mod faults;
mod ledger;

use clap::Subcommand;

/// The subcommands of `ordermesh sandbox`.
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

/// Runs a subcommand.
///
/// # Errors
///
/// A setting is invalid, or the sandbox does not answer.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Faults(args) => faults::faults(&args).await,
        Command::Ledger(args) => ledger::ledger(&args).await,
    }
}
