//! `ordermesh order explain`: the events of an order in all services, with the cause of each.

mod reader;
mod summary;
mod timeline;

use anyhow::bail;
use chassis::config;
use platform_client::decoder::Decoder;
use serde::Serialize;
use terminal::{Align, Table, count, print_line, time};
use uuid::Uuid;

use super::order_id;
use reader::OrderRecords;
use summary::Summary;
use timeline::{EventBody, Step, timeline};

/// Flags of `ordermesh order explain`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Reads the log itself: the events of the order, its stock items, its payment and its shipment, and the commands that
led to them. Commands are kept for a week, events for ever.

Examples:
  ordermesh order explain 0191b2f0-5a4e-7cc3-9d1f-6f0f1f6f0a11
  ordermesh order explain 0191b2f0-5a4e-7cc3-9d1f-6f0f1f6f0a11 --json | jq .summary")]
pub struct Args {
    /// The order's id
    #[arg(value_name = "ID", value_parser = order_id)]
    id: Uuid,
    /// Print everything as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: config::Kafka,
    #[command(flatten)]
    registry: config::Registry,
}

/// Prints the explanation of an order.
///
/// # Errors
///
/// The log has no such order, or the broker or the registry does not answer.
pub async fn explain(args: &Args) -> anyhow::Result<()> {
    let explanation = Explanation::read(&args.kafka, &args.registry, args.id).await?;
    if args.json {
        return print_line(serde_json::to_string(&explanation)?);
    }
    print_line(explanation.to_string())
}

/// The events of an order with their causes, and a summary. The fields are the keys of `--json`.
#[derive(Debug, Serialize)]
pub struct Explanation {
    order_id: Uuid,
    /// By time, and each after its cause.
    events: Vec<Step>,
    summary: Summary,
    /// Number of records of the order that cannot be decoded.
    unreadable: usize,
}

impl Explanation {
    /// Reads the order from the log.
    ///
    /// # Errors
    ///
    /// As [`explain`].
    pub async fn read(
        kafka: &config::Kafka,
        registry: &config::Registry,
        order_id: Uuid,
    ) -> anyhow::Result<Self> {
        let cluster = platform_client::cluster(kafka);
        let schemas =
            platform_client::schemas(registry, &kafka.prefix, &[], &reader::TOPICS).await?;
        let decoder = Decoder::new(schemas);
        // The Kafka clients block.
        let records =
            tokio::task::spawn_blocking(move || reader::read(&cluster, &decoder, order_id));
        let records = records.await??;
        let is_placed = records
            .events
            .iter()
            .any(|event| matches!(event.body, EventBody::Order(_)));
        if !is_placed {
            bail!(
                "there is no order {order_id} in the log at {}",
                kafka.bootstrap
            );
        }
        Ok(Self::of(order_id, &records))
    }

    fn of(order_id: Uuid, records: &OrderRecords) -> Self {
        let summary = Summary::of(&records.events);
        Self {
            order_id,
            events: timeline(&records.events, &records.commands, &summary.currency),
            summary,
            unreadable: records.unreadable,
        }
    }
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut table = Table::new([
            ("time", Align::Left),
            ("ms", Align::Right),
            ("service", Align::Left),
            ("version", Align::Left),
            ("what happened", Align::Left),
            ("because of", Align::Left),
        ]);
        for step in &self.events {
            table.row([
                time(step.time_ms),
                format!("{:+}", step.since_ms),
                step.aggregate_version.service.to_owned(),
                step.aggregate_version.short(),
                step.text.clone(),
                step.cause.text(),
            ]);
        }
        write!(
            formatter,
            "order {}\n\n{table}\n\n{}",
            self.order_id, self.summary
        )?;
        if self.unreadable > 0 {
            write!(
                formatter,
                "\n  {} records cannot be read",
                count(self.unreadable)
            )?;
        }
        Ok(())
    }
}
