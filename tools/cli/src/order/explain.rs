//! `ordermesh order explain`: an order's life through all services, and why each step was taken.

mod reading;
mod summary;
mod timeline;

use anyhow::bail;
use chassis::config;
use serde::Serialize;
use uuid::Uuid;

use super::order_id;
use platform_client::decoder::Decoder;
use reading::Found;
use summary::Summary;
use terminal::{Align, Table, count, say, time};
use timeline::{Happened, Step, timeline};

/// Which order.
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

/// Tells the order's life.
///
/// # Errors
///
/// There is no such order in the log, or broker or registry do not answer.
pub async fn explain(args: &Args) -> anyhow::Result<()> {
    let life = Life::read(&args.kafka, &args.registry, args.id).await?;
    if args.json {
        return say(serde_json::to_string(&life)?);
    }
    say(life.to_string())
}

/// An order's life.
#[derive(Debug, Serialize)]
pub struct Life {
    order_id: Uuid,
    /// In order of time, each behind what led to it.
    events: Vec<Step>,
    summary: Summary,
    /// Records of the order that cannot be read.
    unreadable: usize,
}

impl Life {
    /// Reads it from the log.
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
            platform_client::schemas(registry, &kafka.prefix, &[], &reading::TOPICS).await?;
        let decoder = Decoder::new(schemas);
        // The clients of the log block.
        let found =
            tokio::task::spawn_blocking(move || reading::read(&cluster, &decoder, order_id));
        let found = found.await??;
        let is_placed = found
            .events
            .iter()
            .any(|event| matches!(event.happened, Happened::Order(_)));
        if !is_placed {
            bail!(
                "there is no order {order_id} in the log at {}",
                kafka.bootstrap
            );
        }
        Ok(Self::of(order_id, &found))
    }

    fn of(order_id: Uuid, found: &Found) -> Self {
        let summary = Summary::of(&found.events);
        Self {
            order_id,
            events: timeline(&found.events, &found.commands, &summary.currency),
            summary,
            unreadable: found.unreadable,
        }
    }
}

impl std::fmt::Display for Life {
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
                step.place.service.to_owned(),
                step.place.short(),
                step.event_text.clone(),
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
