//! Events that satisfy the field rules.

use contracts::core::v1::{Metadata, Money};
use contracts::inventory::v1::{StockAdjusted, StockDeducted, StockReserved, stock_event};
use contracts::orders::v1::order_event::Event;
use contracts::orders::v1::{
    Address, Contact, OrderConfirmed, OrderCreated, OrderDelivered, OrderLine, OrderLineReserved,
    OrderShipped, OrderStockReserved,
};
use contracts::payments::v1::{PaymentProcessed, PaymentRequested, PaymentSettled, payment_event};
use contracts::shipping::v1::{
    ShipmentDelivered, ShipmentDispatched, ShipmentRequested, shipment_event,
};
use contracts::{Body as _, Contract, Record as _, Service, Topic};
use prost::Message as _;
use uuid::Uuid;

/// Time of every order's first event, in Unix milliseconds; the n-th event is n milliseconds later.
pub const START_MS: i64 = 1_700_000_000_000;
pub const SKU: &str = "85123A";
const DEADLINE_MS: i64 = START_MS + 60_000;

/// A framed record of a service's events topic.
#[derive(Clone, Debug)]
pub struct FramedRecord {
    pub service: Service,
    pub key: String,
    pub value: Vec<u8>,
}

/// The schema id of a service's events in all tests.
pub fn schema_id(service: Service) -> u32 {
    100 + service as u32
}

/// Schemas that know these ids.
pub fn schemas() -> registry::Schemas {
    registry::Schemas::fixed(
        &Service::ALL.map(|service| (service, Topic::Events, schema_id(service))),
    )
}

pub fn metadata(id: &str, version: u64) -> Metadata {
    Metadata {
        id: Uuid::now_v7().to_string(),
        aggregate_id: id.into(),
        aggregate_version: version,
        time_ms: START_MS + i64::try_from(version).unwrap(),
        ..Metadata::default()
    }
}

/// A record of one event.
pub fn new_record<C: Contract>(metadata: Metadata, event: C::Event) -> FramedRecord {
    assert_eq!(event.violations().len(), 0, "{event:?}");
    let key = metadata.aggregate_id.clone();
    let mut value = registry::frame_header(schema_id(C::SERVICE)).to_vec();
    C::EventRecord::new_record(metadata, event)
        .encode(&mut value)
        .unwrap();
    FramedRecord {
        service: C::SERVICE,
        key,
        value,
    }
}

/// Records of an aggregate's events from `first` on.
pub fn event_records<C: Contract>(
    id: &str,
    first: u64,
    events: impl IntoIterator<Item = C::Event>,
) -> Vec<FramedRecord> {
    event_records_from::<C>(START_MS, id, first, events)
}

/// The same with the current time as the event time.
pub fn event_records_now<C: Contract>(
    id: &str,
    first: u64,
    events: impl IntoIterator<Item = C::Event>,
) -> Vec<FramedRecord> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    event_records_from::<C>(i64::try_from(now.as_millis()).unwrap(), id, first, events)
}

fn event_records_from<C: Contract>(
    start_ms: i64,
    id: &str,
    first: u64,
    events: impl IntoIterator<Item = C::Event>,
) -> Vec<FramedRecord> {
    (first..)
        .zip(events)
        .map(|(version, event)| {
            let metadata = Metadata {
                time_ms: start_ms + i64::try_from(version).unwrap(),
                ..metadata(id, version)
            };
            new_record::<C>(metadata, event)
        })
        .collect()
}

/// A fresh order's id.
pub fn new_id() -> String {
    Uuid::now_v7().to_string()
}

pub fn lines(count: usize) -> Vec<OrderLine> {
    let line = |number: usize| OrderLine {
        sku: if number == 0 {
            SKU.into()
        } else {
            format!("{SKU}-{number}")
        },
        quantity: 2,
        unit_price: 255,
        discount: 10,
        description: "WHITE HANGING HEART T-LIGHT HOLDER".into(),
    };
    (0..count).map(line).collect()
}

fn contact() -> Option<Contact> {
    let address = Address {
        name: "Anne".into(),
        street: "1 High Street".into(),
        postal_code: "E1 1AA".into(),
        city: "London".into(),
        country: "GB".into(),
    };
    Some(Contact {
        address: Some(address),
        ..Contact::default()
    })
}

pub fn created(customer: &str, line_count: usize) -> Event {
    Event::OrderCreated(OrderCreated {
        customer_id: customer.into(),
        contact: contact(),
        lines: lines(line_count),
        currency: "GBP".into(),
        total: 500 * i64::try_from(line_count).unwrap(),
        body_digest: vec![7; 32],
        deadline_ms: DEADLINE_MS,
    })
}

/// From created to delivered.
pub fn order(customer: &str, line_count: usize) -> Vec<Event> {
    let mut events = vec![created(customer, line_count)];
    events.extend(
        lines(line_count)
            .into_iter()
            .map(|line| Event::OrderLineReserved(OrderLineReserved { sku: line.sku })),
    );
    events.extend([
        Event::OrderStockReserved(OrderStockReserved {
            deadline_ms: DEADLINE_MS,
        }),
        confirmed(),
        Event::OrderShipped(OrderShipped {
            tracking_number: "T1".into(),
            deadline_ms: DEADLINE_MS,
        }),
        Event::OrderDelivered(OrderDelivered {}),
    ]);
    events
}

pub fn confirmed() -> Event {
    Event::OrderConfirmed(OrderConfirmed {
        provider_reference: "P1".into(),
        deadline_ms: DEADLINE_MS,
    })
}

/// Received, reserved for an order, deducted.
pub fn stock(order_id: &str, received: i64) -> Vec<stock_event::Event> {
    use stock_event::Event;
    let order_id = || order_id.to_owned();
    vec![
        Event::StockAdjusted(StockAdjusted {
            adjustment_id: new_id(),
            delta: received,
        }),
        Event::StockReserved(StockReserved {
            order_id: order_id(),
            quantity: 2,
        }),
        Event::StockDeducted(StockDeducted {
            order_id: order_id(),
            quantity: 2,
        }),
    ]
}

pub fn payment() -> Vec<payment_event::Event> {
    use payment_event::Event;
    let amount = Some(Money {
        minor_units: 500,
        currency: "GBP".into(),
    });
    vec![
        Event::PaymentRequested(PaymentRequested {
            amount,
            customer_id: "anne".into(),
        }),
        Event::PaymentProcessed(PaymentProcessed {
            provider_reference: "P1".into(),
        }),
        Event::PaymentSettled(PaymentSettled {}),
    ]
}

pub fn shipment() -> Vec<shipment_event::Event> {
    use shipment_event::Event;
    vec![
        Event::ShipmentRequested(ShipmentRequested {
            contact: contact(),
            pieces: 2,
        }),
        Event::ShipmentDispatched(ShipmentDispatched {
            tracking_number: "T1".into(),
        }),
        Event::ShipmentDelivered(ShipmentDelivered {}),
    ]
}
