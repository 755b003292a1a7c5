//! Commands to send, and what must hold of what comes of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use contracts::inventory::v1::stock_event::Event as StockEvent;
use contracts::inventory::v1::{AdjustStock, ReserveStock, StockItem, stock_command};
use contracts::orders::v1::{Address, Contact, OrderLine, PlaceOrder, order_command};
use contracts::{Command, Inventory, Orders, Service, Topic};
use engine::Decider as _;
use engine::worker::Settings;
use harness::{KafkaFixture, Sent, eventually};
use inventory::StockRules;
use uuid::Uuid;

/// Checkpoints as often as can be.
pub fn eager() -> Settings {
    Settings {
        checkpoint_every: Duration::from_millis(50),
        ..Settings::default()
    }
}

/// No checkpoint while a test runs.
pub fn lazy() -> Settings {
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
pub fn id_in(stand: &KafkaFixture, partition: i32, mut id: impl FnMut() -> String) -> String {
    loop {
        let id = id();
        if stand.cluster.partition_of(id.as_bytes()) == partition {
            return id;
        }
    }
}

/// A SKU in `partition`.
pub fn sku_in(stand: &KafkaFixture, partition: i32) -> String {
    let mut number = 0;
    id_in(stand, partition, || {
        number += 1;
        format!("sku-{number}")
    })
}

/// Random work on twenty stock items.
pub fn stock_work(random: &mut fastrand::Rng, count: usize) -> Vec<(String, Command)> {
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

/// A random generator; a failed test shows its seed.
pub fn random() -> fastrand::Rng {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::Rng::with_seed(seed)
}

/// Waits for the outcome of every command.
pub fn answered(stand: &KafkaFixture, sent: &[Sent]) {
    eventually("every command has its outcome", || {
        (stand.read(Service::Inventory, Topic::Outcomes).len() >= sent.len()).then_some(())
    });
}

/// What inventory did with `sent`, every command of the log, is there once: outcomes, events, answers to orders, and
/// the offsets behind it all.
pub fn happened_once(stand: &KafkaFixture, sent: &[Sent]) {
    answered(stand, sent);
    let asked: HashSet<_> = sent.iter().map(|sent| sent.id.clone()).collect();
    assert_eq!(asked.len(), sent.len());

    let outcomes = stand.outcomes::<Inventory>();
    let heard: HashSet<_> = outcomes
        .iter()
        .map(|outcome| outcome.metadata.causation_id.clone())
        .collect();
    assert_eq!(outcomes.len(), sent.len(), "no outcome is there twice");
    assert_eq!(heard, asked);

    let events = stand.events::<Inventory>();
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
            "nobody asked for {metadata:?}"
        );
    }

    let answers = stand.commands::<Orders>();
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

    for partition in 0..i32::from(stand.cluster.partitions) {
        let end = stand.end(Service::Inventory, Topic::Commands, partition);
        if end > 0 {
            eventually("the offsets are committed", || {
                (stand.committed(Service::Inventory, partition) == Some(end)).then_some(())
            });
        }
    }
}

/// Version and state of every stock item, by its events alone.
pub fn folded(stand: &KafkaFixture) -> BTreeMap<String, (u64, StockItem)> {
    let mut items: BTreeMap<String, (u64, StockItem)> = BTreeMap::new();
    for event in stand.events::<Inventory>() {
        let (version, item) = items.entry(event.metadata.aggregate_id).or_default();
        StockRules::evolve(item, &event.body);
        *version = event.metadata.aggregate_version;
    }
    items
}

/// Waits until the state topic holds exactly what the events say.
pub fn checkpointed(stand: &KafkaFixture) {
    let folded = folded(stand);
    assert!(!folded.is_empty());
    let stored = eventually("every state is checkpointed", || {
        let stored = stand.states::<Inventory>();
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
