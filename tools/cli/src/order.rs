//! `ordermesh order`: places, cancels and shows orders.

mod cancel;
mod event_text;
pub mod explain;
mod list;
mod place;
mod show;
mod watch;

use clap::Subcommand;
use contracts::rules::uuid_v7;
use uuid::Uuid;

/// The subcommands of `ordermesh order`.
#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  ordermesh order place --customer ada --line mug:2:1250
  ordermesh order watch 0191b2f0-5a4e-7cc3-9d1f-6f0f1f6f0a11
  ordermesh order explain 0191b2f0-5a4e-7cc3-9d1f-6f0f1f6f0a11")]
pub enum Command {
    /// Place an order
    Place(Box<place::Args>),
    /// Show an order with its lines and its history
    Get(show::Args),
    /// List orders, newest first
    List(list::Args),
    /// Request the cancellation of an order
    Cancel(cancel::Args),
    /// Print the events of an order as they happen, until its end
    Watch(watch::Args),
    /// Explain an order: its events in all services, with the cause of each
    Explain(explain::Args),
}

/// Runs a subcommand.
///
/// # Errors
///
/// The API refuses, or the API or the log does not answer.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Place(args) => place::place(&args).await,
        Command::Get(args) => show::get(&args).await,
        Command::List(args) => list::list(&args).await,
        Command::Cancel(args) => cancel::cancel(&args).await,
        Command::Watch(args) => watch::watch(&args).await,
        Command::Explain(args) => explain::explain(&args).await,
    }
}

/// Parses an order id.
///
/// # Errors
///
/// The text is not a UUIDv7.
pub fn order_id(text: &str) -> Result<Uuid, String> {
    uuid_v7(text).ok_or_else(|| "expected an order's id, a UUIDv7".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_id_is_a_uuid_of_version_7() {
        let id = Uuid::now_v7();
        assert_eq!(order_id(&id.to_string().to_uppercase()), Ok(id));
        for text in ["", "0191", "f47ac10b-58cc-4372-a567-0e02b2c3d479"] {
            assert!(order_id(text).is_err(), "{text}");
        }
    }
}
