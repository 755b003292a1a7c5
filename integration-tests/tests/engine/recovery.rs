//! What a take-over costs: from the states and the events behind them, against a replay of every event. The figures
//! are printed; what is asserted is what was read.

use contracts::inventory::v1::{ReleaseStock, ReserveStock, stock_command};
use contracts::{Command, Inventory, Service, Topic};
use engine::worker::Settings;
use harness::{KafkaFixture, NoEffects, RunningWorker, eventually};
use inventory::StockRules;

use super::given::{adjust, checkpointed, eager, fresh_id, lazy};

const RESTORED: &str = "ordermesh_engine_restored_records_total";
const RESTORE_SECONDS: &str = "ordermesh_engine_restore_seconds";
/// So many events, unless this variable says another number.
const EVENTS_VARIABLE: &str = "ORDERMESH_RECOVERY_EVENTS";
const EVENTS: usize = 60_000;
const ITEMS: usize = 100;
/// Beyond the last checkpoint.
const BEHIND: usize = 200;

fn event_count() -> usize {
    std::env::var(EVENTS_VARIABLE).map_or(EVENTS, |number| {
        number.parse().expect("a number of events is a number")
    })
}

/// Reservations that are released again: states stay as large as they are, whatever the history.
fn back_and_forth(events: usize) -> Vec<(String, Command)> {
    (0..events / 2)
        .flat_map(|number| {
            let sku = format!("sku-{}", number % ITEMS);
            let order_id = fresh_id();
            let reserve = ReserveStock {
                order_id: order_id.clone(),
                quantity: 1,
            };
            [
                (
                    sku.clone(),
                    stock_command::Command::ReserveStock(reserve).into(),
                ),
                (
                    sku,
                    stock_command::Command::ReleaseStock(ReleaseStock { order_id }).into(),
                ),
            ]
        })
        .collect()
}

/// Runs a worker until it has done everything.
fn worked_off(stand: &KafkaFixture, settings: Settings) -> RunningWorker {
    let worker = stand.run(StockRules::default(), NoEffects, settings);
    let end = stand.end(Service::Inventory, Topic::Commands, 0);
    eventually("everything is processed", || {
        (stand.committed(Service::Inventory, 0) == Some(end)).then_some(())
    });
    worker
}

/// Takes the partition over: seconds, states and events read.
fn take_over(stand: &KafkaFixture) -> (f64, f64, f64) {
    let worker = stand.run(StockRules::default(), NoEffects, lazy());
    worker.ready();
    let read = |topic| worker.figure_of(RESTORED, topic);
    let taken = (
        worker.seconds(RESTORE_SECONDS),
        read(Topic::State.name()),
        read(Topic::Events.name()),
    );
    worker.stop();
    taken
}

#[test]
fn a_take_over_reads_states_and_not_history() {
    let stand = KafkaFixture::new(1);
    let stock = (0..ITEMS).map(|number| (format!("sku-{number}"), adjust(10)));
    let events = event_count();
    stand.send_all(stock);
    for piece in back_and_forth(events).chunks(50_000) {
        stand.send_all(piece.to_vec());
        worked_off(&stand, lazy()).stop();
    }
    let worker = worked_off(&stand, eager());
    checkpointed(&stand);
    worker.stop();
    // The first transaction after a take-over is a checkpoint as well.
    stand.send("sku-0", adjust(1));
    let worker = worked_off(&stand, lazy());
    stand.send_all(back_and_forth(BEHIND));
    let end = stand.end(Service::Inventory, Topic::Commands, 0);
    eventually("everything is processed", || {
        (stand.committed(Service::Inventory, 0) == Some(end)).then_some(())
    });
    worker.stop();

    let history = stand.events::<Inventory>().len();
    assert!(history > events, "{history}");
    let (from_states, states, behind) = take_over(&stand);
    assert!(states >= ITEMS as f64, "{states} states");
    assert!(
        (BEHIND as f64..=(BEHIND + ITEMS + 1) as f64).contains(&behind),
        "{behind} events behind the checkpoint"
    );

    stand.erase_states(Service::Inventory);
    let (from_events, _, all) = take_over(&stand);
    assert_eq!(all, history as f64, "every event is read");

    let million = |seconds: f64| seconds * 1e6 / history as f64;
    println!(
        "take-over of {history} events on {ITEMS} aggregates: {:.0} ms from {states} states and {behind} events, {:.0} ms \
         from all events; by 10⁶ events {:.1} s and {:.1} s; ratio {:.3}",
        from_states * 1e3,
        from_events * 1e3,
        million(from_states),
        million(from_events),
        from_states / from_events,
    );
}
