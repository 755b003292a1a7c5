//! `ordermesh topics apply`: creates the topics and registers the schemas of their records.

use chassis::config;
use clap::Subcommand;
use serde_json::json;

use terminal::print_line;

/// The subcommands of `ordermesh topics`.
#[derive(Subcommand)]
#[command(after_help = "\
Example:
  ordermesh topics apply")]
pub enum Command {
    /// Create the topics that are missing and register all contracts; running it again changes nothing
    Apply(Args),
}

/// Flags of `ordermesh topics apply`.
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

/// Creates the missing topics, registers the schemas, and prints the topics.
///
/// # Errors
///
/// The broker or the registry does not answer, a topic has another number of partitions, or a schema is incompatible.
pub async fn apply(args: &Args) -> anyhow::Result<()> {
    let applied =
        platform_client::create_topics(&args.kafka, &args.registry, args.replication).await?;
    if args.json {
        let (created, present) = (applied.created, applied.present);
        let registry = &args.registry.url;
        return print_line(
            json!({ "created": created, "present": present, "registry": registry }).to_string(),
        );
    }
    for topic in &applied.created {
        print_line(format!("created  {topic}"))?;
    }
    for topic in &applied.present {
        print_line(format!("present  {topic}"))?;
    }
    print_line(format!("contracts are registered at {}", args.registry.url))
}
