//! Commands of the inventory, and assertions about their results.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use contracts::inventory::v1::stock_event::Event as StockEvent;
use contracts::inventory::v1::{AdjustStock, ReserveStock, StockItem, stock_command};
use contracts::orders::v1::{Address, Contact, OrderLine, PlaceOrder, order_command};
use contracts::{Command, Inventory, Orders, Service, Topic};
use engine::Decider as _;
use engine::worker::Settings;
use harness::{KafkaFixture, SentCommand, eventually};
use inventory::StockRules;
use uuid::Uuid;

/// Checkpoints as often as possible.
pub fn frequent_checkpoints() -> Settings {
    Settings {
        checkpoint_every: Duration::from_millis(50),
        ..Settings::default()
    }
}

/// No checkpoint during a test.
pub fn no_checkpoints() -> Settings {
    Settings {
        checkpoint_every: Duration::from_secs(3_600),
        ..Settings::default()
    }
}

pub fn fresh_id() -> String {
    Uuid::now_v7().to_string()
}

pub fn adjust(delta: i64) -> Command {
    let adjustment_id = fresh_id();
    stock_command::Command::AdjustStock(AdjustStock {
        adjustment_id,
        delta,
    })
    .into()
}

pub fn reserve(quantity: u32) -> Command {
    let order_id = fresh_id();
    stock_command::Command::ReserveStock(ReserveStock { order_id, quantity }).into()
}

pub fn place_order(sku: &str) -> Command {
    let address = Address {
        name: "Ada".into(),
        street: "1 Main Street".into(),
        postal_code: "12345".into(),
        city: "Berlin".into(),
        country: "DE".into(),
    };
    let line = OrderLine {
        sku: sku.into(),
        quantity: 1,
        unit_price: 100,
        ..OrderLine::default()
    };
    order_command::Command::PlaceOrder(PlaceOrder {
        customer_id: "customer".into(),
        contact: Some(Contact {
            address: Some(address),
            ..Contact::default()
        }),
        lines: vec![line],
        currency: "EUR".into(),
    })
    .into()
}

/// An id whose records belong to `partition`.
pub fn id_in_partition(
    fixture: &KafkaFixture,
    partition: i32,
    mut id: impl FnMut() -> String,
) -> String {
    loop {
        let id = id();
        if fixture.cluster.partition_of(id.as_bytes()) == partition {
            return id;
        }
    }
}

/// A SKU whose records belong to `partition`.
pub fn sku_in_partition(fixture: &KafkaFixture, partition: i32) -> String {
    let mut number = 0;
    id_in_partition(fixture, partition, || {
        number += 1;
        format!("sku-{number}")
    })
}

/// Random commands to twenty stock items.
pub fn random_stock_commands(random: &mut fastrand::Rng, count: usize) -> Vec<(String, Command)> {
    (0..count)
        .map(|_| {
            let command = if random.bool() {
                adjust(random.i64(1..20))
            } else {
                reserve(random.u32(1..9))
            };
            (format!("sku-{}", random.u8(0..20)), command)
        })
        .collect()
}

/// A random number generator. A failed test shows its seed.
pub fn seeded_rng() -> fastrand::Rng {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::Rng::with_seed(seed)
}

/// Waits for the outcome of every command.
pub fn wait_for_outcomes(fixture: &KafkaFixture, sent: &[SentCommand]) {
    eventually("every command has its outcome", || {
        (fixture.read(Service::Inventory, Topic::Outcomes).len() >= sent.len()).then_some(())
    });
}

/// Asserts that `sent`, which are all commands of the log, have been processed exactly once: outcomes, events, replies
/// to orders, and committed offsets.
pub fn assert_processed_once(fixture: &KafkaFixture, sent: &[SentCommand]) {
    wait_for_outcomes(fixture, sent);
    let asked: HashSet<_> = sent.iter().map(|sent| sent.id.clone()).collect();
    assert_eq!(asked.len(), sent.len());

    let outcomes = fixture.outcomes::<Inventory>();
    let caused_by: HashSet<_> = outcomes
        .iter()
        .map(|outcome| outcome.metadata.causation_id.clone())
        .collect();
    assert_eq!(outcomes.len(), sent.len(), "no outcome is there twice");
    assert_eq!(caused_by, asked);

    let events = fixture.events::<Inventory>();
    let mut versions: HashMap<&str, u64> = HashMap::new();
    let mut ids = HashSet::new();
    for event in &events {
        let metadata = &event.metadata;
        let version = versions.entry(&metadata.aggregate_id).or_default();
        *version += 1;
        assert_eq!(
            metadata.aggregate_version, *version,
            "{}",
            metadata.aggregate_id
        );
        assert!(
            ids.insert(&metadata.id),
            "event {} is there twice",
            metadata.id
        );
        assert!(
            asked.contains(&metadata.causation_id),
            "no command caused {metadata:?}"
        );
    }

    let answers = fixture.commands::<Orders>();
    let answered: HashSet<_> = answers
        .iter()
        .map(|answer| answer.metadata.causation_id.clone())
        .collect();
    let to_answer: HashSet<_> = events
        .iter()
        .filter(|event| !matches!(event.body, StockEvent::StockAdjusted(_)))
        .map(|event| event.metadata.id.clone())
        .collect();
    assert_eq!(answers.len(), to_answer.len(), "no answer is there twice");
    assert_eq!(answered, to_answer);

    for partition in 0..i32::from(fixture.cluster.partitions) {
        let end = fixture.end(Service::Inventory, Topic::Commands, partition);
        if end > 0 {
            eventually("the offsets are committed", || {
                (fixture.committed(Service::Inventory, partition) == Some(end)).then_some(())
            });
        }
    }
}

/// Version and state of every stock item, folded from its events.
pub fn fold_events(fixture: &KafkaFixture) -> BTreeMap<String, (u64, StockItem)> {
    let mut items: BTreeMap<String, (u64, StockItem)> = BTreeMap::new();
    for event in fixture.events::<Inventory>() {
        let (version, item) = items.entry(event.metadata.aggregate_id).or_default();
        StockRules::evolve(item, &event.body);
        *version = event.metadata.aggregate_version;
    }
    items
}

/// Waits until the state topic has the latest version of every item, and asserts that the states equal the folded
/// events.
pub fn wait_for_checkpoints(fixture: &KafkaFixture) {
    let folded = fold_events(fixture);
    assert!(!folded.is_empty());
    let stored = eventually("every state is checkpointed", || {
        let stored = fixture.states::<Inventory>();
        let versions = stored
            .iter()
            .map(|(id, state)| (id, state.metadata.aggregate_version));
        versions
            .eq(folded.iter().map(|(id, (version, _))| (id, *version)))
            .then_some(stored)
    });
    for (id, state) in stored {
        assert_eq!(state.body, folded[&id].1, "{id}");
    }
}
