//! Reads the records of one order from the topics of all services, and only from the partitions and the time range that
//! can hold some.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use contracts::inventory::v1::StockEvent;
use contracts::orders::v1::OrderEvent;
use contracts::orders::v1::order_event::Event as OrderBody;
use contracts::payments::v1::PaymentEvent;
use contracts::rules::uuid_v7_time_ms;
use contracts::shipping::v1::ShipmentEvent;
use contracts::{Record as ContractRecord, Service, Topic};
use engine::Cluster;
use engine::log::{Input, Partition};
use platform_client::content::{Content, OrderFilter, Record};
use platform_client::decoder::Decoder;
use platform_client::topic_reader::TimeRangeReader;
use uuid::Uuid;

use super::timeline::{Command, Event, EventBody};

const MINUTE_MS: i64 = 60_000;
/// The clock that created the order id may be up to five minutes ahead of the broker; one more minute for differences
/// between brokers.
const BEFORE_ID_MS: i64 = 6 * MINUTE_MS;
/// After the end of an order, other services only finish what they were asked before.
const AFTER_END_MS: i64 = 10 * MINUTE_MS;

/// The topics with records of an order, in reading order: the stock topics are read last, because the products are
/// known from the order events.
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

/// The records of an order.
#[derive(Debug, Default)]
pub struct OrderRecords {
    /// The events of the order by version, then those of the other aggregates.
    pub events: Vec<Event>,
    /// By command id.
    pub commands: HashMap<String, Command>,
    /// Number of records that cannot be decoded.
    pub unreadable: usize,
}

/// Reads all records of an order. Blocks.
///
/// # Errors
///
/// The broker or the registry does not answer, or a topic is missing.
pub fn read(cluster: &Cluster, decoder: &Decoder, order_id: Uuid) -> anyhow::Result<OrderRecords> {
    let id = order_id.to_string();
    let from_ms = uuid_v7_time_ms(&id).unwrap_or_default() - BEFORE_ID_MS;
    let own = cluster.partition_of(id.as_bytes());
    let mut reader = OrderReader {
        log: TimeRangeReader::new(cluster)?,
        decoder,
        filter: OrderFilter::of(order_id),
        from_ms,
        until_ms: None,
        records: OrderRecords::default(),
    };
    for (service, topic) in TOPICS {
        if service == Service::Inventory {
            for partition in reader.records.stock_partitions(cluster) {
                reader.read(service, topic, partition)?;
            }
        } else {
            reader.read(service, topic, own)?;
        }
        // An order that was never placed has no other records.
        if reader.records.events.is_empty() {
            break;
        }
    }
    Ok(reader.records)
}

struct OrderReader<'a> {
    log: TimeRangeReader<'a>,
    decoder: &'a Decoder,
    filter: OrderFilter,
    from_ms: i64,
    /// Set when the final event of the order has been read.
    until_ms: Option<i64>,
    records: OrderRecords,
}

impl OrderReader<'_> {
    fn read(&mut self, service: Service, topic: Topic, partition: Partition) -> anyhow::Result<()> {
        let Self {
            log,
            decoder,
            filter,
            from_ms,
            until_ms,
            records,
        } = self;
        let source = (service, topic, partition);
        let bound = *until_ms;
        log.read(source, *from_ms, bound, |input| {
            // Except for stock items, the key decides without decoding the record.
            if service != Service::Inventory && !filter.has_order_key(&input) {
                return Ok(ControlFlow::Continue(()));
            }
            let content = decoder.content(service, topic, &input);
            if !filter.matches(&input, &content) {
                return Ok(ControlFlow::Continue(()));
            }
            let end = records.add(service, topic, &input, &content);
            if end.is_break() {
                *until_ms = Some(input.time_ms + AFTER_END_MS);
            }
            Ok(end)
        })
    }
}

impl OrderRecords {
    /// Adds a record; breaks at the final event of the order.
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
        let body = decode_body(service, record);
        let is_end = matches!(
            body,
            EventBody::Order(
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
            body,
        });
        if is_end {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// The partitions of the products of the order.
    fn stock_partitions(&self, cluster: &Cluster) -> BTreeSet<Partition> {
        self.events
            .iter()
            .filter_map(|event| match &event.body {
                EventBody::Order(OrderBody::OrderCreated(created)) => Some(&created.lines),
                _ => None,
            })
            .flatten()
            .map(|line| cluster.partition_of(line.sku.as_bytes()))
            .collect()
    }
}

fn decode_body(service: Service, record: &Record) -> EventBody {
    let known = match service {
        Service::Orders => body::<OrderEvent>(record).map(EventBody::Order),
        Service::Inventory => body::<StockEvent>(record).map(EventBody::Stock),
        Service::Payments => body::<PaymentEvent>(record).map(EventBody::Payment),
        Service::Shipping => body::<ShipmentEvent>(record).map(EventBody::Shipment),
    };
    known.unwrap_or(EventBody::Unknown(service))
}

fn body<R: ContractRecord>(record: &Record) -> Option<R::Body> {
    let record: R = record.message.transcode_to().ok()?;
    record.into_parts().map(|(_, body)| body)
}
