//! What must hold when all is at rest.

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

use crate::workload::REPLY_TO;
use crate::world::World;

/// Whether a command answers an effect of a payment.
pub fn answers_payment(effect: &payments::Effect, command: &payment_command::Command) -> bool {
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

/// Whether a command answers an effect of a shipment.
pub fn answers_shipment(effect: &shipping::Effect, command: &shipment_command::Command) -> bool {
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

/// Everything that is wrong.
pub fn at_rest(world: &World) -> Vec<String> {
    let mut look = Look {
        world,
        codec: &world.parts.codec,
        violations: Vec::new(),
        expected: BTreeMap::new(),
    };
    let orders = look.service::<OrderRules>(&world.order_rules(), |_| None);
    let stock = look.service::<StockRules>(&world.stock_rules(), |item| {
        let reserved: u64 = item
            .reservations
            .iter()
            .map(|reservation| u64::from(reservation.quantity))
            .sum();
        (reserved > item.on_hand || reserved != item.reserved)
            .then(|| format!("{reserved} reserved of {} on hand", item.on_hand))
    });
    let payments = look.service::<PaymentRules>(&world.payment_rules(), |_| None);
    let shipments = look.service::<ShipmentRules>(&ShipmentRules, |_| None);
    look.messages();
    let mut violations = look.violations;
    for (sku, item) in &stock {
        if item.reserved > 0 {
            violations.push(format!("{sku}: {} pieces are stranded", item.reserved));
        }
    }
    for id in world.customers.acknowledged() {
        if !orders.contains_key(&id) && !is_refused(world, &id) {
            violations.push(format!("order {id} was acknowledged and is not there"));
        }
    }
    money(world, &orders, &payments, &mut violations);
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
                "order {id} is {:?}, its shipment {shipment:?}",
                order.status()
            ));
        }
    }
    violations.append(&mut world.projectors.check(world));
    violations
}

/// Who still waits for something.
pub fn unfinished(world: &World) -> Vec<String> {
    let mut waiting = Vec::new();
    wait_for::<OrderRules>(world, &mut waiting, OrderRules::finished);
    wait_for::<PaymentRules>(world, &mut waiting, |payment| {
        !matches!(
            payment.status(),
            PaymentStatus::Requested | PaymentStatus::CancelRequested | PaymentStatus::Refunding
        )
    });
    wait_for::<ShipmentRules>(world, &mut waiting, |shipment| {
        !matches!(
            shipment.status(),
            ShipmentStatus::Requested | ShipmentStatus::Cancelling | ShipmentStatus::Dispatched
        )
    });
    waiting
}

fn wait_for<D: Decider>(
    world: &World,
    waiting: &mut Vec<String>,
    is_over: impl Fn(&State<D>) -> bool,
) {
    let mut states: BTreeMap<String, State<D>> = BTreeMap::new();
    for partition in 0..Partition::from(world.plan.partitions) {
        for input in read(world, D::Contract::SERVICE, Topic::Events, partition) {
            if let Ok((metadata, event)) = event::<D>(&world.parts.codec, &input) {
                D::evolve(states.entry(metadata.aggregate_id).or_default(), &event);
            }
        }
    }
    let open = states.into_iter().filter(|(_, state)| !is_over(state));
    waiting.extend(open.map(|(id, _)| format!("{} {id}", D::Contract::SERVICE)));
}

fn is_refused(world: &World, id: &str) -> bool {
    (0..Partition::from(world.plan.partitions)).any(|partition| {
        let outcomes = read(world, Service::Orders, Topic::Outcomes, partition);
        outcomes.iter().any(|input| {
            let decoded = world
                .parts
                .codec
                .own::<<Orders as Contract>::OutcomeRecord>(
                    Service::Orders,
                    Topic::Outcomes,
                    input,
                );
            decoded.is_ok_and(|(metadata, _)| metadata.aggregate_id == id)
        })
    })
}

fn money(
    world: &World,
    orders: &BTreeMap<String, State<OrderRules>>,
    payments: &BTreeMap<String, State<PaymentRules>>,
    violations: &mut Vec<String>,
) {
    let mut charged: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut refunded: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for entry in world.partners.sandbox.payments() {
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
            violations.push(format!("{id} is charged and is no order"));
        }
    }
    for (id, order) in orders {
        let paid: i64 = charged.get(id).into_iter().flatten().sum();
        let back: i64 = refunded.get(id).into_iter().flatten().sum();
        let keeps = paid - back;
        let is_sold = matches!(
            order.status(),
            OrderStatus::Shipped | OrderStatus::Delivered
        );
        if is_sold && keeps != order.total || !is_sold && keeps != 0 {
            violations.push(format!(
                "order {id} is {:?} over {}, and {keeps} was kept",
                order.status(),
                order.total
            ));
        }
        let status = payments.get(id).map(|payment| payment.status());
        let is_settled = matches!(status, Some(PaymentStatus::Settled));
        if is_sold && order.total > 0 && !is_settled {
            violations.push(format!("order {id} is sold, its payment {status:?}"));
        }
    }
}

/// What the topics of all services have to hold, as far as it has been seen.
struct Look<'a> {
    world: &'a World,
    codec: &'a Codec,
    violations: Vec<String>,
    /// Ids of the messages and outcomes that events and commands lead to, and what they come from.
    expected: BTreeMap<(Service, Topic, String), String>,
}

impl Look<'_> {
    fn wrong(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Decides every command of a service again, and holds it against its events and states.
    fn service<D: Decider>(
        &mut self,
        rules: &D,
        flaw: impl Fn(&State<D>) -> Option<String>,
    ) -> BTreeMap<String, State<D>> {
        let service = D::Contract::SERVICE;
        let mut states = BTreeMap::new();
        for partition in 0..Partition::from(self.world.plan.partitions) {
            let aggregates = self.partition(rules, partition, &flaw);
            self.states::<D>(partition, &aggregates);
            for (id, mut aggregate) in aggregates {
                let state = aggregate.states.pop().unwrap_or_default();
                if states.insert(id.clone(), state).is_some() {
                    self.wrong(format!("{service} {id} has events in two partitions"));
                }
            }
            let dead = read(self.world, service, Topic::Dlq, partition);
            if !dead.is_empty() {
                self.wrong(format!("{service} has {} dead letters", dead.len()));
            }
        }
        states
    }

    fn partition<D: Decider>(
        &mut self,
        rules: &D,
        partition: Partition,
        flaw: &impl Fn(&State<D>) -> Option<String>,
    ) -> BTreeMap<String, Aggregate<D>> {
        let service = D::Contract::SERVICE;
        let commands = read(self.world, service, Topic::Commands, partition);
        let events = read(self.world, service, Topic::Events, partition);
        let mut aggregates: BTreeMap<String, Aggregate<D>> = BTreeMap::new();
        let mut events = events.iter().peekable();
        for input in &commands {
            let Ok((metadata, command)) = self.codec.command::<D::Contract>(input) else {
                self.wrong(format!("{service} has an unreadable command"));
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
            while let Some(event_input) = events.next_if(|event| source(event) == input.offset) {
                match event::<D>(self.codec, event_input) {
                    Ok((event_metadata, event)) => found.push((event_metadata, event)),
                    Err(()) => self.wrong(format!("{service} has an unreadable event")),
                }
            }
            let place = format!("{service}.commands/{partition}@{}", input.offset);
            let bodies: Vec<_> = found.iter().map(|(_, event)| event.clone()).collect();
            if bodies != decided {
                self.wrong(format!(
                    "{place} ({id}) led to {} events, and to {} when it is decided again",
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
                    || event_metadata.id != derived(&metadata.id, index)
                    || event_metadata.aggregate_id != id
                {
                    self.violations.push(format!(
                        "{place}: {service} {id} has version {} after {}",
                        event_metadata.aggregate_version,
                        version - 1
                    ));
                }
                let mut state = aggregate.states.last().cloned().unwrap_or_default();
                D::evolve(&mut state, &event);
                if let Some(flaw) = flaw(&state) {
                    self.violations.push(format!("{place}: {id}: {flaw}"));
                }
                for (index, message) in D::react(&state, &event, &id).into_iter().enumerate() {
                    self.expected.insert(
                        (
                            message.service(),
                            Topic::Commands,
                            derived(&event_metadata.id, index),
                        ),
                        format!("{} of {place}", message.kind()),
                    );
                }
                aggregate.time_ms = time_ms;
                aggregate.states.push(state);
            }
            if metadata.reply_to == REPLY_TO {
                self.expected.insert(
                    (service, Topic::Outcomes, derived(&metadata.id, usize::MAX)),
                    format!("the outcome of {place}"),
                );
            }
        }
        if let Some(event) = events.next() {
            self.wrong(format!(
                "{service}.events/{partition}@{} comes out of order: command {} was passed before",
                event.offset,
                source(event)
            ));
        }
        aggregates
    }

    /// Every state that was kept is the fold of that many events.
    fn states<D: Decider>(
        &mut self,
        partition: Partition,
        aggregates: &BTreeMap<String, Aggregate<D>>,
    ) {
        let service = D::Contract::SERVICE;
        for input in read(self.world, service, Topic::State, partition) {
            if input.payload.is_none() {
                continue;
            }
            let decoded = self.codec.own::<<D::Contract as Contract>::StateRecord>(
                service,
                Topic::State,
                &input,
            );
            let Ok((metadata, body)) = decoded else {
                self.wrong(format!("{service} has an unreadable state"));
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
                self.wrong(format!(
                    "{service}.state/{partition}@{}: the state of {} at version {version} is not the fold of its events",
                    input.offset, metadata.aggregate_id
                ));
            }
        }
    }

    /// Whatever has to be sent stands in its topic once, and nothing else does.
    fn messages(&mut self) {
        let mut seen: HashMap<(Service, Topic, String), usize> = HashMap::new();
        let mut ids = BTreeSet::new();
        for service in Service::ALL {
            for partition in 0..Partition::from(self.world.plan.partitions) {
                for topic in [Topic::Commands, Topic::Outcomes] {
                    for input in read(self.world, service, topic, partition) {
                        let Some(metadata) = metadata(self.codec, service, topic, &input) else {
                            continue;
                        };
                        if topic == Topic::Commands && metadata.causation_id.is_empty() {
                            continue;
                        }
                        ids.insert((service, topic, metadata.id.clone()));
                        *seen.entry((service, topic, metadata.id)).or_default() += 1;
                    }
                }
            }
        }
        let expected = std::mem::take(&mut self.expected);
        for (key, what) in &expected {
            let count = seen.get(key).copied().unwrap_or_default();
            if count != 1 {
                self.wrong(format!("{what} stands in its topic {count} times"));
            }
        }
        for key in ids {
            if !expected.contains_key(&key) {
                self.wrong(format!(
                    "{} in {}.{} comes of nothing",
                    key.2,
                    key.0,
                    key.1.name()
                ));
            }
        }
    }
}

struct Aggregate<D: Decider> {
    /// After each event.
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

fn read(world: &World, service: Service, topic: Topic, partition: Partition) -> Vec<Input> {
    let place = (service, topic, partition);
    world.broker.fetch(place, 0, usize::MAX).inputs
}

fn source(event: &Input) -> i64 {
    event
        .header(headers::SOURCE_OFFSET)
        .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok())
        .unwrap_or(-1)
}

fn event<D: Decider>(codec: &Codec, input: &Input) -> Result<(Metadata, engine::Event<D>), ()> {
    codec
        .own::<<D::Contract as Contract>::EventRecord>(D::Contract::SERVICE, Topic::Events, input)
        .map_err(|_| ())
}

fn metadata(codec: &Codec, service: Service, topic: Topic, input: &Input) -> Option<Metadata> {
    fn of<R: Record>(
        codec: &Codec,
        service: Service,
        topic: Topic,
        input: &Input,
    ) -> Option<Metadata> {
        let decoded = codec.own::<R>(service, topic, input);
        decoded.ok().map(|(metadata, _)| metadata)
    }
    macro_rules! of {
        ($contract:ty) => {
            match topic {
                Topic::Commands => {
                    of::<<$contract as Contract>::CommandRecord>(codec, service, topic, input)
                }
                _ => of::<<$contract as Contract>::OutcomeRecord>(codec, service, topic, input),
            }
        };
    }
    match service {
        Service::Orders => of!(Orders),
        Service::Inventory => of!(Inventory),
        Service::Payments => of!(Payments),
        Service::Shipping => of!(Shipping),
    }
}

/// UUIDv5(parent, index).
fn derived(parent: &str, index: usize) -> String {
    let parent = Uuid::try_parse(parent).unwrap_or_default();
    Uuid::new_v5(&parent, index.to_string().as_bytes()).to_string()
}
