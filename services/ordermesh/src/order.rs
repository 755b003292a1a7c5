//! `ordermesh order`: places orders and looks at them, over the public API.

mod place;
mod show;

use clap::Subcommand;
use uuid::Uuid;

/// What to do with orders.
#[derive(Subcommand)]
pub enum Command {
    /// Place an order
    Place(Box<place::Args>),
    /// Show an order with its lines and its history
    Get(show::GetArgs),
    /// List orders, newest first
    List(show::ListArgs),
}

/// Does it.
///
/// # Errors
///
/// The API refuses or does not answer.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Place(args) => place::place(&args).await,
        Command::Get(args) => show::get(&args).await,
        Command::List(args) => show::list(&args).await,
    }
}

fn order_id(text: &str) -> Result<Uuid, String> {
    Uuid::try_parse(text).map_err(|_| "expected a UUID".to_owned())
}
