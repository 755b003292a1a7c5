//! Properties: several orders run against models of inventory, payments and shipping. What travels between two
//! aggregates keeps its order, everything else happens in any order; customers cancel, timers ring and answers
//! come again at any moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::given::*;
use super::neighbours::{PaymentModel, ShipmentModel, StockModel};
use super::*;

const SKUS: [&str; 3] = ["a", "b", "c"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_order_ends_and_everything_balances(scenario in scenarios()) {
        run(&scenario);
    }

    #[test]
    fn any_command_keeps_to_the_state_machine(commands in prop::collection::vec(any_command(), 0..40)) {
        let mut order = Order::default();
        for command in commands {
            decide_and_fold(&mut order, &id_at(0), &command, NOW);
        }
    }

    #[test]
    fn any_event_leaves_the_order_within_the_state_machine(
        commands in prop::collection::vec(any_command(), 0..20),
        strangers in prop::collection::vec(any_command(), 1..5),
    ) {
        let mut order = Order::default();
        for command in commands {
            decide_and_fold(&mut order, &id_at(0), &command, NOW);
        }
        // Events of another order's life.
        let mut stranger = Order::default();
        for command in strangers {
            for (event, _) in decide_and_fold(&mut stranger, &id_at(0), &command, NOW) {
                let before = order.status();
                OrderRules::evolve(&mut order, &event);
                assert_allowed(before, order.status());
            }
        }
    }
}

/// The properties above say little unless their scenarios reach every end.
#[test]
fn the_scenarios_reach_every_end() {
    let mut runner = TestRunner::deterministic();
    let mut ends = BTreeSet::new();
    for _ in 0..2_000 {
        let scenario = scenarios()
            .new_tree(&mut runner)
            .expect("no filter rejects")
            .current();
        ends.extend(run(&scenario));
    }
    let expected = [
        "Delivered after CANCELLING",
        "Delivered",
        "Cancelled for Customer",
        "Rejected for OutOfStock",
        "Rejected for PaymentDeclined",
        "Rejected for Undeliverable",
        "Rejected for Expired",
    ];
    for end in expected {
        assert!(ends.contains(end), "{end} is missing in {ends:?}");
    }
}

#[derive(Clone, Debug)]
struct Scenario {
    orders: Vec<PlaceOrder>,
    stock: u64,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    /// A message arrives, the provider or the carrier decides: whichever of what can happen next.
    Progress(u16),
    CustomerCancels(u16),
    TimerRings(u16),
    AnswerComesAgain(u16),
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let line = (1..4_u32, prop_oneof![Just(0_i64), Just(7)]);
    let lines = prop::collection::vec(line, 1..=SKUS.len());
    let steps = prop_oneof![
        30 => any::<u16>().prop_map(Step::Progress),
        1 => any::<u16>().prop_map(Step::CustomerCancels),
        1 => any::<u16>().prop_map(Step::TimerRings),
        5 => any::<u16>().prop_map(Step::AnswerComesAgain),
    ];
    let orders = prop::collection::vec(lines.prop_map(order_of), 1..4);
    (orders, 0..10_u64, prop::collection::vec(steps, 0..80)).prop_map(|(orders, stock, steps)| {
        Scenario {
            orders,
            stock,
            steps,
        }
    })
}

fn order_of(lines: Vec<(u32, i64)>) -> PlaceOrder {
    let line = |(sku, (quantity, price)): (&&str, (u32, i64))| line(sku, quantity, price, 0);
    place_lines(SKUS.iter().zip(lines).map(line).collect())
}

fn any_command() -> impl Strategy<Value = Command> {
    let sku = || prop::sample::select(vec!["a", "b", "z"]);
    let step = (1..9_i32).prop_map(|step| OrderStatus::try_from(step).expect("a status"));
    let deadline =
        prop::sample::select(vec![0, NOW + 1_000, NOW + 2_000, NOW + 3_000, NOW + 4_000]);
    prop_oneof![
        4 => Just(Command::PlaceOrder(place())),
        2 => Just(Command::PlaceOrder(free())),
        1 => Just(cancel_by("ada")),
        1 => Just(cancel_by("eve")),
        8 => sku().prop_map(stock_reserved),
        2 => sku().prop_map(stock_refused),
        6 => sku().prop_map(stock_released),
        4 => Just(payment_processed()),
        2 => Just(payment_declined()),
        4 => (0..200_i64).prop_map(payment_cancelled),
        4 => Just(dispatched()),
        4 => Just(arrived()),
        2 => Just(shipment_refused()),
        2 => Just(shipment_cancelled()),
        2 => (step, deadline).prop_map(|(step, deadline_ms)| expire(step, deadline_ms)),
    ]
}

/// Decides a command and folds its events; every step of it stays within the state machine.
fn decide_and_fold(
    order: &mut Order,
    id: &str,
    command: &Command,
    time_ms: i64,
) -> Vec<(Event, Vec<Message>)> {
    let context = Context {
        aggregate_id: id,
        version: 0,
        time_ms,
        evicted_through_ms: 0,
    };
    let decided = RULES.decide(order, command, &context);
    assert_eq!(
        decided,
        RULES.decide(order, command, &context),
        "a decision is deterministic"
    );
    let mut happened = Vec::new();
    for event in decided.unwrap_or_default() {
        let before = order.status();
        assert!(
            fold::follows(order, &event),
            "{event:?} cannot follow {before:?}"
        );
        OrderRules::evolve(order, &event);
        assert_allowed(before, order.status());
        let messages = OrderRules::react(order, &event, id);
        happened.push((event, messages));
    }
    if OrderRules::finished(order) {
        assert_eq!(
            OrderRules::outstanding(order, id),
            vec![],
            "nothing hangs on a finished order"
        );
    }
    happened
}

/// The state machine as the design has it.
fn assert_allowed(before: OrderStatus, after: OrderStatus) {
    use OrderStatus::*;
    let allowed: &[OrderStatus] = match before {
        Unspecified => &[Pending],
        Pending => &[AwaitingPayment, Confirmed, Cancelling],
        AwaitingPayment => &[Confirmed, Cancelling],
        Confirmed => &[Shipped, Cancelling],
        Shipped => &[Delivered],
        Cancelling => &[Cancelled, Rejected, Shipped],
        Delivered | Cancelled | Rejected => &[],
    };
    assert!(
        before == after || allowed.contains(&after),
        "{before:?} became {after:?}"
    );
}

/// Runs a scenario until nothing is left to happen, checks it, and says how each order ended.
fn run(scenario: &Scenario) -> Vec<String> {
    let mut network = Network::new(scenario);
    for step in &scenario.steps {
        network.step(step);
    }
    while network.progress(0) {}
    network.check_at_rest();
    network.orders.iter().map(OrderModel::end).collect()
}

struct Network {
    time_ms: i64,
    orders: Vec<OrderModel>,
    stock: BTreeMap<String, StockModel>,
    /// Messages on their way, by sender and addressee.
    channels: BTreeMap<(Sender, String), VecDeque<Message>>,
    /// Answers that have arrived, which may come again.
    arrived: Vec<(usize, Command)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sender {
    Order(usize, contracts::Service),
    Stock(String),
    Payment,
    Shipment,
}

pub(super) struct OrderModel {
    pub(super) id: String,
    pub(super) order: Order,
    was_cancelling: bool,
    payment: PaymentModel,
    shipment: ShipmentModel,
}

/// Something that can happen next.
enum Next {
    Arrival((Sender, String)),
    ProviderDecides { order: usize, charges: bool },
    CarrierDecides { order: usize, takes: bool },
    Delivery { order: usize },
}

impl Network {
    fn new(scenario: &Scenario) -> Self {
        let mut network = Self {
            time_ms: NOW,
            orders: Vec::new(),
            stock: SKUS
                .map(|sku| (sku.to_owned(), StockModel::holding(scenario.stock)))
                .into(),
            channels: BTreeMap::new(),
            arrived: Vec::new(),
        };
        for (index, place) in (0..).zip(&scenario.orders) {
            network.orders.push(OrderModel {
                id: id_at(index),
                order: Order::default(),
                was_cancelling: false,
                payment: PaymentModel::Unknown,
                shipment: ShipmentModel::Unknown,
            });
            network.tell(
                network.orders.len() - 1,
                &Command::PlaceOrder(place.clone()),
            );
        }
        network
    }

    fn step(&mut self, step: &Step) {
        self.time_ms += 1;
        match step {
            Step::Progress(choice) => {
                self.progress((*choice).into());
            }
            Step::CustomerCancels(choice) => {
                self.tell(usize::from(*choice) % self.orders.len(), &cancel_by("ada"));
            }
            Step::TimerRings(choice) => {
                let index = usize::from(*choice) % self.orders.len();
                let OrderModel { id, order, .. } = &self.orders[index];
                for outstanding in OrderRules::outstanding(order, id) {
                    let Outstanding::Timer { command, .. } = outstanding;
                    self.tell(index, &command);
                }
            }
            Step::AnswerComesAgain(choice) if !self.arrived.is_empty() => {
                let (index, answer) =
                    self.arrived[usize::from(*choice) % self.arrived.len()].clone();
                self.tell(index, &answer);
            }
            Step::AnswerComesAgain(_) => {}
        }
    }

    /// Lets one of the things happen that can; false when nothing can.
    fn progress(&mut self, choice: usize) -> bool {
        let mut possible = self.possible();
        if possible.is_empty() {
            return false;
        }
        match possible.swap_remove(choice % possible.len()) {
            Next::Arrival(channel) => {
                let queue = self.channels.get_mut(&channel).expect("it is possible");
                let message = queue.pop_front().expect("empty channels are removed");
                if queue.is_empty() {
                    self.channels.remove(&channel);
                }
                self.arrive(channel.0, message);
            }
            Next::ProviderDecides {
                order: index,
                charges,
            } => {
                let OrderModel { order, payment, .. } = &mut self.orders[index];
                let answer = payment.provider_decides(order, charges);
                self.answer(Sender::Payment, index, Some(answer));
            }
            Next::CarrierDecides {
                order: index,
                takes,
            } => {
                let answer = self.orders[index].shipment.carrier_decides(takes);
                self.answer(Sender::Shipment, index, Some(answer));
            }
            Next::Delivery { order: index } => {
                let answer = self.orders[index].shipment.carrier_delivers();
                self.answer(Sender::Shipment, index, Some(answer));
            }
        }
        true
    }

    fn possible(&self) -> Vec<Next> {
        let mut possible: Vec<_> = self.channels.keys().cloned().map(Next::Arrival).collect();
        for (order, model) in self.orders.iter().enumerate() {
            if matches!(model.payment, PaymentModel::Requested { .. }) {
                let decision = |charges| Next::ProviderDecides { order, charges };
                possible.extend([true, true, false].map(decision));
            }
            if matches!(model.shipment, ShipmentModel::Requested { .. }) {
                let decision = |takes| Next::CarrierDecides { order, takes };
                possible.extend([true, true, false].map(decision));
            }
            if model.shipment == ShipmentModel::Dispatched {
                possible.push(Next::Delivery { order });
            }
        }
        possible
    }

    /// Hands a command to an order, and its messages to the network.
    fn tell(&mut self, index: usize, command: &Command) {
        let OrderModel {
            id,
            order,
            was_cancelling,
            ..
        } = &mut self.orders[index];
        let was_finished = OrderRules::finished(order);
        let happened = decide_and_fold(order, id, command, self.time_ms);
        assert!(
            !was_finished || happened.is_empty(),
            "{command:?} changed a finished order"
        );
        *was_cancelling |= order.status() == OrderStatus::Cancelling;
        for message in happened.into_iter().flat_map(|(_, messages)| messages) {
            let sender = Sender::Order(index, message.service());
            self.send(sender, message);
        }
    }

    fn send(&mut self, sender: Sender, message: Message) {
        let channel = (sender, message.aggregate_id.clone());
        self.channels.entry(channel).or_default().push_back(message);
    }

    fn answer(&mut self, sender: Sender, index: usize, answer: Option<Command>) {
        if let Some(answer) = answer {
            self.send(sender, Message::new(self.orders[index].id.clone(), answer));
        }
    }

    fn arrive(&mut self, sender: Sender, message: Message) {
        let index = |id: &str| {
            self.orders
                .iter()
                .position(|model| model.id == id)
                .expect("a known order")
        };
        match (sender, message.command) {
            (_, contracts::Command::Order(answer)) => {
                let index = index(&message.aggregate_id);
                self.arrived.push((index, answer.clone()));
                self.tell(index, &answer);
            }
            (Sender::Order(index, _), contracts::Command::Stock(command)) => {
                let sku = message.aggregate_id;
                let stock = self.stock.get_mut(&sku).expect("a known SKU");
                let answer = stock.decide(&self.orders[index], &sku, &command);
                self.answer(Sender::Stock(sku), index, answer);
            }
            (Sender::Order(index, _), contracts::Command::Payment(command)) => {
                let OrderModel { order, payment, .. } = &mut self.orders[index];
                let answer = payment.decide(order, &command);
                self.answer(Sender::Payment, index, answer);
            }
            (Sender::Order(index, _), contracts::Command::Shipment(command)) => {
                let answer = self.orders[index].shipment.decide(&command);
                self.answer(Sender::Shipment, index, answer);
            }
            (sender, command) => panic!("{sender:?} sent {command:?}"),
        }
    }

    fn check_at_rest(&self) {
        for model in &self.orders {
            model.check_at_rest();
        }
        for stock in self.stock.values() {
            stock.check_at_rest();
        }
    }
}

impl OrderModel {
    fn end(&self) -> String {
        let status = self.order.status();
        match (self.order.goal(), self.was_cancelling) {
            (EndReason::Unspecified, true) => format!("{status:?} after CANCELLING"),
            (EndReason::Unspecified, false) => format!("{status:?}"),
            (goal, _) => format!("{status:?} for {goal:?}"),
        }
    }

    fn check_at_rest(&self) {
        let order = &self.order;
        assert!(
            OrderRules::finished(order),
            "{} hangs in {:?}",
            self.id,
            order.status()
        );
        self.payment.check_at_rest(order);
        self.shipment.check_at_rest(order);
    }
}
