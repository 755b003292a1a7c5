//! A common view of the records of all topics, and the commands between services.

use std::fmt::{self, Debug};

use prost_protovalidate::Violation;
use prost_reflect::ReflectMessage;

use crate::core::v1::{Checkpoint, Chunk, CommandParked, Metadata, Parked};
use crate::inventory::v1::{stock_command, stock_event, stock_outcome, stock_state};
use crate::orders::v1::{order_command, order_event, order_outcome, order_state};
use crate::payments::v1::{payment_command, payment_event, payment_outcome, payment_state};
use crate::shipping::v1::{shipment_command, shipment_event, shipment_outcome, shipment_state};
use crate::{inventory, orders, payments, shipping};

/// A service that owns aggregates and the topics named after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Orders, with the process manager of an order.
    Orders,
    /// Stock items.
    Inventory,
    /// Payments.
    Payments,
    /// Shipments.
    Shipping,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 4] = [
        Self::Orders,
        Self::Inventory,
        Self::Payments,
        Self::Shipping,
    ];

    /// The name in topics, groups and flags.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Inventory => "inventory",
            Self::Payments => "payments",
            Self::Shipping => "shipping",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The topics of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Requests to the service.
    Commands,
    /// Events: the immutable log.
    Events,
    /// Snapshots for take-overs.
    State,
    /// Answers to callers.
    Outcomes,
    /// Dead letters.
    Dlq,
}

impl Topic {
    /// Every kind of topic.
    pub const ALL: [Self; 5] = [
        Self::Commands,
        Self::Events,
        Self::State,
        Self::Outcomes,
        Self::Dlq,
    ];

    /// The suffix of the topic name, after the service.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Events => "events",
            Self::State => "state",
            Self::Outcomes => "outcomes",
            Self::Dlq => "dlq",
        }
    }

    /// The full name of the topic; the prefix separates tests and tenants on one broker.
    pub fn of(self, service: Service, prefix: &str) -> String {
        format!("{prefix}{service}.{}", self.name())
    }
}

/// The content of a record, one of the variants of its `oneof`.
pub trait Body: Clone + Debug + PartialEq + Send + 'static {
    /// All values of [`Self::kind`], in the order of the proto file.
    const KINDS: &'static [&'static str];

    /// The name of the variant in the `oneof` of the proto file, for logs and metrics.
    fn kind(&self) -> &'static str;

    /// The violations of the body's field rules.
    fn violations(&self) -> Vec<Violation>;
}

/// The message of a record of a topic: metadata and a body.
pub trait Record: prost::Message + Default + Clone + PartialEq + ReflectMessage {
    /// The `oneof`.
    type Body: Body;

    /// Builds a record.
    fn new_record(metadata: Metadata, body: Self::Body) -> Self;

    /// Splits a record; `None` when its metadata or its body is missing.
    fn into_parts(self) -> Option<(Metadata, Self::Body)>;
}

/// The body of a state record: an aggregate of the service or an entry of the engine.
#[derive(Clone, Debug, PartialEq)]
pub enum StateBody<S> {
    /// An aggregate.
    Aggregate(S),
    /// The end of a checkpoint.
    Checkpoint(Checkpoint),
    /// A chunk of a large state.
    Chunk(Chunk),
    /// A key that is parked behind a dead letter.
    Parked(Parked),
}

impl<S: Clone + Debug + PartialEq + Send + 'static> Body for StateBody<S> {
    const KINDS: &'static [&'static str] = &["aggregate", "checkpoint", "chunk", "parked"];

    fn kind(&self) -> &'static str {
        match self {
            Self::Aggregate(_) => "aggregate",
            Self::Checkpoint(_) => "checkpoint",
            Self::Chunk(_) => "chunk",
            Self::Parked(_) => "parked",
        }
    }

    /// None: only the engine writes state records, and they have no field rules.
    fn violations(&self) -> Vec<Violation> {
        Vec::new()
    }
}

/// The record types of one service.
pub trait Contract: Send + Sync + 'static {
    /// The service.
    const SERVICE: Service;
    /// Body of the commands.
    type Command: Body;
    /// Body of the events.
    type Event: Body;
    /// The aggregate.
    type State: prost::Message + Default + Clone + PartialEq;
    /// Body of the outcomes.
    type Outcome: Body;
    /// Record of `S.commands`.
    type CommandRecord: Record<Body = Self::Command>;
    /// Record of `S.events`.
    type EventRecord: Record<Body = Self::Event>;
    /// Record of `S.state`.
    type StateRecord: Record<Body = StateBody<Self::State>>;
    /// Record of `S.outcomes`.
    type OutcomeRecord: Record<Body = Self::Outcome>;

    /// The outcome of a command that is parked behind a dead letter.
    fn parked() -> Self::Outcome;
}

macro_rules! record {
    ($record:path, $body:path, $field:ident) => {
        impl Record for $record {
            type Body = $body;

            fn new_record(metadata: Metadata, body: Self::Body) -> Self {
                Self {
                    metadata: Some(metadata),
                    $field: Some(body),
                }
            }

            fn into_parts(self) -> Option<(Metadata, Self::Body)> {
                Some((self.metadata?, self.$field?))
            }
        }
    };
}

macro_rules! state_record {
    ($record:path, $module:ident, $aggregate:ident, $state:path) => {
        impl Record for $record {
            type Body = StateBody<$state>;

            fn new_record(metadata: Metadata, body: Self::Body) -> Self {
                let state = match body {
                    StateBody::Aggregate(aggregate) => $module::State::$aggregate(aggregate),
                    StateBody::Checkpoint(checkpoint) => $module::State::Checkpoint(checkpoint),
                    StateBody::Chunk(chunk) => $module::State::Chunk(chunk),
                    StateBody::Parked(parked) => $module::State::Parked(parked),
                };
                Self {
                    metadata: Some(metadata),
                    state: Some(state),
                }
            }

            fn into_parts(self) -> Option<(Metadata, Self::Body)> {
                let body = match self.state? {
                    $module::State::$aggregate(aggregate) => StateBody::Aggregate(aggregate),
                    $module::State::Checkpoint(checkpoint) => StateBody::Checkpoint(checkpoint),
                    $module::State::Chunk(chunk) => StateBody::Chunk(chunk),
                    $module::State::Parked(parked) => StateBody::Parked(parked),
                };
                Some((self.metadata?, body))
            }
        }
    };
}

macro_rules! contract {
    ($(#[$doc:meta])* $name:ident, $service:expr, $state:path, $module:ident,
     $command:ident :: $command_record:ident, $event:ident :: $event_record:ident,
     $outcome:ident :: $outcome_record:ident, $state_module:ident :: $state_record:ident, $aggregate:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;

        record!($module::v1::$command_record, $command::Command, command);
        record!($module::v1::$event_record, $event::Event, event);
        record!($module::v1::$outcome_record, $outcome::Outcome, outcome);
        state_record!($module::v1::$state_record, $state_module, $aggregate, $state);

        impl Contract for $name {
            const SERVICE: Service = $service;
            type Command = $command::Command;
            type Event = $event::Event;
            type State = $state;
            type Outcome = $outcome::Outcome;
            type CommandRecord = $module::v1::$command_record;
            type EventRecord = $module::v1::$event_record;
            type StateRecord = $module::v1::$state_record;
            type OutcomeRecord = $module::v1::$outcome_record;

            fn parked() -> Self::Outcome {
                $outcome::Outcome::Parked(CommandParked {})
            }
        }
    };
}

contract!(
    /// The contract of orders.
    Orders, Service::Orders, orders::v1::Order, orders,
    order_command::OrderCommand, order_event::OrderEvent,
    order_outcome::OrderOutcome, order_state::OrderState, Order
);
contract!(
    /// The contract of inventory.
    Inventory, Service::Inventory, inventory::v1::StockItem, inventory,
    stock_command::StockCommand, stock_event::StockEvent,
    stock_outcome::StockOutcome, stock_state::StockState, StockItem
);
contract!(
    /// The contract of payments.
    Payments, Service::Payments, payments::v1::Payment, payments,
    payment_command::PaymentCommand, payment_event::PaymentEvent,
    payment_outcome::PaymentOutcome, payment_state::PaymentState, Payment
);
contract!(
    /// The contract of shipping.
    Shipping, Service::Shipping, shipping::v1::Shipment, shipping,
    shipment_command::ShipmentCommand, shipment_event::ShipmentEvent,
    shipment_outcome::ShipmentOutcome, shipment_state::ShipmentState, Shipment
);

/// A command of any service.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// To orders.
    Order(order_command::Command),
    /// To inventory.
    Stock(stock_command::Command),
    /// To payments.
    Payment(payment_command::Command),
    /// To shipping.
    Shipment(shipment_command::Command),
}

/// A command addressed to an aggregate.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Id of the aggregate; also the key of the record.
    pub aggregate_id: String,
    /// The command.
    pub command: Command,
}

impl Message {
    /// A message to `aggregate_id`.
    pub fn new(aggregate_id: impl Into<String>, command: impl Into<Command>) -> Self {
        Self {
            aggregate_id: aggregate_id.into(),
            command: command.into(),
        }
    }

    /// The service that receives the command.
    pub const fn service(&self) -> Service {
        match self.command {
            Command::Order(_) => Service::Orders,
            Command::Stock(_) => Service::Inventory,
            Command::Payment(_) => Service::Payments,
            Command::Shipment(_) => Service::Shipping,
        }
    }

    /// The name of the command.
    pub fn kind(&self) -> &'static str {
        match &self.command {
            Command::Order(command) => command.kind(),
            Command::Stock(command) => command.kind(),
            Command::Payment(command) => command.kind(),
            Command::Shipment(command) => command.kind(),
        }
    }

    /// The violations of the command's field rules.
    pub fn violations(&self) -> Vec<Violation> {
        match &self.command {
            Command::Order(command) => command.violations(),
            Command::Stock(command) => command.violations(),
            Command::Payment(command) => command.violations(),
            Command::Shipment(command) => command.violations(),
        }
    }

    /// Appends the encoded record of the command to `bytes`.
    pub fn encode(self, metadata: Metadata, bytes: &mut Vec<u8>) {
        fn append(record: &impl prost::Message, bytes: &mut Vec<u8>) {
            record.encode(bytes).expect("a vector grows");
        }
        match self.command {
            Command::Order(command) => append(
                &orders::v1::OrderCommand::new_record(metadata, command),
                bytes,
            ),
            Command::Stock(command) => append(
                &inventory::v1::StockCommand::new_record(metadata, command),
                bytes,
            ),
            Command::Payment(command) => append(
                &payments::v1::PaymentCommand::new_record(metadata, command),
                bytes,
            ),
            Command::Shipment(command) => append(
                &shipping::v1::ShipmentCommand::new_record(metadata, command),
                bytes,
            ),
        }
    }
}

macro_rules! into_command {
    ($module:ident, $variant:ident) => {
        impl From<$module::Command> for Command {
            fn from(command: $module::Command) -> Self {
                Self::$variant(command)
            }
        }
    };
}
into_command!(order_command, Order);
into_command!(stock_command, Stock);
into_command!(payment_command, Payment);
into_command!(shipment_command, Shipment);
