//! A log that is not what it was: whoever finds it so stops with one clear error, and writes nothing.

use contracts::{Service, Topic};
use engine::Cluster;
use engine::topics::{self, Error};
use harness::{KafkaFixture, NoEffects};
use inventory::StockRules;

use super::given::{adjust, answered, checkpointed, eager, lazy};

/// Twenty commands with an event each, and no worker any more.
fn worked(stand: &KafkaFixture, checkpoint: bool) {
    let settings = if checkpoint { eager() } else { lazy() };
    let worker = stand.run(StockRules::default(), NoEffects, settings);
    let sent = stand.send_all((0..20).map(|_| ("sku".to_owned(), adjust(1))));
    answered(stand, &sent);
    if checkpoint {
        checkpointed(stand);
    }
    worker.stop();
}

/// A worker ends for this reason, and all that is there was there before.
fn stops(stand: &KafkaFixture, because: &str) {
    let written = || Topic::ALL.map(|topic| stand.read(Service::Inventory, topic).len());
    let before = written();
    let worker = stand.run(StockRules::default(), NoEffects, eager());
    let error = worker.failed().to_string();
    assert!(error.contains(because), "{error}");
    assert_eq!(written(), before, "nothing was done");
}

#[test]
fn events_that_were_truncated_without_a_checkpoint() {
    let stand = KafkaFixture::new(1);
    worked(&stand, false);
    for record in stand.read(Service::Inventory, Topic::State) {
        let gone = engine::log::Input {
            payload: None,
            ..record
        };
        stand.write(Service::Inventory, Topic::State, &gone);
    }
    stand.delete_before(Service::Inventory, Topic::Events, 0, 5);
    stops(&stand, "its first events are gone");
}

#[test]
fn events_that_were_made_anew_behind_a_checkpoint() {
    let stand = KafkaFixture::new(1);
    worked(&stand, true);
    stand.recreate(Service::Inventory, Topic::Events);
    stops(&stand, "the topic was truncated or made anew");
}

#[test]
fn commands_that_were_made_anew() {
    let stand = KafkaFixture::new(1);
    worked(&stand, true);
    stand.recreate(Service::Inventory, Topic::Commands);
    stops(&stand, "committed offset is missing");
    // The broker deletes offsets with their topic: how long the new one is makes no difference.
    stand.send_all((0..30).map(|_| ("sku".to_owned(), adjust(1))));
    stops(&stand, "committed offset is missing");
}

#[test]
fn commands_that_are_made_anew_under_a_worker() {
    let stand = KafkaFixture::new(1);
    let worker = stand.run(StockRules::default(), NoEffects, eager());
    let sent = stand.send_all((0..20).map(|_| ("sku".to_owned(), adjust(1))));
    answered(&stand, &sent);
    let written = || stand.read(Service::Inventory, Topic::Events).len();
    let before = written();
    stand.recreate(Service::Inventory, Topic::Commands);
    let error = worker.failed().to_string();
    assert!(error.contains("made anew"), "{error}");
    assert_eq!(written(), before, "nothing was done");
}

#[test]
fn another_number_of_partitions() {
    let stand = KafkaFixture::new(2);
    let configured = Cluster {
        partitions: 3,
        ..(*stand.cluster).clone()
    };
    let error = topics::check(&configured).unwrap_err();
    assert!(
        matches!(
            error,
            Error::PartitionCount {
                found: 2,
                wanted: 3,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("fixed for life"), "{error}");
}
