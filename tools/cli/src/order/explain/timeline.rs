//! An order's records put in order: what happened, and why. Pure.

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
    /// Its own identity.
    pub id: String,
    /// The aggregate that it happened to.
    pub aggregate_id: String,
    /// The aggregate's version after it.
    pub version: u64,
    /// When, by the log's own clock, Unix milliseconds.
    pub time_ms: i64,
    /// The command that led to it.
    pub command_id: String,
    /// Who had sent the command.
    pub actor: String,
    /// What happened.
    pub happened: Happened,
}

/// What happened, to which kind of aggregate.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// To the order.
    Order(OrderEvent),
    /// To a stock item.
    Stock(StockEvent),
    /// To the payment.
    Payment(PaymentEvent),
    /// To the shipment.
    Shipment(ShipmentEvent),
    /// Something newer than this program knows.
    Newer(Service),
}

/// A command that belongs to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Such as `place_order`.
    pub kind: String,
    /// Who sent it.
    pub actor: String,
    /// The event that led to it; empty when a client, a partner or a timer sent it.
    pub event_id: String,
}

/// One event in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When, Unix milliseconds.
    pub time_ms: i64,
    /// Since the order was placed, milliseconds.
    pub since_ms: i64,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// Identity of the event.
    pub event_id: String,
    /// Such as `order_created`.
    pub event: &'static str,
    /// What happened, in words.
    pub event_text: String,
    /// Why.
    pub cause: Cause,
}

/// An aggregate at a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Whose it is.
    pub service: &'static str,
    /// `order`, `stock item`, `payment` or `shipment`.
    pub aggregate: &'static str,
    /// Its id.
    pub aggregate_id: String,
    /// Its version after the event.
    pub version: u64,
}

/// What led to an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Such as `PlaceOrder`; `None` when the command is no longer kept.
    pub command: Option<String>,
    /// Identity of the command.
    pub command_id: String,
    /// Who had sent it.
    pub actor: String,
    /// The event that the sender had reacted to.
    pub because: Option<Place>,
}

/// The events of an order, each after what led to it.
///
/// Several events have the same millisecond, and the clocks of brokers differ a little: what led to what, and an
/// aggregate's versions, say which came first.
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
        .filter(|event| event.happened.is_of_order())
        .map(|event| event.time_ms)
        .min()
        .unwrap_or_default();
    in_order(events, trigger)
        .into_iter()
        .map(|event| Step {
            time_ms: event.time_ms,
            since_ms: event.time_ms - placed_ms,
            place: event.place(),
            event_id: event.id.clone(),
            event: event.happened.kind(),
            event_text: event.happened.event_text(currency),
            cause: Cause {
                command: commands
                    .get(&event.command_id)
                    .map(|command| camel_case(&command.kind)),
                command_id: event.command_id.clone(),
                actor: event.actor.clone(),
                because: trigger(event).map(Event::place),
            },
        })
        .collect()
}

/// Sorted by time; at the same time, what led to others stands before them.
fn in_order<'a>(
    events: &'a [Event],
    trigger: impl Fn(&'a Event) -> Option<&'a Event>,
) -> Vec<&'a Event> {
    let mut aggregates: BTreeMap<(&str, &str), Vec<&Event>> = BTreeMap::new();
    for event in events {
        let key = (event.happened.aggregate(), event.aggregate_id.as_str());
        aggregates.entry(key).or_default().push(event);
    }
    let mut before: HashMap<&str, &Event> = HashMap::new();
    for versions in aggregates.values_mut() {
        versions.sort_by_key(|event| event.version);
        for pair in versions.windows(2) {
            before.insert(&pair[1].id, pair[0]);
        }
    }
    let mut ranks: HashMap<&str, Rank> = HashMap::new();
    for event in events {
        let mut way = vec![event];
        while let Some(&last) = way.last() {
            let led = [trigger(last), before.get(last.id.as_str()).copied()];
            let unranked = led
                .into_iter()
                .flatten()
                .find(|event| !ranks.contains_key(event.id.as_str()));
            match unranked {
                // Damaged records could lead to each other.
                Some(unranked) if way.len() <= events.len() => way.push(unranked),
                _ => {
                    let led = led
                        .into_iter()
                        .flatten()
                        .filter_map(|event| ranks.get(event.id.as_str()));
                    let rank = Rank::behind(led, last.time_ms);
                    ranks.insert(&last.id, rank);
                    way.pop();
                }
            }
        }
    }
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_key(|event| {
        let rank = ranks.get(event.id.as_str()).copied().unwrap_or_default();
        (rank, event.aggregate_id.as_str(), event.version)
    });
    sorted
}

/// An event's place in time, behind everything that led to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    time_ms: i64,
    /// How many events led to it, on the longest way.
    depth: usize,
}

impl Rank {
    fn behind<'a>(led: impl Iterator<Item = &'a Self>, time_ms: i64) -> Self {
        let first = Self { time_ms, depth: 0 };
        led.fold(first, |rank, led| Self {
            time_ms: rank.time_ms.max(led.time_ms),
            depth: rank.depth.max(led.depth + 1),
        })
    }
}

impl Event {
    fn place(&self) -> Place {
        Place {
            service: self.happened.service().name(),
            aggregate: self.happened.aggregate(),
            aggregate_id: self.aggregate_id.clone(),
            version: self.version,
        }
    }
}

impl Place {
    /// `order v3`; of a stock item with its name.
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
        if let Some(place) = &self.because {
            text.push_str(&format!(", {}", place.short()));
        }
        text
    }
}

impl Happened {
    const fn is_of_order(&self) -> bool {
        matches!(self, Self::Order(_))
    }

    const fn service(&self) -> Service {
        match self {
            Self::Order(_) => Service::Orders,
            Self::Stock(_) => Service::Inventory,
            Self::Payment(_) => Service::Payments,
            Self::Shipment(_) => Service::Shipping,
            Self::Newer(service) => *service,
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
            Self::Newer(_) => "unknown",
        }
    }

    fn event_text(&self, currency: &str) -> String {
        match self {
            Self::Order(event) => event_text::of_order(event, currency),
            Self::Stock(event) => event_text::of_stock(event),
            Self::Payment(event) => event_text::of_payment(event),
            Self::Shipment(event) => event_text::of_shipment(event),
            Self::Newer(_) => "something that a newer program has written".into(),
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
