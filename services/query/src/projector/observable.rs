//! The projector's state, for operators.

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::Service;
use parking_lot::Mutex;
use serde::Serialize;

use super::log::Source;
use super::session::unix_ms;

/// A handle on the projector's last reported state; cloning it is cheap.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    state: Arc<Mutex<ObservableState>>,
}

/// The phase of a projector and its partitions.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ObservableState {
    /// When the projector reported this, Unix milliseconds: several times a second while the broker answers.
    pub observed_ms: i64,
    /// Current phase.
    pub phase: Phase,
    /// By service: the owned partitions of its events, and its parked keys.
    pub services: BTreeMap<&'static str, ObservableTopic>,
}

/// Current phase of a projector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It connects to the database and the log.
    #[default]
    Connecting,
    /// It owns no partition.
    Idle,
    /// It applies events.
    Projecting,
}

/// The events of one service.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ObservableTopic {
    /// Keys of which an event could not be applied.
    pub parked_keys: usize,
    /// The owned partitions.
    pub partitions: BTreeMap<i32, ObservablePartition>,
}

/// One owned partition of events.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ObservablePartition {
    /// First event that has not been applied.
    pub position: i64,
    /// Records in memory, from the first one whose schema cannot be used.
    pub held_records: usize,
}

impl Observed {
    /// The state.
    pub fn state(&self) -> ObservableState {
        self.state.lock().clone()
    }

    /// The projector connects or owns no partition.
    pub fn without_partitions(&self, phase: Phase) {
        *self.state.lock() = ObservableState {
            observed_ms: unix_ms(),
            phase,
            services: BTreeMap::new(),
        };
    }

    /// The projector applies the events of these partitions.
    pub fn projecting(
        &self,
        partitions: impl Iterator<Item = (Source, ObservablePartition)>,
        parked_keys: [(Service, usize); 4],
    ) {
        let mut services = BTreeMap::<_, ObservableTopic>::new();
        for (service, count) in parked_keys {
            services.entry(service.name()).or_default().parked_keys = count;
        }
        for ((service, partition), observed) in partitions {
            let topic = services.entry(service.name()).or_default();
            topic.partitions.insert(partition, observed);
        }
        *self.state.lock() = ObservableState {
            observed_ms: unix_ms(),
            phase: Phase::Projecting,
            services,
        };
    }
}
