//! Checks of the platform at rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use contracts::core::v1::Metadata;
use contracts::orders::v1::OrderStatus;
use contracts::payments::v1::{PaymentStatus, payment_command};
use contracts::shipping::v1::{ShipmentStatus, shipment_command};
use contracts::{
    Contract, Inventory, Orders, Payments, Record, Service, Shipping, StateBody, Topic,
};
use engine::log::{Input, Partition};
use engine::{Codec, Context, Decider, State, headers};
use inventory::StockRules;
use orders::OrderRules;
use payments::PaymentRules;
use prost::Message as _;
use shipping::ShipmentRules;
use uuid::Uuid;

use crate::simulation::Simulation;
use crate::workload::REPLY_TO;

/// Whether a command is an answer to an effect of a payment.
pub fn is_payment_answer(effect: &payments::Effect, command: &payment_command::Command) -> bool {
    use payment_command::Command;
    match effect {
        payments::Effect::Charge { .. } | payments::Effect::Void { .. } => matches!(
            command,
            Command::RecordCharged(_)
                | Command::RecordChargeDeclined(_)
                | Command::RecordChargeVoided(_)
        ),
        payments::Effect::Refund { attempt, .. } => match command {
            Command::RecordRefunded(answer) => answer.attempt == *attempt,
            Command::RecordRefundRefused(answer) => answer.attempt == *attempt,
            _ => false,
        },
    }
}

/// Whether a command is an answer to an effect of a shipment.
pub fn is_shipment_answer(effect: &shipping::Effect, command: &shipment_command::Command) -> bool {
    use shipment_command::Command;
    match effect {
        shipping::Effect::Book { .. } | shipping::Effect::Void { .. } => matches!(
            command,
            Command::RecordBooked(_)
                | Command::RecordBookingRefused(_)
                | Command::RecordBookingVoided(_)
        ),
        shipping::Effect::Track { .. } => matches!(command, Command::RecordDelivered(_)),
    }
}

/// All violations in the log, the ledgers of the partners and the read model.
pub fn violations(simulation: &Simulation) -> Vec<String> {
    let mut checker = LogChecker {
        simulation,
        codec: &simulation.process_context.codec,
        violations: Vec::new(),
        expected: BTreeMap::new(),
    };
    let orders = checker.check_service::<OrderRules>(&simulation.order_rules(), |_| None);
    let stock = checker.check_service::<StockRules>(&simulation.stock_rules(), |item| {
        let reserved: u64 = item
            .reservations
            .iter()
            .map(|reservation| u64::from(reservation.quantity))
            .sum();
        (reserved > item.on_hand || reserved != item.reserved)
            .then(|| format!("{reserved} reserved of {} on hand", item.on_hand))
    });
    let payments = checker.check_service::<PaymentRules>(&simulation.payment_rules(), |_| None);
    let shipments = checker.check_service::<ShipmentRules>(&ShipmentRules, |_| None);
    checker.check_messages();
    let mut violations = checker.violations;
    for (sku, item) in &stock {
        if item.reserved > 0 {
            violations.push(format!("{sku}: {} pieces stay reserved", item.reserved));
        }
    }
    for id in simulation.workload.acknowledged() {
        if !orders.contains_key(&id) && !has_outcome(simulation, &id) {
            violations.push(format!("order {id} was acknowledged and is missing"));
        }
    }
    check_money(simulation, &orders, &payments, &mut violations);
    for (id, order) in &orders {
        let shipment = shipments.get(id).map(|shipment| shipment.status());
        let is_shipped = matches!(
            order.status(),
            OrderStatus::Shipped | OrderStatus::Delivered
        );
        let has_left = matches!(
            shipment,
            Some(ShipmentStatus::Dispatched | ShipmentStatus::Delivered)
        );
        if is_shipped != has_left {
            violations.push(format!(
                "order {id} is {:?}, its shipment is {shipment:?}",
                order.status()
            ));
        }
    }
    violations.append(&mut simulation.projectors.violations(simulation));
    violations
}

/// Aggregates that have not reached a final status.
pub fn unfinished(simulation: &Simulation) -> Vec<String> {
    let mut pending = Vec::new();
    collect_unfinished::<OrderRules>(simulation, &mut pending, OrderRules::finished);
    collect_unfinished::<PaymentRules>(simulation, &mut pending, |payment| {
        !matches!(
            payment.status(),
            PaymentStatus::Requested | PaymentStatus::CancelRequested | PaymentStatus::Refunding
        )
    });
    collect_unfinished::<ShipmentRules>(simulation, &mut pending, |shipment| {
        !matches!(
            shipment.status(),
            ShipmentStatus::Requested | ShipmentStatus::Cancelling | ShipmentStatus::Dispatched
        )
    });
    pending
}

fn collect_unfinished<D: Decider>(
    simulation: &Simulation,
    pending: &mut Vec<String>,
    is_finished: impl Fn(&State<D>) -> bool,
) {
    let mut states: BTreeMap<String, State<D>> = BTreeMap::new();
    for partition in 0..Partition::from(simulation.plan.partitions) {
        for input in read(simulation, D::Contract::SERVICE, Topic::Events, partition) {
            if let Ok((metadata, event)) = event::<D>(&simulation.process_context.codec, &input) {
                D::evolve(states.entry(metadata.aggregate_id).or_default(), &event);
            }
        }
    }
    let unfinished = states.into_iter().filter(|(_, state)| !is_finished(state));
    pending.extend(unfinished.map(|(id, _)| format!("{} {id}", D::Contract::SERVICE)));
}

/// Whether a command to the order has an outcome.
fn has_outcome(simulation: &Simulation, id: &str) -> bool {
    (0..Partition::from(simulation.plan.partitions)).any(|partition| {
        let outcomes = read(simulation, Service::Orders, Topic::Outcomes, partition);
        outcomes.iter().any(|input| {
            let decoded = simulation
                .process_context
                .codec
                .decode::<<Orders as Contract>::OutcomeRecord>(
                    Service::Orders,
                    Topic::Outcomes,
                    input,
                );
            decoded.is_ok_and(|(metadata, _)| metadata.aggregate_id == id)
        })
    })
}

fn check_money(
    simulation: &Simulation,
    orders: &BTreeMap<String, State<OrderRules>>,
    payments: &BTreeMap<String, State<PaymentRules>>,
    violations: &mut Vec<String>,
) {
    let mut charged: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut refunded: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for entry in simulation.partners.sandbox.payments() {
        let order = entry.idempotency_key.split('/').next().unwrap_or_default();
        let amount = entry.amount.map_or(0, |amount| amount.minor_units);
        let list = match entry.kind.as_str() {
            "charged" => &mut charged,
            "refunded" => &mut refunded,
            _ => continue,
        };
        list.entry(order.to_owned()).or_default().push(amount);
    }
    for (id, amounts) in &charged {
        if amounts.len() > 1 {
            violations.push(format!("order {id} is charged {} times", amounts.len()));
        }
        if !orders.contains_key(id) {
            violations.push(format!("{id} is charged and has no order"));
        }
    }
    for (id, order) in orders {
        let paid: i64 = charged.get(id).into_iter().flatten().sum();
        let returned: i64 = refunded.get(id).into_iter().flatten().sum();
        let kept = paid - returned;
        let is_sold = matches!(
            order.status(),
            OrderStatus::Shipped | OrderStatus::Delivered
        );
        if is_sold && kept != order.total || !is_sold && kept != 0 {
            violations.push(format!(
                "order {id} is {:?} with total {}, and {kept} was kept",
                order.status(),
                order.total
            ));
        }
        let status = payments.get(id).map(|payment| payment.status());
        let is_settled = matches!(status, Some(PaymentStatus::Settled));
        if is_sold && order.total > 0 && !is_settled {
            violations.push(format!("order {id} is sold, its payment is {status:?}"));
        }
    }
}

/// Compares the topics of all services with each other.
struct LogChecker<'a> {
    simulation: &'a Simulation,
    codec: &'a Codec,
    violations: Vec<String>,
    /// Ids of the messages and outcomes that events and commands cause, each with a description of its cause.
    expected: BTreeMap<(Service, Topic, String), String>,
}

impl LogChecker<'_> {
    fn add_violation(&mut self, violation: String) {
        self.violations.push(violation);
    }

    /// Decides every command of a service again, and compares the result with its events and states.
    fn check_service<D: Decider>(
        &mut self,
        rules: &D,
        state_violation: impl Fn(&State<D>) -> Option<String>,
    ) -> BTreeMap<String, State<D>> {
        let service = D::Contract::SERVICE;
        let mut states = BTreeMap::new();
        for partition in 0..Partition::from(self.simulation.plan.partitions) {
            let aggregates = self.check_partition(rules, partition, &state_violation);
            self.check_states::<D>(partition, &aggregates);
            for (id, mut aggregate) in aggregates {
                let state = aggregate.states.pop().unwrap_or_default();
                if states.insert(id.clone(), state).is_some() {
                    self.add_violation(format!("{service} {id} has events in two partitions"));
                }
            }
            let dead = read(self.simulation, service, Topic::Dlq, partition);
            if !dead.is_empty() {
                self.add_violation(format!("{service} has {} dead letters", dead.len()));
            }
        }
        states
    }

    fn check_partition<D: Decider>(
        &mut self,
        rules: &D,
        partition: Partition,
        state_violation: &impl Fn(&State<D>) -> Option<String>,
    ) -> BTreeMap<String, Aggregate<D>> {
        let service = D::Contract::SERVICE;
        let commands = read(self.simulation, service, Topic::Commands, partition);
        let events = read(self.simulation, service, Topic::Events, partition);
        let mut aggregates: BTreeMap<String, Aggregate<D>> = BTreeMap::new();
        let mut events = events.iter().peekable();
        for input in &commands {
            let Ok((metadata, command)) = self.codec.command::<D::Contract>(input) else {
                self.add_violation(format!("{service} has an unreadable command"));
                continue;
            };
            let id = metadata.aggregate_id.clone();
            let aggregate = aggregates.entry(id.clone()).or_default();
            let context = Context {
                aggregate_id: &id,
                version: aggregate.states.len() as u64,
                time_ms: input.time_ms.max(aggregate.time_ms),
                evicted_through_ms: 0,
            };
            let time_ms = context.time_ms;
            let before = aggregate.states.last().cloned().unwrap_or_default();
            let decided = rules
                .decide(&before, &command, &context)
                .unwrap_or_default();
            let mut found = Vec::new();
            while let Some(event_input) =
                events.next_if(|event| source_offset(event) == input.offset)
            {
                match event::<D>(self.codec, event_input) {
                    Ok((event_metadata, event)) => found.push((event_metadata, event)),
                    Err(()) => self.add_violation(format!("{service} has an unreadable event")),
                }
            }
            let location = format!("{service}.commands/{partition}@{}", input.offset);
            let bodies: Vec<_> = found.iter().map(|(_, event)| event.clone()).collect();
            if bodies != decided {
                self.add_violation(format!(
                    "{location} ({id}) led to {} events, and to {} when decided again",
                    bodies.len(),
                    decided.len()
                ));
            }
            for (index, (event_metadata, event)) in found.into_iter().enumerate() {
                let aggregate = aggregates
                    .entry(event_metadata.aggregate_id.clone())
                    .or_default();
                let version = aggregate.states.len() as u64 + 1;
                if event_metadata.aggregate_version != version
                    || event_metadata.id != derived_id(&metadata.id, index)
                    || event_metadata.aggregate_id != id
                {
                    self.violations.push(format!(
                        "{location}: {service} {id} has version {} after {}",
                        event_metadata.aggregate_version,
                        version - 1
                    ));
                }
                let mut state = aggregate.states.last().cloned().unwrap_or_default();
                D::evolve(&mut state, &event);
                if let Some(state_violation) = state_violation(&state) {
                    self.violations
                        .push(format!("{location}: {id}: {state_violation}"));
                }
                for (index, message) in D::react(&state, &event, &id).into_iter().enumerate() {
                    self.expected.insert(
                        (
                            message.service(),
                            Topic::Commands,
                            derived_id(&event_metadata.id, index),
                        ),
                        format!("{} of {location}", message.kind()),
                    );
                }
                aggregate.time_ms = time_ms;
                aggregate.states.push(state);
            }
            if metadata.reply_to == REPLY_TO {
                self.expected.insert(
                    (
                        service,
                        Topic::Outcomes,
                        derived_id(&metadata.id, usize::MAX),
                    ),
                    format!("the outcome of {location}"),
                );
            }
        }
        if let Some(event) = events.next() {
            self.add_violation(format!(
                "{service}.events/{partition}@{} is out of order: its command {} comes earlier",
                event.offset,
                source_offset(event)
            ));
        }
        aggregates
    }

    /// Checks that every record in the state topic is the fold of the events up to its version.
    fn check_states<D: Decider>(
        &mut self,
        partition: Partition,
        aggregates: &BTreeMap<String, Aggregate<D>>,
    ) {
        let service = D::Contract::SERVICE;
        for input in read(self.simulation, service, Topic::State, partition) {
            if input.payload.is_none() {
                continue;
            }
            let decoded = self.codec.decode::<<D::Contract as Contract>::StateRecord>(
                service,
                Topic::State,
                &input,
            );
            let Ok((metadata, body)) = decoded else {
                self.add_violation(format!("{service} has an unreadable state"));
                continue;
            };
            let StateBody::Aggregate(state) = body else {
                continue;
            };
            let version = usize::try_from(metadata.aggregate_version).unwrap_or(usize::MAX);
            let expected = aggregates
                .get(&metadata.aggregate_id)
                .and_then(|aggregate| aggregate.states.get(version.checked_sub(1)?));
            if expected.is_none_or(|expected| expected.encode_to_vec() != state.encode_to_vec()) {
                self.add_violation(format!(
                    "{service}.state/{partition}@{}: the state of {} at version {version} is not the fold of its events",
                    input.offset, metadata.aggregate_id
                ));
            }
        }
    }

    /// Checks that every expected message and outcome is in its topic exactly once, and no other is.
    fn check_messages(&mut self) {
        let mut counts: HashMap<(Service, Topic, String), usize> = HashMap::new();
        let mut ids = BTreeSet::new();
        for service in Service::ALL {
            for partition in 0..Partition::from(self.simulation.plan.partitions) {
                for topic in [Topic::Commands, Topic::Outcomes] {
                    for input in read(self.simulation, service, topic, partition) {
                        let Some(metadata) = metadata(self.codec, service, topic, &input) else {
                            continue;
                        };
                        if topic == Topic::Commands && metadata.causation_id.is_empty() {
                            continue;
                        }
                        ids.insert((service, topic, metadata.id.clone()));
                        *counts.entry((service, topic, metadata.id)).or_default() += 1;
                    }
                }
            }
        }
        let expected = std::mem::take(&mut self.expected);
        for (key, cause) in &expected {
            let count = counts.get(key).copied().unwrap_or_default();
            if count != 1 {
                self.add_violation(format!("{cause} is in its topic {count} times"));
            }
        }
        for key in ids {
            if !expected.contains_key(&key) {
                self.add_violation(format!(
                    "{} in {}.{} has no cause",
                    key.2,
                    key.0,
                    key.1.name()
                ));
            }
        }
    }
}

struct Aggregate<D: Decider> {
    /// The state after each event.
    states: Vec<State<D>>,
    time_ms: i64,
}

impl<D: Decider> Default for Aggregate<D> {
    fn default() -> Self {
        Self {
            states: Vec::new(),
            time_ms: 0,
        }
    }
}

fn read(
    simulation: &Simulation,
    service: Service,
    topic: Topic,
    partition: Partition,
) -> Vec<Input> {
    let tp = (service, topic, partition);
    simulation.broker.fetch(tp, 0, usize::MAX).inputs
}

/// The offset of the command that caused the event; -1 when the header is missing.
fn source_offset(event: &Input) -> i64 {
    event
        .header(headers::SOURCE_OFFSET)
        .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok())
        .unwrap_or(-1)
}

fn event<D: Decider>(codec: &Codec, input: &Input) -> Result<(Metadata, engine::Event<D>), ()> {
    codec
        .decode::<<D::Contract as Contract>::EventRecord>(
            D::Contract::SERVICE,
            Topic::Events,
            input,
        )
        .map_err(|_| ())
}

fn metadata(codec: &Codec, service: Service, topic: Topic, input: &Input) -> Option<Metadata> {
    fn decode<R: Record>(
        codec: &Codec,
        service: Service,
        topic: Topic,
        input: &Input,
    ) -> Option<Metadata> {
        let decoded = codec.decode::<R>(service, topic, input);
        decoded.ok().map(|(metadata, _)| metadata)
    }
    macro_rules! decode {
        ($contract:ty) => {
            match topic {
                Topic::Commands => {
                    decode::<<$contract as Contract>::CommandRecord>(codec, service, topic, input)
                }
                _ => decode::<<$contract as Contract>::OutcomeRecord>(codec, service, topic, input),
            }
        };
    }
    match service {
        Service::Orders => decode!(Orders),
        Service::Inventory => decode!(Inventory),
        Service::Payments => decode!(Payments),
        Service::Shipping => decode!(Shipping),
    }
}

/// UUIDv5(parent, index).
fn derived_id(parent: &str, index: usize) -> String {
    let parent = Uuid::try_parse(parent).unwrap_or_default();
    Uuid::new_v5(&parent, index.to_string().as_bytes()).to_string()
}
