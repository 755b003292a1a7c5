//! What a take-over costs: states and the events behind them, not history.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use contracts::inventory::v1::{ReleaseStock, ReserveStock, stock_command};
use contracts::{Command, Inventory, Service, Topic};
use engine::log::Input;
use engine::metrics::names;
use engine::worker::Settings;
use harness::{NoEffects, Running, Stand, eventually};
use inventory::StockRules;

use super::given::{adjust, checkpointed, fresh_id, lazy};

/// How long history is made.
const MAKING: Duration = Duration::from_secs(25);
/// Most events: what a fast machine makes.
const MOST: u64 = 150_000;
/// Events of one portion.
const PORTION: usize = 4_000;
/// Stock items that share them.
const ITEMS: usize = 200;
/// What a take-over from a checkpoint may read, of what a full replay does.
const SHARE: f64 = 0.2;

/// Reservations that come and go.
fn portion() -> Vec<(String, Command)> {
    let pair = |index: usize| {
        let order_id = fresh_id();
        let reserve = stock_command::Command::ReserveStock(ReserveStock {
            order_id: order_id.clone(),
            quantity: 1,
        });
        let release = stock_command::Command::ReleaseStock(ReleaseStock { order_id });
        let sku = format!("sku-{}", index % ITEMS);
        [(sku.clone(), reserve.into()), (sku, release.into())]
    };
    (0..PORTION / 2).flat_map(pair).collect()
}

/// Waits until every command is processed, and says how many events there are.
fn processed(stand: &Stand) -> u64 {
    let end = stand.end(Service::Inventory, Topic::Commands, 0);
    eventually("every command is processed", || {
        (stand.committed(Service::Inventory, 0) >= Some(end)).then_some(())
    });
    u64::try_from(stand.end(Service::Inventory, Topic::Events, 0)).unwrap()
}

/// Takes the partition over; the records that were read for it and the seconds that it took.
fn taken_over(stand: &Stand) -> (f64, f64, Running) {
    let worker = stand.run(StockRules::default(), NoEffects, lazy());
    worker.ready();
    let read = worker.figure(names::RESTORED_RECORDS.name);
    let families = worker.figures.gather();
    let restores = families
        .iter()
        .find(|family| family.name() == names::RESTORE_SECONDS.name)
        .unwrap();
    let seconds = restores.get_metric()[0].get_histogram().get_sample_sum();
    (read, seconds, worker)
}

#[test]
fn a_take_over_reads_states_and_not_history() {
    let stand = Stand::new(1);
    let often = Settings {
        checkpoint_every: Duration::from_secs(3),
        ..Settings::default()
    };
    let worker = stand.run(StockRules::default(), NoEffects, often);
    worker.ready();
    stand.send_all((0..ITEMS).map(|item| (format!("sku-{item}"), adjust(1_000_000))));
    let begun = Instant::now();
    let mut events = 0;
    while begun.elapsed() < MAKING && events < MOST {
        stand.send_all(portion());
        events = processed(&stand);
    }
    checkpointed(&stand);
    worker.stop();

    let (from_states, quick, worker) = taken_over(&stand);
    assert!(worker.figure(names::FULL_REPLAYS.name) < 1.0);
    worker.stop();
    let states = stand.read(Service::Inventory, Topic::State);
    let latest: BTreeMap<_, _> = states
        .into_iter()
        .map(|state| (state.key.clone(), state))
        .collect();
    for state in latest.into_values() {
        let gone = Input {
            payload: None,
            ..state
        };
        stand.write(Service::Inventory, Topic::State, &gone);
    }
    assert!(stand.states::<Inventory>().is_empty());
    let (from_events, full, worker) = taken_over(&stand);
    worker.stop();

    #[allow(clippy::cast_precision_loss)]
    let millions = events as f64 / 1e6;
    println!(
        "restore of {events} events: from states {quick:.2} s ({from_states} records), by full replay {full:.2} s \
         ({from_events} records); {:.1} s and {:.1} s for each million events, ratio {:.2}",
        quick / millions,
        full / millions,
        quick / full
    );
    assert!(
        from_states <= from_events * SHARE,
        "{from_states} of {from_events}"
    );
}
