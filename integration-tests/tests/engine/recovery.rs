//! Cost of a take-over from states and later events, compared with a full replay. The times are printed; the number of
//! records read is asserted.

use contracts::inventory::v1::{ReleaseStock, ReserveStock, stock_command};
use contracts::{Command, Inventory, Service, Topic};
use engine::worker::Settings;
use harness::{KafkaFixture, NoEffects, RunningWorker, eventually};
use inventory::StockRules;

use super::inventory_helpers::{
    adjust, frequent_checkpoints, fresh_id, no_checkpoints, wait_for_checkpoints,
};

const RESTORED: &str = "ordermesh_engine_restored_records_total";
const RESTORE_SECONDS: &str = "ordermesh_engine_restore_seconds";
/// Number of events, unless this variable overrides it.
const EVENTS_VARIABLE: &str = "ORDERMESH_RECOVERY_EVENTS";
const EVENTS: usize = 60_000;
const ITEMS: usize = 100;
/// Events beyond the last checkpoint.
const EVENTS_AFTER_CHECKPOINT: usize = 200;

fn event_count() -> usize {
    std::env::var(EVENTS_VARIABLE).map_or(EVENTS, |number| {
        number.parse().expect("a number of events is a number")
    })
}

/// Reservations and their releases: states keep their size, whatever the history.
fn reserve_and_release(events: usize) -> Vec<(String, Command)> {
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

/// Runs a worker until it has processed everything.
fn run_until_processed(fixture: &KafkaFixture, settings: Settings) -> RunningWorker {
    let worker = fixture.run(StockRules::default(), NoEffects, settings);
    let end = fixture.end(Service::Inventory, Topic::Commands, 0);
    eventually("everything is processed", || {
        (fixture.committed(Service::Inventory, 0) == Some(end)).then_some(())
    });
    worker
}

/// Takes the partition over. Returns seconds, states read and events read.
fn take_over(fixture: &KafkaFixture) -> (f64, f64, f64) {
    let worker = fixture.run(StockRules::default(), NoEffects, no_checkpoints());
    worker.wait_until_ready();
    let read = |topic| worker.metric_with_label(RESTORED, topic);
    let taken = (
        worker.histogram_sum(RESTORE_SECONDS),
        read(Topic::State.name()),
        read(Topic::Events.name()),
    );
    worker.stop();
    taken
}

#[test]
fn a_take_over_reads_states_and_not_history() {
    let fixture = KafkaFixture::new(1);
    let stock = (0..ITEMS).map(|number| (format!("sku-{number}"), adjust(10)));
    let events = event_count();
    fixture.send_all(stock);
    for piece in reserve_and_release(events).chunks(50_000) {
        fixture.send_all(piece.to_vec());
        run_until_processed(&fixture, no_checkpoints()).stop();
    }
    let worker = run_until_processed(&fixture, frequent_checkpoints());
    wait_for_checkpoints(&fixture);
    worker.stop();
    // The first transaction after a take-over is a checkpoint as well.
    fixture.send("sku-0", adjust(1));
    let worker = run_until_processed(&fixture, no_checkpoints());
    fixture.send_all(reserve_and_release(EVENTS_AFTER_CHECKPOINT));
    let end = fixture.end(Service::Inventory, Topic::Commands, 0);
    eventually("everything is processed", || {
        (fixture.committed(Service::Inventory, 0) == Some(end)).then_some(())
    });
    worker.stop();

    let history = fixture.events::<Inventory>().len();
    assert!(history > events, "{history}");
    let (from_states, states, behind) = take_over(&fixture);
    assert!(states >= ITEMS as f64, "{states} states");
    assert!(
        (EVENTS_AFTER_CHECKPOINT as f64..=(EVENTS_AFTER_CHECKPOINT + ITEMS + 1) as f64)
            .contains(&behind),
        "{behind} events behind the checkpoint"
    );

    fixture.tombstone_states(Service::Inventory);
    let (from_events, _, all) = take_over(&fixture);
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
