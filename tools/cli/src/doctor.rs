//! `ordermesh doctor`: looks whether every part of the platform is there and as it should be.

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
use terminal::{Align, Table, say};

/// For each part: what has not answered by then is told as such.
const DEADLINE: Duration = Duration::from_secs(6);

/// Where the parts are.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
✓ is as it should be, ! works but is worth a look, ✗ does not work. Exits with 1 when something does not work.
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

/// What was found out about one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    part: &'static str,
    health: Health,
    detail: String,
    /// What to do about it; empty when there is nothing to do.
    advice: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    Ok,
    Warning,
    Failed,
}

impl Finding {
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

/// Examines everything at once and prints what was found.
///
/// # Errors
///
/// Nobody reads it.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let findings = examine(&args).await;
    let healthy = findings
        .iter()
        .all(|finding| finding.health != Health::Failed);
    say(if args.json {
        json!({ "healthy": healthy, "findings": findings }).to_string()
    } else {
        table(&findings).to_string()
    })?;
    Ok(terminal::verdict(healthy))
}

async fn examine(args: &Args) -> Vec<Finding> {
    let admin = soon(services::ADMIN, services::admin(args.admin.address));
    if args.process {
        return vec![admin.await];
    }
    let cluster = platform_client::cluster(&args.stack.kafka);
    let (broker, topics, registry, database, gateway, admin, clock, ahead) = tokio::join!(
        soon(broker::PART, broker::examine(&cluster)),
        soon(topics::PART, topics::examine(&cluster)),
        soon(
            registry::PART,
            registry::examine(&args.stack.registry, &args.stack.kafka.prefix)
        ),
        soon(database::PART, database::examine(&args.stack.database)),
        soon(services::GATEWAY, services::gateway(&args.api)),
        admin,
        soon(
            clock::DATABASE,
            clock::against_database(&args.stack.database)
        ),
        soon(clock::BROKER, clock::against_broker(&cluster)),
    );
    vec![
        broker, topics, registry, database, gateway, admin, clock, ahead,
    ]
}

/// An examination that has an end.
async fn soon(part: &'static str, examination: impl Future<Output = Finding>) -> Finding {
    within(DEADLINE, part, examination).await
}

async fn within(
    deadline: Duration,
    part: &'static str,
    examination: impl Future<Output = Finding>,
) -> Finding {
    tokio::time::timeout(deadline, examination)
        .await
        .unwrap_or_else(|_| {
            Finding::failed(
                part,
                format!("no answer within {} s", deadline.as_secs()),
                "it is down, or listens and says nothing: look at its log",
            )
        })
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new([("", Align::Left), ("", Align::Left)]);
    for finding in findings {
        let mark = match finding.health {
            Health::Ok => '✓',
            Health::Warning => '!',
            Health::Failed => '✗',
        };
        let advice = match finding.advice.as_str() {
            "" => String::new(),
            advice => format!("; {advice}"),
        };
        table.row([
            format!("{mark} {}", finding.part),
            format!("{}{advice}", finding.detail),
        ]);
    }
    table
}

/// An error and its causes on one line; a cause that only repeats what stands above it is left out.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(&format!(": {words}"));
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
    async fn what_never_answers_is_a_finding() {
        let finding = within(Duration::ZERO, "registry", future::pending()).await;
        assert_eq!((finding.part, finding.health), ("registry", Health::Failed));
        assert_eq!(finding.detail, "no answer within 0 s");
    }

    #[test]
    fn a_finding_is_one_line_with_what_to_do() {
        let findings = [
            Finding::ok("broker", "there"),
            Finding::warning("clock", "behind by 3 s", "set it"),
            Finding::failed("topics", "none", "make them"),
        ];
        let text = table(&findings).to_string();
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
    fn causes_are_told_once_and_on_one_line() {
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
        assert_eq!(chain(&error("no answer")), "no answer: connection refused");
        assert_eq!(
            chain(&error("no answer: connection\nrefused")),
            "no answer: connection refused"
        );
    }
}
