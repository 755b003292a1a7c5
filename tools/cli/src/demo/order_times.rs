//! When each order was confirmed and when it ended, read from the log.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use contracts::orders::v1::OrderEvent;
use contracts::orders::v1::order_event::Event;
use contracts::{Service, Topic};
use engine::{Cluster, Codec};
use platform_client::{Stack, topic_reader};
use registry::Schemas;
use uuid::Uuid;

/// The append times of two events of an order, in Unix milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderTimes {
    /// Time of the confirmation.
    pub confirmed_ms: Option<i64>,
    /// Time of the final event.
    pub final_ms: Option<i64>,
}

/// Reads the times of all orders.
///
/// # Errors
///
/// The broker or the registry does not answer, or a record cannot be decoded.
pub async fn read(stack: &Stack) -> anyhow::Result<HashMap<Uuid, OrderTimes>> {
    let events = [(Service::Orders, Topic::Events)];
    let schemas =
        platform_client::schemas(&stack.registry, &stack.kafka.prefix, &[], &events).await?;
    let cluster = platform_client::cluster(&stack.kafka);
    // The Kafka clients block.
    tokio::task::spawn_blocking(move || read_events(&cluster, schemas)).await?
}

fn read_events(cluster: &Cluster, schemas: Schemas) -> anyhow::Result<HashMap<Uuid, OrderTimes>> {
    let codec = Codec::new(schemas);
    let mut times: HashMap<Uuid, OrderTimes> = HashMap::new();
    let ends = topic_reader::ends(cluster, Service::Orders, Topic::Events)?;
    topic_reader::read(cluster, Service::Orders, Topic::Events, &ends, |input| {
        let decoded = codec.decode::<OrderEvent>(Service::Orders, Topic::Events, &input);
        let Ok((metadata, event)) = decoded else {
            let (partition, offset) = (input.partition, input.offset);
            bail!("orders.events/{partition}@{offset}: {decoded:?}");
        };
        let order_id = metadata.aggregate_id.parse();
        let order_id = order_id.context("an order's id is a UUID")?;
        times
            .entry(order_id)
            .or_default()
            .add(&event, input.time_ms);
        Ok(())
    })?;
    Ok(times)
}

impl OrderTimes {
    const fn add(&mut self, event: &Event, time_ms: i64) {
        match event {
            Event::OrderConfirmed(_) => self.confirmed_ms = Some(time_ms),
            Event::OrderDelivered(_) | Event::OrderCancelled(_) | Event::OrderRejected(_) => {
                self.final_ms = Some(time_ms);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use contracts::orders::v1::{OrderConfirmed, OrderCreated, OrderDelivered};

    use super::*;

    #[test]
    fn the_times_of_confirmation_and_end_are_kept() {
        let mut times = OrderTimes::default();
        let events = [
            Event::OrderCreated(OrderCreated::default()),
            Event::OrderConfirmed(OrderConfirmed::default()),
            Event::OrderDelivered(OrderDelivered {}),
        ];
        for (event, time_ms) in events.iter().zip(1..) {
            times.add(event, time_ms);
        }
        let expected = OrderTimes {
            confirmed_ms: Some(2),
            final_ms: Some(3),
        };
        assert_eq!(times, expected);
    }
}
