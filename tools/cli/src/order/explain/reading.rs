//! Reads the records of one order, of all services, and no more of the log than may hold some.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use contracts::inventory::v1::StockEvent;
use contracts::orders::v1::OrderEvent;
use contracts::orders::v1::order_event::Event as OrderBody;
use contracts::payments::v1::PaymentEvent;
use contracts::rules::uuid_v7_time_ms;
use contracts::shipping::v1::ShipmentEvent;
use contracts::{Record as Sealed, Service, Topic};
use engine::Cluster;
use engine::log::{Input, Partition};
use uuid::Uuid;

use super::timeline::{Command, Event, Happened};
use platform_client::content::{Content, Record, Trail};
use platform_client::decoder::Decoder;
use platform_client::topic_reader::ByTime;

const MINUTE_MS: i64 = 60_000;
/// The clock that made the order's id may be ahead of the broker's by five minutes; some more for the clocks of
/// brokers among each other.
const BEFORE_ID_MS: i64 = 6 * MINUTE_MS;
/// After its end an order's neighbours only do what they were asked before.
const AFTER_END_MS: i64 = 10 * MINUTE_MS;

/// The topics that tell an order's life.
pub const TOPICS: [(Service, Topic); 8] = [
    (Service::Orders, Topic::Events),
    (Service::Orders, Topic::Commands),
    (Service::Payments, Topic::Events),
    (Service::Payments, Topic::Commands),
    (Service::Shipping, Topic::Events),
    (Service::Shipping, Topic::Commands),
    (Service::Inventory, Topic::Events),
    (Service::Inventory, Topic::Commands),
];

/// What the log holds of an order.
#[derive(Debug, Default)]
pub struct Found {
    /// Of the order, by its versions; then of its neighbours.
    pub events: Vec<Event>,
    /// By id.
    pub commands: HashMap<String, Command>,
    /// Records that cannot be read.
    pub unreadable: usize,
}

/// Reads everything that belongs to an order. Blocks.
///
/// # Errors
///
/// Broker or registry do not answer, or a topic is missing.
pub fn read(cluster: &Cluster, decoder: &Decoder, order_id: Uuid) -> anyhow::Result<Found> {
    let id = order_id.to_string();
    let from_ms = uuid_v7_time_ms(&id).unwrap_or_default() - BEFORE_ID_MS;
    let own = cluster.partition_of(id.as_bytes());
    let mut reading = Reading {
        log: ByTime::new(cluster)?,
        decoder,
        trail: Trail::of(order_id),
        from_ms,
        until_ms: None,
        found: Found::default(),
    };
    for (service, topic) in TOPICS {
        if service == Service::Inventory {
            for partition in reading.found.stock_partitions(cluster) {
                reading.read(service, topic, partition)?;
            }
        } else {
            reading.read(service, topic, own)?;
        }
        // Nothing else belongs to an order that was never placed.
        if reading.found.events.is_empty() {
            break;
        }
    }
    Ok(reading.found)
}

struct Reading<'a> {
    log: ByTime<'a>,
    decoder: &'a Decoder,
    trail: Trail,
    from_ms: i64,
    /// Known once the order's own end is.
    until_ms: Option<i64>,
    found: Found,
}

impl Reading<'_> {
    fn read(&mut self, service: Service, topic: Topic, partition: Partition) -> anyhow::Result<()> {
        let Self {
            log,
            decoder,
            trail,
            from_ms,
            until_ms,
            found,
        } = self;
        let place = (service, topic, partition);
        let bound = *until_ms;
        log.read(place, *from_ms, bound, |input| {
            // The key decides for all but stock items, without a look inside.
            if service != Service::Inventory && !trail.is_key(&input) {
                return Ok(ControlFlow::Continue(()));
            }
            let content = decoder.content(service, topic, &input);
            if !trail.meets(&input, &content) {
                return Ok(ControlFlow::Continue(()));
            }
            let end = found.add(service, topic, &input, &content);
            if end.is_break() {
                *until_ms = Some(input.time_ms + AFTER_END_MS);
            }
            Ok(end)
        })
    }
}

impl Found {
    /// Takes a record in; breaks at the order's own end.
    fn add(
        &mut self,
        service: Service,
        topic: Topic,
        input: &Input,
        content: &Content,
    ) -> ControlFlow<()> {
        let Content::Record(record) = content else {
            tracing::warn!(
                topic = topic.of(service, ""),
                partition = input.partition,
                offset = input.offset,
                ?content,
                "a record of the order cannot be read"
            );
            self.unreadable += 1;
            return ControlFlow::Continue(());
        };
        if topic == Topic::Commands {
            let command = Command {
                kind: record.kind.clone(),
                actor: record.actor.clone(),
                event_id: record.causation_id.clone(),
            };
            self.commands.insert(record.id.clone(), command);
            return ControlFlow::Continue(());
        }
        let happened = happened(service, record);
        let is_end = matches!(
            happened,
            Happened::Order(
                OrderBody::OrderDelivered(_)
                    | OrderBody::OrderCancelled(_)
                    | OrderBody::OrderRejected(_)
            )
        );
        self.events.push(Event {
            id: record.id.clone(),
            aggregate_id: record.aggregate_id.clone(),
            version: record.version,
            time_ms: record.time_ms,
            command_id: record.causation_id.clone(),
            actor: record.actor.clone(),
            happened,
        });
        if is_end {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// The partitions of the order's products.
    fn stock_partitions(&self, cluster: &Cluster) -> BTreeSet<Partition> {
        self.events
            .iter()
            .filter_map(|event| match &event.happened {
                Happened::Order(OrderBody::OrderCreated(created)) => Some(&created.lines),
                _ => None,
            })
            .flatten()
            .map(|line| cluster.partition_of(line.sku.as_bytes()))
            .collect()
    }
}

fn happened(service: Service, record: &Record) -> Happened {
    let known = match service {
        Service::Orders => body::<OrderEvent>(record).map(Happened::Order),
        Service::Inventory => body::<StockEvent>(record).map(Happened::Stock),
        Service::Payments => body::<PaymentEvent>(record).map(Happened::Payment),
        Service::Shipping => body::<ShipmentEvent>(record).map(Happened::Shipment),
    };
    known.unwrap_or(Happened::Newer(service))
}

fn body<R: Sealed>(record: &Record) -> Option<R::Body> {
    let record: R = record.message.transcode_to().ok()?;
    record.into_parts().map(|(_, body)| body)
}
