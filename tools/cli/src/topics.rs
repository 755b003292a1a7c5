//! `ordermesh topics apply`: makes the topics and registers the contracts of what stands in them.

use chassis::config;
use clap::Subcommand;
use serde_json::json;

use terminal::say;

/// What to do with the topics.
#[derive(Subcommand)]
#[command(after_help = "\
Example:
  ordermesh topics apply")]
pub enum Command {
    /// Make the topics that are missing and register all contracts; running it again changes nothing
    Apply(Args),
}

/// How the topics are made.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Example:
  ordermesh topics apply --kafka broker-1:9092,broker-2:9092 --partitions 12 --replication 3")]
pub struct Args {
    #[command(flatten)]
    kafka: config::Kafka,
    #[command(flatten)]
    registry: config::Registry,
    /// Copies of every partition
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=100))]
    replication: i32,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Makes what is missing and says what there is.
///
/// # Errors
///
/// Broker or registry do not answer, a topic has another number of partitions, a contract does not fit.
pub async fn apply(args: &Args) -> anyhow::Result<()> {
    let applied =
        platform_client::create_topics(&args.kafka, &args.registry, args.replication).await?;
    if args.json {
        let (created, present) = (applied.created, applied.present);
        let registry = &args.registry.url;
        return say(
            json!({ "created": created, "present": present, "registry": registry }).to_string(),
        );
    }
    for topic in &applied.created {
        say(format!("created  {topic}"))?;
    }
    for topic in &applied.present {
        say(format!("present  {topic}"))?;
    }
    say(format!("contracts are registered at {}", args.registry.url))
}
