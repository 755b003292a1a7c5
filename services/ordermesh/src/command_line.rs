//! The command line.

use clap::{Parser, Subcommand};

use cli::{audit, demo, doctor, events, order, sandbox, status, stock, topics};

use crate::{completions, metrics, serve};

/// An event-sourced order platform: all services, the load generator, the demo, and the operator tools.
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
  ordermesh doctor
  ordermesh status --watch
  ordermesh stock adjust mug 100
  ordermesh order place --customer ada --line mug:2:1250 --wait confirmed
  ordermesh order list --status delivered --limit 3
  ordermesh events tail
  ordermesh load --file baskets.csv.gz --verify 60
  ordermesh audit --journal baskets.csv.gz.journal";

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Run services in this process
    Serve(Box<serve::Args>),
    /// Manage the topics of the log
    #[command(subcommand)]
    Topics(topics::Command),
    /// Place, cancel and show orders
    #[command(subcommand)]
    Order(order::Command),
    /// Show and adjust stock
    #[command(subcommand)]
    Stock(stock::Command),
    /// Read the records of the log, decoded
    #[command(subcommand)]
    Events(events::Command),
    /// Set the faults of the sandbox's payment provider and carrier, and read their ledgers
    #[command(subcommand)]
    Sandbox(sandbox::Command),
    /// Place the orders of a basket file over the public API
    Load(load::Args),
    /// Read everything again and check every invariant
    Audit(Box<audit::Args>),
    /// Check that every part of the platform is reachable and configured correctly
    Doctor(doctor::Args),
    /// Show processes, partitions, lag, rates, breakers and alerts on one screen
    Status(status::Args),
    /// Run demo orders through a fresh stack, verify and audit them
    Demo(demo::Args),
    /// Print the list of all metrics, in Markdown
    Metrics(metrics::Args),
    /// Print a shell completion script
    Completions(completions::Args),
    /// Write man pages
    #[command(hide = true)]
    ManPages(completions::ManPagesArgs),
}

#[cfg(test)]
mod tests {
    use chassis::config::{self, EXIT_BAD_USAGE, EXIT_BAD_VALUE};
    use clap::CommandFactory as _;

    use super::*;

    fn parse_error(arguments: &[&str]) -> (u8, String) {
        let arguments = std::iter::once("ordermesh").chain(arguments.iter().copied());
        match config::parse::<Cli>(arguments) {
            Ok(_) => panic!("it was accepted"),
            Err(invalid) => (invalid.exit_code, invalid.message),
        }
    }

    #[test]
    fn the_command_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bad_value_gives_one_line_that_names_the_flag() {
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
            &["order", "place", "--wait", "for ever"],
            &["order", "list", "--from", "yesterday"],
            &["order", "list", "--before", "2025-02-30"],
            &["stock", "adjust", "mug", "1", "--id", "0191"],
            &["sandbox", "faults", "--decline", "101"],
            &["sandbox", "faults", "--provider-error", "1000"],
            &["sandbox", "faults", "--provider-slow-ms", "0"],
            &["sandbox", "faults", "--carrier-outage", "maybe"],
            &["sandbox", "ledger", "payments", "--order", "0191"],
            &["load", "--file", "x", "--rate", "0"],
            &["load", "--file", "x", "--rate", "NaN"],
            &["load", "--file", "x", "--verify", "soon"],
            &["load", "--file", "x", "--verify", "86401"],
            &["load", "--file", "x", "--api", "nowhere"],
            &["events", "tail", "--topic", "orders.nothing"],
            &["topics", "apply", "--replication", "0"],
            &["status", "--alertmanager", "ftp://x"],
            &["status", "--admin", "nowhere"],
            &["serve", "lag", "--lag-every-ms", "1"],
            &["serve", "auditor", "--audit-every-ms", "1"],
        ] {
            let (code, message) = parse_error(arguments);
            assert_eq!(code, EXIT_BAD_VALUE, "{arguments:?}: {message}");
            assert_eq!(message.lines().count(), 1, "{message}");
            let named = arguments
                .iter()
                .rfind(|argument| argument.starts_with("--"));
            assert!(message.contains(named.unwrap_or(&"<ID>")), "{message}");
        }
    }

    #[test]
    fn a_bad_positional_argument_is_named_by_its_placeholder() {
        for (arguments, named) in [
            (&["stock", "adjust", "mug", "0"][..], "<DELTA>"),
            (&["stock", "get", ""], "<SKU>"),
            (&["sandbox", "ledger", "stamps"], "<LEDGER>"),
            (&["completions", "dos"], "<SHELL>"),
        ] {
            let (code, message) = parse_error(arguments);
            assert_eq!(code, EXIT_BAD_VALUE, "{arguments:?}: {message}");
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn every_command_has_a_description_and_an_example() {
        let mut pending = vec![(String::new(), Cli::command())];
        let mut count = 0;
        while let Some((path, command)) = pending.pop() {
            let path = format!("{path} {}", command.get_name());
            let about = command.get_about().map(ToString::to_string);
            assert!(
                about.is_some_and(|about| !about.is_empty() && about.lines().count() == 1),
                "{path} has no about line"
            );
            let help = command.get_after_help().map(ToString::to_string);
            let example = help.unwrap_or_default();
            assert!(
                example.contains(&format!("  {}", path.trim())) || example.contains(&path),
                "{path} has no example"
            );
            example.lines().for_each(assert_example_is_valid);
            count += 1;
            pending.extend(
                command
                    .get_subcommands()
                    .map(|command| (path.clone(), command.clone())),
            );
        }
        assert!(count > 20, "only {count} commands were found");
    }

    /// An example up to a pipe or a redirection must be a valid command line.
    fn assert_example_is_valid(line: &str) {
        let Some(arguments) = line.strip_prefix("  ordermesh ") else {
            return;
        };
        let command_line = arguments.split(['|', '>']).next().unwrap_or_default();
        let arguments = std::iter::once("ordermesh").chain(command_line.split_whitespace());
        if let Err(invalid) = config::parse::<Cli>(arguments) {
            panic!("{line}: {}", invalid.message);
        }
    }

    #[test]
    fn an_unknown_flag_is_bad_usage() {
        assert_eq!(parse_error(&["load", "--files", "x"]).0, EXIT_BAD_USAGE);
        assert_eq!(
            parse_error(&["events", "tail", "--follow", "--no-follow"]).0,
            EXIT_BAD_USAGE
        );
        assert_eq!(parse_error(&["--help"]).0, 0);
    }
}
