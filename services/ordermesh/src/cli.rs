//! The command line.

use clap::{Parser, Subcommand};

use crate::{check, demo, events, load, order, serve, topics};

/// An event-sourced order platform: every service, the loader, the demo, and the tools to look inside.
#[derive(Parser)]
#[command(name = "ordermesh", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ordermesh topics apply
  ordermesh serve all
  ordermesh order place --customer ada --line mug:2:1250
  ordermesh events tail
  ordermesh load --file baskets.csv.gz
  ordermesh check --journal baskets.csv.gz.journal";

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run services in this process
    Serve(serve::Args),
    /// The topics of the log
    #[command(subcommand)]
    Topics(topics::Command),
    /// Place orders and look at them, over the public API
    #[command(subcommand)]
    Order(order::Command),
    /// The records of the log, decoded
    #[command(subcommand)]
    Events(events::Command),
    /// Turn a file of baskets into orders, over the public API
    Load(load::Args),
    /// Hold read model, log and ledger against each other, at rest
    Check(check::Args),
    /// Carry real orders through a fresh stack, and check the result
    Demo(demo::Args),
}

#[cfg(test)]
mod tests {
    use chassis::config::{self, EXIT_BAD_USAGE, EXIT_BAD_VALUE};
    use clap::CommandFactory as _;

    use super::*;

    fn refused(arguments: &[&str]) -> (u8, String) {
        let arguments = std::iter::once("ordermesh").chain(arguments.iter().copied());
        match config::parse::<Cli>(arguments) {
            Ok(_) => panic!("it was accepted"),
            Err(invalid) => (invalid.exit_code, invalid.message),
        }
    }

    #[test]
    fn the_commands_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bad_value_is_one_line_that_names_the_flag() {
        for arguments in [
            &[
                "order",
                "place",
                "--customer",
                "ada",
                "--line",
                "mug:two:1250",
            ][..],
            &["order", "list", "--status", "lost"],
            &["order", "get", "0191"],
            &["load", "--file", "x", "--rate", "0"],
            &["load", "--file", "x", "--rate", "NaN"],
            &["load", "--file", "x", "--api", "nowhere"],
            &["events", "tail", "--topic", "orders.nothing"],
            &["topics", "apply", "--replication", "0"],
        ] {
            let (code, message) = refused(arguments);
            assert_eq!(code, EXIT_BAD_VALUE, "{arguments:?}: {message}");
            assert_eq!(message.lines().count(), 1, "{message}");
            let named = arguments
                .iter()
                .rfind(|argument| argument.starts_with("--"));
            assert!(message.contains(named.unwrap_or(&"<ID>")), "{message}");
        }
    }

    #[test]
    fn an_unknown_flag_is_bad_usage() {
        assert_eq!(refused(&["load", "--files", "x"]).0, EXIT_BAD_USAGE);
        assert_eq!(
            refused(&["events", "tail", "--follow", "--no-follow"]).0,
            EXIT_BAD_USAGE
        );
        assert_eq!(refused(&["--help"]).0, 0);
    }
}
