//! One view of the records of every topic, and the commands that services send each other.

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
    /// Orders, and the process manager of an order's life.
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

    /// The name that stands in topics, groups and flags.
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
    /// What the service is asked to do.
    Commands,
    /// What happened: the immutable log.
    Events,
    /// Snapshots for take-over.
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

    /// The name after the service's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Events => "events",
            Self::State => "state",
            Self::Outcomes => "outcomes",
            Self::Dlq => "dlq",
        }
    }

    /// The topic's full name; the prefix keeps tests and tenants apart on one broker.
    pub fn of(self, service: Service, prefix: &str) -> String {
        format!("{prefix}{service}.{}", self.name())
    }
}

/// The content of a record, one of the variants of its `oneof`.
pub trait Body: Clone + Debug + PartialEq + Send + 'static {
    /// What [`Self::kind`] can be, in the order of the proto file.
    const KINDS: &'static [&'static str];

    /// The variant's name as the proto file has it in `oneof`, for logs and metrics.
    fn kind(&self) -> &'static str;

    /// What the body violates of its field rules.
    fn violations(&self) -> Vec<Violation>;
}

/// A message that stands alone in a topic: metadata and a body.
pub trait Record: prost::Message + Default + Clone + PartialEq + ReflectMessage {
    /// The `oneof`.
    type Body: Body;

    /// Puts a record together.
    fn new_record(metadata: Metadata, body: Self::Body) -> Self;

    /// Takes a record apart; `None` when its metadata or its body is missing.
    fn into_parts(self) -> Option<(Metadata, Self::Body)>;
}

/// What a state topic holds: the aggregates of the service and the engine's own entries.
#[derive(Clone, Debug, PartialEq)]
pub enum StateBody<S> {
    /// An aggregate.
    Aggregate(S),
    /// The end of a checkpoint.
    Checkpoint(Checkpoint),
    /// A piece of a large state.
    Chunk(Chunk),
    /// A key that waits behind a dead letter.
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

    /// Only the engine writes these; they have no field rules.
    fn violations(&self) -> Vec<Violation> {
        Vec::new()
    }
}

/// The record types of one service.
pub trait Contract: Send + Sync + 'static {
    /// Whose contract it is.
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

    /// The outcome of a command that waits behind a dead letter.
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
    /// Whom it is for; also its key.
    pub aggregate_id: String,
    /// What is asked.
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

    /// The service that is asked.
    pub const fn service(&self) -> Service {
        match self.command {
            Command::Order(_) => Service::Orders,
            Command::Stock(_) => Service::Inventory,
            Command::Payment(_) => Service::Payments,
            Command::Shipment(_) => Service::Shipping,
        }
    }

    /// The command's name.
    pub fn kind(&self) -> &'static str {
        match &self.command {
            Command::Order(command) => command.kind(),
            Command::Stock(command) => command.kind(),
            Command::Payment(command) => command.kind(),
            Command::Shipment(command) => command.kind(),
        }
    }

    /// What the message violates of its field rules.
    pub fn violations(&self) -> Vec<Violation> {
        match &self.command {
            Command::Order(command) => command.violations(),
            Command::Stock(command) => command.violations(),
            Command::Payment(command) => command.violations(),
            Command::Shipment(command) => command.violations(),
        }
    }

    /// Appends the bytes of the command's record.
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
