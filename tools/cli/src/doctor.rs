//! `ordermesh doctor`: checks that every part of the platform is reachable and correctly set up.

mod broker;
mod clock;
mod database;
mod registry;
mod services;
mod topics;

use std::process::ExitCode;
use std::time::Duration;

use chassis::config;
use serde::Serialize;
use serde_json::json;

use platform_client::{Api, Stack};
use terminal::{Align, Table, print_line};

/// Time limit for the check of one part; a part without an answer by then has failed.
const DEADLINE: Duration = Duration::from_secs(6);

/// Flags of `ordermesh doctor`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
✓ is right, ! works but is worth a look, ✗ does not work. Exits with 1 when something does not work.
Nothing is changed.

Examples:
  ordermesh doctor
  ordermesh doctor --process
  ordermesh doctor --json | jq '.findings[] | select(.health != \"ok\")'")]
pub struct Args {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    /// Look only whether the process at --admin takes work, as the health check of a container does
    #[arg(long)]
    process: bool,
    #[command(flatten)]
    stack: Stack,
    #[command(flatten)]
    admin: config::Admin,
    #[command(flatten)]
    api: Api,
}

/// The result of the check of one part. The fields are keys of `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct CheckResult {
    part: &'static str,
    health: Health,
    detail: String,
    /// What to do; empty when nothing is to do.
    advice: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    Ok,
    Warning,
    Failed,
}

impl CheckResult {
    fn ok(part: &'static str, detail: impl Into<String>) -> Self {
        Self {
            part,
            health: Health::Ok,
            detail: detail.into(),
            advice: String::new(),
        }
    }

    fn warning(part: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            part,
            health: Health::Warning,
            detail: detail.into(),
            advice: advice.into(),
        }
    }

    fn failed(part: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            health: Health::Failed,
            ..Self::warning(part, detail, advice)
        }
    }
}

/// Checks all parts concurrently and prints the results.
///
/// # Errors
///
/// Standard output is closed.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let results = check_all(&args).await;
    let healthy = results.iter().all(|result| result.health != Health::Failed);
    print_line(if args.json {
        json!({ "healthy": healthy, "findings": results }).to_string()
    } else {
        table(&results).to_string()
    })?;
    Ok(terminal::exit_code(healthy))
}

async fn check_all(args: &Args) -> Vec<CheckResult> {
    let admin = with_deadline(services::ADMIN, services::admin(args.admin.address));
    if args.process {
        return vec![admin.await];
    }
    let cluster = platform_client::cluster(&args.stack.kafka);
    let (broker, topics, registry, database, gateway, admin, clock, broker_clock) = tokio::join!(
        with_deadline(broker::PART, broker::check(&cluster)),
        with_deadline(topics::PART, topics::check(&cluster)),
        with_deadline(
            registry::PART,
            registry::check(&args.stack.registry, &args.stack.kafka.prefix)
        ),
        with_deadline(database::PART, database::check(&args.stack.database)),
        with_deadline(services::GATEWAY, services::gateway(&args.api)),
        admin,
        with_deadline(
            clock::DATABASE,
            clock::against_database(&args.stack.database)
        ),
        with_deadline(clock::BROKER, clock::against_broker(&cluster)),
    );
    vec![
        broker,
        topics,
        registry,
        database,
        gateway,
        admin,
        clock,
        broker_clock,
    ]
}

/// A check that fails after [`DEADLINE`].
async fn with_deadline(
    part: &'static str,
    check: impl Future<Output = CheckResult>,
) -> CheckResult {
    with_timeout(DEADLINE, part, check).await
}

async fn with_timeout(
    deadline: Duration,
    part: &'static str,
    check: impl Future<Output = CheckResult>,
) -> CheckResult {
    tokio::time::timeout(deadline, check)
        .await
        .unwrap_or_else(|_| {
            CheckResult::failed(
                part,
                format!("no answer within {} s", deadline.as_secs()),
                "it is down, or accepts connections and does not answer: look at its log",
            )
        })
}

fn table(results: &[CheckResult]) -> Table {
    let mut table = Table::new([("", Align::Left), ("", Align::Left)]);
    for result in results {
        let mark = match result.health {
            Health::Ok => '✓',
            Health::Warning => '!',
            Health::Failed => '✗',
        };
        let advice = match result.advice.as_str() {
            "" => String::new(),
            advice => format!("; {advice}"),
        };
        table.row([
            format!("{mark} {}", result.part),
            format!("{}{advice}", result.detail),
        ]);
    }
    table
}

/// An error and its causes on one line, without causes whose text is already part of it.
fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(&format!(": {message}"));
        }
        cause = error.source();
    }
    text.lines().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;

    #[tokio::test]
    async fn a_part_that_does_not_answer_has_failed() {
        let result = with_timeout(Duration::ZERO, "registry", future::pending()).await;
        assert_eq!((result.part, result.health), ("registry", Health::Failed));
        assert_eq!(result.detail, "no answer within 0 s");
    }

    #[test]
    fn a_result_is_one_line_with_its_advice() {
        let results = [
            CheckResult::ok("broker", "there"),
            CheckResult::warning("clock", "behind by 3 s", "set it"),
            CheckResult::failed("topics", "none", "make them"),
        ];
        let text = table(&results).to_string();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "✓ broker  there",
                "! clock   behind by 3 s; set it",
                "✗ topics  none; make them"
            ]
        );
    }

    #[test]
    fn causes_are_listed_once_and_on_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Outer {
            text: &'static str,
            source: std::io::Error,
        }
        let error = |text| Outer {
            text,
            source: std::io::Error::other("connection\nrefused"),
        };
        assert_eq!(
            error_chain(&error("no answer")),
            "no answer: connection refused"
        );
        assert_eq!(
            error_chain(&error("no answer: connection\nrefused")),
            "no answer: connection refused"
        );
    }
}
