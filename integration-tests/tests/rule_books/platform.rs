//! The four services and their partners in memory.

use std::collections::{BTreeMap, VecDeque};

use contracts::inventory::v1::{AdjustStock, stock_command};
use contracts::orders::v1::{
    Address, CancelOrder, Contact, OrderLine, OrderRejection, PlaceOrder, order_command,
};
use contracts::{Message, Payments, Service};
use engine::{Command, Context, Decider, Event, Outstanding, State};
use inventory::StockRules;
use orders::OrderRules;
use shipping::ShipmentRules;

use super::invariants;
use super::partners::{Carrier, Provider};

pub const SKUS: [&str; 3] = ["a", "b", "c"];

/// Start of a scenario, Unix milliseconds.
const BEGIN_MS: i64 = 1_700_000_000_000;
/// Upper limit of concurrent calls for one effect, those of former owners included.
const MAX_CALLS: usize = 3;
/// Enough steps for every scenario to finish.
const MAX_STEPS: usize = 20_000;

/// An aggregate with all its commands and events.
pub struct Aggregate<D: Decider> {
    pub state: State<D>,
    pub events: Vec<Event<D>>,
    commands: Vec<(Command<D>, i64)>,
}

/// A rule book and its aggregates.
pub struct AggregateStore<D: Decider> {
    rules: D,
    pub aggregates: BTreeMap<String, Aggregate<D>>,
}

impl<D: Decider> AggregateStore<D> {
    fn new(rules: D) -> Self {
        Self {
            rules,
            aggregates: BTreeMap::new(),
        }
    }

    /// Decides a command and folds its events. Returns the messages to other services.
    fn handle(
        &mut self,
        id: &str,
        command: &Command<D>,
        time_ms: i64,
    ) -> Result<Vec<Message>, D::Rejection> {
        let aggregate = self
            .aggregates
            .entry(id.to_owned())
            .or_insert_with(|| Aggregate {
                state: State::<D>::default(),
                events: Vec::new(),
                commands: Vec::new(),
            });
        aggregate.commands.push((command.clone(), time_ms));
        let context = Context {
            aggregate_id: id,
            version: aggregate.events.len() as u64,
            time_ms,
            evicted_through_ms: 0,
        };
        let events = self.rules.decide(&aggregate.state, command, &context)?;
        let was_finished = D::finished(&aggregate.state);
        let mut messages = Vec::new();
        for event in events {
            D::evolve(&mut aggregate.state, &event);
            messages.extend(D::react(&aggregate.state, &event, id));
            aggregate.events.push(event);
        }
        assert!(
            !was_finished || D::finished(&aggregate.state),
            "{id} was finished and is not any more"
        );
        Ok(messages)
    }

    /// Asserts that the same commands give the same events and the same state again.
    pub fn assert_replays(&self) {
        for (id, aggregate) in &self.aggregates {
            let (mut state, mut events) = (State::<D>::default(), Vec::new());
            for (command, time_ms) in &aggregate.commands {
                let context = Context {
                    aggregate_id: id,
                    version: events.len() as u64,
                    time_ms: *time_ms,
                    evicted_through_ms: 0,
                };
                for event in self
                    .rules
                    .decide(&state, command, &context)
                    .unwrap_or_default()
                {
                    D::evolve(&mut state, &event);
                    events.push(event);
                }
            }
            assert!(
                events == aggregate.events && state == aggregate.state,
                "{id} replays differently"
            );
        }
    }
}

/// A call to a partner in flight.
struct Call<E> {
    id: String,
    key: String,
    effect: E,
}

/// The four services, their partners, and the messages in flight between them.
pub struct Platform<P: Decider<Contract = Payments, Effect = payments::Effect>> {
    time_ms: i64,
    pub orders: AggregateStore<OrderRules>,
    pub stock: AggregateStore<StockRules>,
    pub payments: AggregateStore<P>,
    pub shipments: AggregateStore<ShipmentRules>,
    pub provider: Provider,
    pub carrier: Carrier,
    /// Acknowledged orders.
    pub acknowledged: BTreeMap<String, PlaceOrder>,
    /// Messages between two aggregates keep their order.
    channels: BTreeMap<(Service, String, Service, String), VecDeque<Message>>,
    /// Calls reach their partner in any order, also when their caller has gone.
    charges: Vec<Call<payments::Effect>>,
    bookings: Vec<Call<shipping::Effect>>,
    /// Answers reach their aggregate in any order, and more than once.
    answers: Vec<Message>,
}

enum NextStep {
    Message((Service, String, Service, String)),
    AskProvider(String),
    AskCarrier(String),
    ProviderDecides(usize),
    CarrierDecides(usize),
    Answer(usize),
}

impl<P> Platform<P>
where
    P: Decider<Contract = Payments, Effect = payments::Effect>,
{
    pub fn new(payments: P, pieces: i64) -> Self {
        let mut platform = Self {
            time_ms: BEGIN_MS,
            orders: AggregateStore::new(OrderRules::default()),
            stock: AggregateStore::new(StockRules::default()),
            payments: AggregateStore::new(payments),
            shipments: AggregateStore::new(ShipmentRules),
            provider: Provider::default(),
            carrier: Carrier::default(),
            acknowledged: BTreeMap::new(),
            channels: BTreeMap::new(),
            charges: Vec::new(),
            bookings: Vec::new(),
            answers: Vec::new(),
        };
        for sku in 0..SKUS.len() {
            platform.adjust(sku, pieces);
        }
        platform
    }

    pub fn place(&mut self, lines: &[(u32, i64)]) {
        let lines = SKUS
            .iter()
            .zip(lines)
            .map(|(sku, (quantity, unit_price))| OrderLine {
                sku: (*sku).into(),
                quantity: *quantity,
                unit_price: *unit_price,
                ..Default::default()
            });
        let contact = Contact {
            address: Some(Address::default()),
            ..Default::default()
        };
        let place = PlaceOrder {
            customer_id: "ada".into(),
            contact: Some(contact),
            lines: lines.collect(),
            currency: "EUR".into(),
        };
        let id = self.fresh_id();
        self.customer(&id, order_command::Command::PlaceOrder(place.clone()))
            .expect("a new order is accepted");
        self.acknowledged.insert(id, place);
    }

    pub fn cancel(&mut self, order: usize, customer_id: &str) {
        let (id, _) = self.order(order);
        let cancel = CancelOrder {
            customer_id: customer_id.into(),
        };
        let before = self.orders.aggregates[&id].events.len();
        let outcome = self.customer(&id, order_command::Command::CancelOrder(cancel));
        let is_silent = self.orders.aggregates[&id].events.len() == before;
        assert!(outcome.is_ok() || is_silent, "a refusal changes nothing");
        assert!(
            customer_id == "ada" || outcome.is_err(),
            "a stranger cancels nothing"
        );
    }

    /// Asserts that a repeated call succeeds and changes nothing.
    pub fn repeat(&mut self, order: usize) {
        let (id, place) = self.order(order);
        let before = self.orders.aggregates[&id].events.len();
        self.customer(&id, order_command::Command::PlaceOrder(place))
            .expect("a repetition is accepted");
        assert_eq!(self.orders.aggregates[&id].events.len(), before);
    }

    pub fn reuse_id(&mut self, order: usize) {
        let (id, mut place) = self.order(order);
        place.lines[0].quantity += 1;
        let refused = self.customer(&id, order_command::Command::PlaceOrder(place));
        assert!(refused.is_err(), "another body under the same id");
    }

    pub fn fire_timers(&mut self, order: usize) {
        let (id, _) = self.order(order);
        let state = &self.orders.aggregates[&id].state;
        for outstanding in OrderRules::outstanding(state, &id) {
            let Outstanding::Timer { command, .. } = outstanding;
            self.deliver(Message::new(&*id, command));
        }
    }

    pub fn adjust(&mut self, sku: usize, delta: i64) {
        self.time_ms += 1;
        let adjust = AdjustStock {
            adjustment_id: self.fresh_id(),
            delta,
        };
        let sku = SKUS[sku % SKUS.len()];
        // Refused when it would remove reserved pieces.
        let _ = self.stock.handle(
            sku,
            &stock_command::Command::AdjustStock(adjust),
            self.time_ms,
        );
        invariants::of_stock(sku, &self.stock.aggregates[sku]);
    }

    /// Performs one possible step: the low bits select it, the high bits its outcome. Returns whether there was one.
    pub fn progress(&mut self, choice: u32) -> bool {
        let mut possible = self.possible();
        if possible.is_empty() {
            return false;
        }
        let [what_low, what_high, is_bad, is_lost] = choice.to_le_bytes();
        let what = usize::from(u16::from_le_bytes([what_low, what_high])) % possible.len();
        self.perform(possible.swap_remove(what), is_bad % 4 != 3, is_lost % 4);
        true
    }

    /// Performs all remaining steps, with good outcomes.
    pub fn settle(&mut self) {
        for _ in 0..MAX_STEPS {
            let mut possible = self.possible();
            if possible.is_empty() {
                return;
            }
            self.perform(possible.swap_remove(0), true, 1);
        }
        panic!("the scenario does not finish");
    }

    fn perform(&mut self, next: NextStep, is_good: bool, deliveries: u8) {
        self.time_ms += 1;
        match next {
            NextStep::Message(channel) => {
                let queue = self.channels.get_mut(&channel).expect("it is possible");
                let message = queue.pop_front().expect("empty ones are removed");
                if queue.is_empty() {
                    self.channels.remove(&channel);
                }
                self.deliver(message);
            }
            NextStep::AskProvider(id) => {
                for (key, effect) in effects::<P>(&self.payments.aggregates[&id].state, &id) {
                    let id = id.clone();
                    self.charges.push(Call { id, key, effect });
                }
            }
            NextStep::AskCarrier(id) => {
                let state = &self.shipments.aggregates[&id].state;
                for (key, effect) in effects::<ShipmentRules>(state, &id) {
                    let id = id.clone();
                    self.bookings.push(Call { id, key, effect });
                }
            }
            NextStep::ProviderDecides(index) => {
                let call = self.charges.swap_remove(index);
                let answer = self.provider.carry_out(&call.key, &call.effect, is_good);
                invariants::of_charges(&self.provider, &call.id);
                self.answer(&call.id, answer, deliveries);
            }
            NextStep::CarrierDecides(index) => {
                let call = self.bookings.swap_remove(index);
                let answer = self.carrier.carry_out(&call.key, &call.effect, is_good);
                self.answer(&call.id, answer, deliveries);
            }
            NextStep::Answer(index) => {
                let answer = self.answers.swap_remove(index);
                self.deliver(answer);
            }
        }
    }

    /// Delivers an answer never, once, or more than once.
    fn answer(&mut self, id: &str, answer: impl Into<contracts::Command>, times: u8) {
        let answer = Message::new(id, answer);
        self.answers
            .extend(std::iter::repeat_n(answer, times.into()));
    }

    fn possible(&self) -> Vec<NextStep> {
        let mut possible: Vec<_> = self
            .channels
            .keys()
            .cloned()
            .map(NextStep::Message)
            .collect();
        possible.extend((0..self.answers.len()).map(NextStep::Answer));
        possible.extend((0..self.charges.len()).map(NextStep::ProviderDecides));
        possible.extend((0..self.bookings.len()).map(NextStep::CarrierDecides));
        for (id, payment) in &self.payments.aggregates {
            let waiting = effects::<P>(&payment.state, id);
            if has_room(&waiting, &self.charges, &self.answers, id) {
                possible.push(NextStep::AskProvider(id.clone()));
            }
        }
        for (id, shipment) in &self.shipments.aggregates {
            let waiting = effects::<ShipmentRules>(&shipment.state, id);
            if has_room(&waiting, &self.bookings, &self.answers, id) {
                possible.push(NextStep::AskCarrier(id.clone()));
            }
        }
        possible
    }

    fn customer(
        &mut self,
        id: &str,
        command: order_command::Command,
    ) -> Result<(), OrderRejection> {
        self.time_ms += 1;
        let messages = self.orders.handle(id, &command, self.time_ms)?;
        self.send(Service::Orders, id, messages);
        invariants::of_order(id, &self.orders.aggregates[id]);
        Ok(())
    }

    fn deliver(&mut self, message: Message) {
        let Message {
            aggregate_id: id,
            command,
        } = message;
        let never = "other services are never rejected";
        let time_ms = self.time_ms;
        let (from, messages) = match &command {
            contracts::Command::Order(command) => {
                let messages = self.orders.handle(&id, command, time_ms).expect(never);
                invariants::of_order(&id, &self.orders.aggregates[&id]);
                (Service::Orders, messages)
            }
            contracts::Command::Stock(command) => {
                let messages = self.stock.handle(&id, command, time_ms).expect(never);
                invariants::of_stock(&id, &self.stock.aggregates[&id]);
                (Service::Inventory, messages)
            }
            contracts::Command::Payment(command) => {
                let messages = self.payments.handle(&id, command, time_ms).expect(never);
                invariants::of_payment(&self.payments.aggregates[&id]);
                (Service::Payments, messages)
            }
            contracts::Command::Shipment(command) => {
                let messages = self.shipments.handle(&id, command, time_ms).expect(never);
                invariants::of_shipment(&self.shipments.aggregates[&id]);
                (Service::Shipping, messages)
            }
        };
        self.send(from, &id, messages);
    }

    fn send(&mut self, from: Service, id: &str, messages: Vec<Message>) {
        for message in messages {
            let to = (message.service(), message.aggregate_id.clone());
            let channel = (from, id.to_owned(), to.0, to.1);
            self.channels.entry(channel).or_default().push_back(message);
        }
    }

    fn order(&self, choice: usize) -> (String, PlaceOrder) {
        let (id, place) = self
            .acknowledged
            .iter()
            .nth(choice % self.acknowledged.len())
            .expect("there is an order");
        (id.clone(), place.clone())
    }

    /// A UUIDv7 of the current time; the same one in every run of a scenario.
    fn fresh_id(&mut self) -> String {
        self.time_ms += 1;
        let ms = u64::try_from(self.time_ms).expect("after 1970");
        uuid::Builder::from_unix_timestamp_millis(ms, &[7; 10])
            .into_uuid()
            .to_string()
    }

    /// The final status of every order, payment and shipment.
    pub fn final_statuses(&self) -> Vec<String> {
        use contracts::orders::v1::EndReason;
        let orders = self.orders.aggregates.values().map(|order| {
            let status = order.state.status();
            match order.state.goal() {
                EndReason::Unspecified => format!("{status:?}"),
                goal => format!("{status:?} for {goal:?}"),
            }
        });
        let payments = self
            .payments
            .aggregates
            .values()
            .map(|payment| format!("payment {:?}", payment.state.status()));
        let shipments = self
            .shipments
            .aggregates
            .values()
            .map(|shipment| format!("shipment {:?}", shipment.state.status()));
        orders.chain(payments).chain(shipments).collect()
    }
}

fn effects<D: Decider>(state: &State<D>, id: &str) -> Vec<(String, D::Effect)> {
    D::outstanding(state, id)
        .into_iter()
        .filter_map(|outstanding| match outstanding {
            Outstanding::Effect { key, effect, .. } => Some((key, effect)),
            Outstanding::Timer { .. } => None,
        })
        .collect()
}

/// Whether an outstanding effect may be called once more.
fn has_room<E>(waiting: &[(String, E)], calls: &[Call<E>], answers: &[Message], id: &str) -> bool {
    let in_flight = calls.iter().filter(|call| call.id == id).count();
    let undelivered = answers
        .iter()
        .filter(|answer| answer.aggregate_id == id)
        .count();
    !waiting.is_empty() && in_flight + undelivered < MAX_CALLS
}
