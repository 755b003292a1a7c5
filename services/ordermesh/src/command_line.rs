//! The command line.

use clap::{Parser, Subcommand};

use cli::{audit, doctor, events, order, sandbox, status, stock, topics};
use load::{check, demo};

use crate::{completions, metrics, serve};

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
  ordermesh doctor
  ordermesh status --watch
  ordermesh stock adjust mug 100
  ordermesh order place --customer ada --line mug:2:1250 --wait confirmed
  ordermesh order list --status delivered --limit 3
  ordermesh events tail
  ordermesh load --file baskets.csv.gz
  ordermesh check --journal baskets.csv.gz.journal
  ordermesh audit";

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run services in this process
    Serve(Box<serve::Args>),
    /// The topics of the log
    #[command(subcommand)]
    Topics(topics::Command),
    /// Place orders, cancel them and look at them
    #[command(subcommand)]
    Order(order::Command),
    /// What there is of products
    #[command(subcommand)]
    Stock(stock::Command),
    /// The records of the log, decoded
    #[command(subcommand)]
    Events(events::Command),
    /// How the sandbox's payment provider and carrier fail, and what they have done
    #[command(subcommand)]
    Sandbox(sandbox::Command),
    /// Turn a file of baskets into orders, over the public API
    Load(load::Args),
    /// Hold read model, log and ledger against each other, at rest
    Check(check::Args),
    /// Read everything again and hold it against every invariant
    Audit(Box<audit::Args>),
    /// Look whether every part of the platform is there and as it should be
    Doctor(doctor::Args),
    /// Show processes, partitions, lag, rates, breakers and alerts on one screen
    Status(status::Args),
    /// Carry real orders through a fresh stack, and check the result
    Demo(demo::Args),
    /// Print the list of all metrics, in Markdown
    Metrics(metrics::Args),
    /// Print what a shell needs to complete these commands
    Completions(completions::Args),
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
            &["load", "--file", "x", "--api", "nowhere"],
            &["events", "tail", "--topic", "orders.nothing"],
            &["topics", "apply", "--replication", "0"],
            &["status", "--alertmanager", "ftp://x"],
            &["status", "--admin", "nowhere"],
            &["serve", "lag", "--lag-every-ms", "1"],
            &["serve", "auditor", "--audit-every-ms", "1"],
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
    fn a_bad_place_is_named_by_what_stands_there() {
        for (arguments, named) in [
            (&["stock", "adjust", "mug", "0"][..], "<DELTA>"),
            (&["stock", "get", ""], "<SKU>"),
            (&["sandbox", "ledger", "stamps"], "<LEDGER>"),
            (&["completions", "dos"], "<SHELL>"),
        ] {
            let (code, message) = refused(arguments);
            assert_eq!(code, EXIT_BAD_VALUE, "{arguments:?}: {message}");
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_how() {
        let mut ways = vec![(String::new(), Cli::command())];
        let mut seen = 0;
        while let Some((way, command)) = ways.pop() {
            let way = format!("{way} {}", command.get_name());
            let about = command.get_about().map(ToString::to_string);
            assert!(
                about.is_some_and(|about| !about.is_empty() && about.lines().count() == 1),
                "{way} has no about line"
            );
            let help = command.get_after_help().map(ToString::to_string);
            let example = help.unwrap_or_default();
            assert!(
                example.contains(&format!("  {}", way.trim())) || example.contains(&way),
                "{way} has no example"
            );
            example.lines().for_each(example_is_right);
            seen += 1;
            ways.extend(
                command
                    .get_subcommands()
                    .map(|command| (way.clone(), command.clone())),
            );
        }
        assert!(seen > 20, "only {seen} commands were seen");
    }

    /// What stands before a pipe or a redirection is a command line that is understood.
    fn example_is_right(line: &str) {
        let Some(arguments) = line.strip_prefix("  ordermesh ") else {
            return;
        };
        let ours = arguments.split(['|', '>']).next().unwrap_or_default();
        let arguments = std::iter::once("ordermesh").chain(ours.split_whitespace());
        if let Err(invalid) = config::parse::<Cli>(arguments) {
            panic!("{line}: {}", invalid.message);
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
