//! Property tests: several orders run against models of inventory, payments and shipping. Messages between two
//! aggregates stay in order, everything else happens in any order. Cancellations, timers and repeated answers can occur
//! at any step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::fixtures::*;
use super::service_models::{PaymentModel, ShipmentModel, StockModel};
use super::*;

const SKUS: [&str; 3] = ["a", "b", "c"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_order_ends_and_all_totals_balance(scenario in scenarios()) {
        run(&scenario);
    }

    #[test]
    fn any_command_sequence_follows_the_state_machine(commands in prop::collection::vec(any_command(), 0..40)) {
        let mut order = Order::default();
        for command in commands {
            decide_and_fold(&mut order, &id_at(0), &command, NOW);
        }
    }

    #[test]
    fn events_of_another_order_follow_the_state_machine(
        commands in prop::collection::vec(any_command(), 0..20),
        foreign_commands in prop::collection::vec(any_command(), 1..5),
    ) {
        let mut order = Order::default();
        for command in commands {
            decide_and_fold(&mut order, &id_at(0), &command, NOW);
        }
        // Events of another order.
        let mut foreign_order = Order::default();
        for command in foreign_commands {
            for (event, _) in decide_and_fold(&mut foreign_order, &id_at(0), &command, NOW) {
                let before = order.status();
                OrderRules::evolve(&mut order, &event);
                assert_allowed(before, order.status());
            }
        }
    }
}

/// The properties are weak unless their scenarios reach every final status.
#[test]
fn the_scenarios_reach_every_final_status() {
    let mut runner = TestRunner::deterministic();
    let mut endings = BTreeSet::new();
    for _ in 0..2_000 {
        let scenario = scenarios()
            .new_tree(&mut runner)
            .expect("no filter rejects")
            .current();
        endings.extend(run(&scenario));
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
        assert!(endings.contains(end), "{end} is missing in {endings:?}");
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
    /// Executes one of the possible actions.
    Progress(u16),
    CustomerCancels(u16),
    TimerFires(u16),
    AnswerRepeats(u16),
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let line = (1..4_u32, prop_oneof![Just(0_i64), Just(7)]);
    let lines = prop::collection::vec(line, 1..=SKUS.len());
    let steps = prop_oneof![
        30 => any::<u16>().prop_map(Step::Progress),
        1 => any::<u16>().prop_map(Step::CustomerCancels),
        1 => any::<u16>().prop_map(Step::TimerFires),
        5 => any::<u16>().prop_map(Step::AnswerRepeats),
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
    order_with(SKUS.iter().zip(lines).map(line).collect())
}

fn any_command() -> impl Strategy<Value = Command> {
    let sku = || prop::sample::select(vec!["a", "b", "z"]);
    let step = (1..9_i32).prop_map(|step| OrderStatus::try_from(step).expect("a status"));
    let deadline =
        prop::sample::select(vec![0, NOW + 1_000, NOW + 2_000, NOW + 3_000, NOW + 4_000]);
    prop_oneof![
        4 => Just(Command::PlaceOrder(place_order())),
        2 => Just(Command::PlaceOrder(free_order())),
        1 => Just(cancel_by("ada")),
        1 => Just(cancel_by("eve")),
        8 => sku().prop_map(stock_reserved),
        2 => sku().prop_map(stock_refused),
        6 => sku().prop_map(stock_released),
        4 => Just(payment_processed()),
        2 => Just(payment_declined()),
        4 => (0..200_i64).prop_map(payment_cancelled),
        4 => Just(shipment_dispatched()),
        4 => Just(shipment_delivered()),
        2 => Just(shipment_refused()),
        2 => Just(shipment_cancelled()),
        2 => (step, deadline).prop_map(|(step, deadline_ms)| expire(step, deadline_ms)),
    ]
}

/// Decides a command, folds its events and checks that every step follows the state machine.
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
    let mut results = Vec::new();
    for event in decided.unwrap_or_default() {
        let before = order.status();
        assert!(
            fold::follows(order, &event),
            "{event:?} cannot follow {before:?}"
        );
        OrderRules::evolve(order, &event);
        assert_allowed(before, order.status());
        let messages = OrderRules::react(order, &event, id);
        results.push((event, messages));
    }
    if OrderRules::finished(order) {
        assert_eq!(
            OrderRules::outstanding(order, id),
            vec![],
            "a finished order has nothing outstanding"
        );
    }
    results
}

/// The specified transitions.
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

/// Runs a scenario until no action is possible, checks the final state, and returns how each order ended.
fn run(scenario: &Scenario) -> Vec<String> {
    let mut network = Network::new(scenario);
    for step in &scenario.steps {
        network.step(step);
    }
    while network.progress(0) {}
    network.check_final_state();
    network.orders.iter().map(OrderModel::end).collect()
}

struct Network {
    time_ms: i64,
    orders: Vec<OrderModel>,
    stock: BTreeMap<String, StockModel>,
    /// Messages in transit, by sender and receiver.
    channels: BTreeMap<(Sender, String), VecDeque<Message>>,
    /// Delivered answers, which can be repeated.
    delivered_answers: Vec<(usize, Command)>,
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

/// An action that is possible next.
enum Action {
    Arrival((Sender, String)),
    ProviderDecides { order: usize, charges: bool },
    CarrierDecides { order: usize, accepts: bool },
    Delivery { order: usize },
}

impl Network {
    fn new(scenario: &Scenario) -> Self {
        let mut network = Self {
            time_ms: NOW,
            orders: Vec::new(),
            stock: SKUS
                .map(|sku| (sku.to_owned(), StockModel::with_pieces(scenario.stock)))
                .into(),
            channels: BTreeMap::new(),
            delivered_answers: Vec::new(),
        };
        for (index, place_order) in (0..).zip(&scenario.orders) {
            network.orders.push(OrderModel {
                id: id_at(index),
                order: Order::default(),
                was_cancelling: false,
                payment: PaymentModel::Unknown,
                shipment: ShipmentModel::Unknown,
            });
            network.handle_command(
                network.orders.len() - 1,
                &Command::PlaceOrder(place_order.clone()),
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
                self.handle_command(usize::from(*choice) % self.orders.len(), &cancel_by("ada"));
            }
            Step::TimerFires(choice) => {
                let index = usize::from(*choice) % self.orders.len();
                let OrderModel { id, order, .. } = &self.orders[index];
                for outstanding in OrderRules::outstanding(order, id) {
                    let Outstanding::Timer { command, .. } = outstanding;
                    self.handle_command(index, &command);
                }
            }
            Step::AnswerRepeats(choice) if !self.delivered_answers.is_empty() => {
                let (index, answer) = self.delivered_answers
                    [usize::from(*choice) % self.delivered_answers.len()]
                .clone();
                self.handle_command(index, &answer);
            }
            Step::AnswerRepeats(_) => {}
        }
    }

    /// Executes one possible action; false when there is none.
    fn progress(&mut self, choice: usize) -> bool {
        let mut actions = self.possible_actions();
        if actions.is_empty() {
            return false;
        }
        match actions.swap_remove(choice % actions.len()) {
            Action::Arrival(channel) => {
                let queue = self
                    .channels
                    .get_mut(&channel)
                    .expect("a possible action has a queue");
                let message = queue.pop_front().expect("empty channels are removed");
                if queue.is_empty() {
                    self.channels.remove(&channel);
                }
                self.arrive(channel.0, message);
            }
            Action::ProviderDecides {
                order: index,
                charges,
            } => {
                let OrderModel { order, payment, .. } = &mut self.orders[index];
                let answer = payment.provider_decides(order, charges);
                self.answer(Sender::Payment, index, Some(answer));
            }
            Action::CarrierDecides {
                order: index,
                accepts,
            } => {
                let answer = self.orders[index].shipment.carrier_decides(accepts);
                self.answer(Sender::Shipment, index, Some(answer));
            }
            Action::Delivery { order: index } => {
                let answer = self.orders[index].shipment.carrier_delivers();
                self.answer(Sender::Shipment, index, Some(answer));
            }
        }
        true
    }

    fn possible_actions(&self) -> Vec<Action> {
        let mut actions: Vec<_> = self.channels.keys().cloned().map(Action::Arrival).collect();
        for (order, model) in self.orders.iter().enumerate() {
            if matches!(model.payment, PaymentModel::Requested { .. }) {
                let decision = |charges| Action::ProviderDecides { order, charges };
                actions.extend([true, true, false].map(decision));
            }
            if matches!(model.shipment, ShipmentModel::Requested { .. }) {
                let decision = |accepts| Action::CarrierDecides { order, accepts };
                actions.extend([true, true, false].map(decision));
            }
            if model.shipment == ShipmentModel::Dispatched {
                actions.push(Action::Delivery { order });
            }
        }
        actions
    }

    /// Lets an order decide a command, and sends its messages.
    fn handle_command(&mut self, index: usize, command: &Command) {
        let OrderModel {
            id,
            order,
            was_cancelling,
            ..
        } = &mut self.orders[index];
        let was_finished = OrderRules::finished(order);
        let results = decide_and_fold(order, id, command, self.time_ms);
        assert!(
            !was_finished || results.is_empty(),
            "{command:?} changed a finished order"
        );
        *was_cancelling |= order.status() == OrderStatus::Cancelling;
        for message in results.into_iter().flat_map(|(_, messages)| messages) {
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
                self.delivered_answers.push((index, answer.clone()));
                self.handle_command(index, &answer);
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

    fn check_final_state(&self) {
        for model in &self.orders {
            model.check_final_state();
        }
        for stock in self.stock.values() {
            stock.check_final_state();
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

    fn check_final_state(&self) {
        let order = &self.order;
        assert!(
            OrderRules::finished(order),
            "{} hangs in {:?}",
            self.id,
            order.status()
        );
        self.payment.check_final_state(order);
        self.shipment.check_final_state(order);
    }
}
