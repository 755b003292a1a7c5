//! The timeline of an order: its events in causal order, each with its cause. Pure.

use std::collections::{BTreeMap, HashMap};

use contracts::Service;
use contracts::inventory::v1::stock_event::Event as StockEvent;
use contracts::orders::v1::order_event::Event as OrderEvent;
use contracts::payments::v1::payment_event::Event as PaymentEvent;
use contracts::shipping::v1::shipment_event::Event as ShipmentEvent;
use serde::Serialize;

use crate::order::event_text;

/// An event that belongs to an order.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The event id.
    pub id: String,
    /// The id of the aggregate.
    pub aggregate_id: String,
    /// Version of the aggregate after the event.
    pub version: u64,
    /// Append time in the log, in Unix milliseconds.
    pub time_ms: i64,
    /// The id of the command that caused the event.
    pub command_id: String,
    /// The sender of the command.
    pub actor: String,
    /// The content of the event.
    pub body: EventBody,
}

/// The content of an event, by kind of aggregate.
#[derive(Clone, Debug, PartialEq)]
pub enum EventBody {
    /// Of the order.
    Order(OrderEvent),
    /// Of a stock item.
    Stock(StockEvent),
    /// Of the payment.
    Payment(PaymentEvent),
    /// Of the shipment.
    Shipment(ShipmentEvent),
    /// An event that a newer version of this program has written.
    Unknown(Service),
}

/// A command that belongs to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The kind, such as `place_order`.
    pub kind: String,
    /// The sender.
    pub actor: String,
    /// The id of the event that caused the command; empty when a client, a partner or a timer sent it.
    pub event_id: String,
}

/// One event of the timeline. The fields are keys of `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Append time, in Unix milliseconds.
    pub time_ms: i64,
    /// Milliseconds since the order was placed.
    pub since_ms: i64,
    /// The aggregate and its version after the event.
    #[serde(flatten)]
    pub aggregate_version: AggregateVersion,
    /// The event id.
    pub event_id: String,
    /// The kind of the event, such as `order_created`.
    pub event: &'static str,
    /// The event as text.
    #[serde(rename = "words")]
    pub text: String,
    /// The cause of the event.
    pub cause: Cause,
}

/// An aggregate at a version. The fields are keys of `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AggregateVersion {
    /// The service that owns the aggregate.
    pub service: &'static str,
    /// `order`, `stock item`, `payment` or `shipment`.
    pub aggregate: &'static str,
    /// The id of the aggregate.
    pub aggregate_id: String,
    /// Version after the event.
    pub version: u64,
}

/// The cause of an event. The fields are keys of `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Such as `PlaceOrder`; `None` when retention has deleted the command.
    pub command: Option<String>,
    /// The id of the command.
    pub command_id: String,
    /// The sender of the command.
    pub actor: String,
    /// The event that the sender reacted to.
    pub because: Option<AggregateVersion>,
}

/// Orders the events so that each comes after its cause.
///
/// Times alone do not suffice: several events may have the same millisecond, and the clocks of brokers differ. The
/// causes and the versions of each aggregate decide.
pub fn timeline(
    events: &[Event],
    commands: &HashMap<String, Command>,
    currency: &str,
) -> Vec<Step> {
    let by_id: HashMap<&str, &Event> = events
        .iter()
        .map(|event| (event.id.as_str(), event))
        .collect();
    let trigger = |event: &Event| {
        let command = commands.get(&event.command_id)?;
        by_id.get(command.event_id.as_str()).copied()
    };
    let placed_ms = events
        .iter()
        .filter(|event| event.body.is_of_order())
        .map(|event| event.time_ms)
        .min()
        .unwrap_or_default();
    in_order(events, trigger)
        .into_iter()
        .map(|event| Step {
            time_ms: event.time_ms,
            since_ms: event.time_ms - placed_ms,
            aggregate_version: event.aggregate_version(),
            event_id: event.id.clone(),
            event: event.body.kind(),
            text: event.body.text(currency),
            cause: Cause {
                command: commands
                    .get(&event.command_id)
                    .map(|command| camel_case(&command.kind)),
                command_id: event.command_id.clone(),
                actor: event.actor.clone(),
                because: trigger(event).map(Event::aggregate_version),
            },
        })
        .collect()
}

/// Sorts by time; at the same time, causes come before their effects.
fn in_order<'a>(
    events: &'a [Event],
    trigger: impl Fn(&'a Event) -> Option<&'a Event>,
) -> Vec<&'a Event> {
    let mut aggregates: BTreeMap<(&str, &str), Vec<&Event>> = BTreeMap::new();
    for event in events {
        let key = (event.body.aggregate(), event.aggregate_id.as_str());
        aggregates.entry(key).or_default().push(event);
    }
    let mut before: HashMap<&str, &Event> = HashMap::new();
    for versions in aggregates.values_mut() {
        versions.sort_by_key(|event| event.version);
        for pair in versions.windows(2) {
            before.insert(&pair[1].id, pair[0]);
        }
    }
    let mut sort_keys: HashMap<&str, SortKey> = HashMap::new();
    for event in events {
        let mut stack = vec![event];
        while let Some(&last) = stack.last() {
            let causes = [trigger(last), before.get(last.id.as_str()).copied()];
            let unvisited = causes
                .into_iter()
                .flatten()
                .find(|event| !sort_keys.contains_key(event.id.as_str()));
            match unvisited {
                // Damaged records may cause each other: the search ends at the number of events.
                Some(unvisited) if stack.len() <= events.len() => stack.push(unvisited),
                _ => {
                    let causes = causes
                        .into_iter()
                        .flatten()
                        .filter_map(|event| sort_keys.get(event.id.as_str()));
                    let sort_key = SortKey::after(causes, last.time_ms);
                    sort_keys.insert(&last.id, sort_key);
                    stack.pop();
                }
            }
        }
    }
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_key(|event| {
        let sort_key = sort_keys
            .get(event.id.as_str())
            .copied()
            .unwrap_or_default();
        (sort_key, event.aggregate_id.as_str(), event.version)
    });
    sorted
}

/// Sort key of an event: greater than the keys of all its direct and indirect causes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct SortKey {
    time_ms: i64,
    /// Length of the longest chain of causes.
    depth: usize,
}

impl SortKey {
    fn after<'a>(causes: impl Iterator<Item = &'a Self>, time_ms: i64) -> Self {
        let first = Self { time_ms, depth: 0 };
        causes.fold(first, |sort_key, cause| Self {
            time_ms: sort_key.time_ms.max(cause.time_ms),
            depth: sort_key.depth.max(cause.depth + 1),
        })
    }
}

impl Event {
    fn aggregate_version(&self) -> AggregateVersion {
        AggregateVersion {
            service: self.body.service().name(),
            aggregate: self.body.aggregate(),
            aggregate_id: self.aggregate_id.clone(),
            version: self.version,
        }
    }
}

impl AggregateVersion {
    /// `order v3`; for a stock item, the SKU in place of the kind.
    pub fn short(&self) -> String {
        if self.service == Service::Inventory.name() {
            format!("{} v{}", self.aggregate_id, self.version)
        } else {
            format!("{} v{}", self.aggregate, self.version)
        }
    }
}

impl Cause {
    /// `ReserveStock from orders, order v1`.
    pub fn text(&self) -> String {
        let mut text = match &self.command {
            Some(command) => format!("{command} from {}", self.actor),
            None => format!("a command from {}, no longer kept", self.actor),
        };
        if let Some(cause) = &self.because {
            text.push_str(&format!(", {}", cause.short()));
        }
        text
    }
}

impl EventBody {
    const fn is_of_order(&self) -> bool {
        matches!(self, Self::Order(_))
    }

    const fn service(&self) -> Service {
        match self {
            Self::Order(_) => Service::Orders,
            Self::Stock(_) => Service::Inventory,
            Self::Payment(_) => Service::Payments,
            Self::Shipment(_) => Service::Shipping,
            Self::Unknown(service) => *service,
        }
    }

    const fn aggregate(&self) -> &'static str {
        match self.service() {
            Service::Orders => "order",
            Service::Inventory => "stock item",
            Service::Payments => "payment",
            Service::Shipping => "shipment",
        }
    }

    fn kind(&self) -> &'static str {
        use contracts::Body as _;
        match self {
            Self::Order(event) => event.kind(),
            Self::Stock(event) => event.kind(),
            Self::Payment(event) => event.kind(),
            Self::Shipment(event) => event.kind(),
            Self::Unknown(_) => "unknown",
        }
    }

    fn text(&self, currency: &str) -> String {
        match self {
            Self::Order(event) => event_text::of_order(event, currency),
            Self::Stock(event) => event_text::of_stock(event),
            Self::Payment(event) => event_text::of_payment(event),
            Self::Shipment(event) => event_text::of_shipment(event),
            Self::Unknown(_) => "something that a newer program has written".into(),
        }
    }
}

/// `place_order` is the command `PlaceOrder`.
fn camel_case(kind: &str) -> String {
    kind.split('_')
        .flat_map(|word| {
            let mut letters = word.chars();
            let first = letters.next().map(|letter| letter.to_ascii_uppercase());
            first.into_iter().chain(letters)
        })
        .collect()
}

#[cfg(test)]
mod tests;
