//! Clients that lose their connection to the broker for good, and their replacement.

use super::super::fault_injector::FaultPoint;
use super::{LogDefect, SimulatedLog};
use crate::log::{Error, Log as _};

/// The clients of a worker's log. Each of them may lose its connection for good although the broker is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientKind {
    /// Disconnected it receives no rebalance and no record, and sends no heartbeat.
    Consumer,
    /// Disconnected it ends no transaction.
    Producer,
    /// Disconnected it answers no lookup of offsets and of the coordinator.
    Lookups,
    /// Disconnected it reads nothing at take-over.
    Reader,
}

impl ClientKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Consumer, Self::Producer, Self::Lookups, Self::Reader];
}

impl SimulatedLog {
    pub(super) fn is_disconnected(&self, client: ClientKind) -> bool {
        self.probe.disconnected.borrow().contains(&client)
    }

    /// Replaces a disconnected client.
    pub(super) fn replace_client(&mut self, client: ClientKind) {
        if self.probe.disconnected.borrow_mut().remove(&client) {
            let id = &self.transactional_id;
            let journal = self.broker.journal();
            journal.note(format_args!("{id} replaces its {client:?}"));
        }
    }

    /// Reaches a point of a call by that client, which is replaced after it has been disconnected for long enough (see
    /// [`crate::log::replacement`]).
    pub(super) fn reach_with(
        &mut self,
        client: ClientKind,
        point: FaultPoint,
    ) -> Result<(), Error> {
        self.reach(point)?;
        if !self.is_disconnected(client) {
            return Ok(());
        }
        let now = self.now();
        let is_kept = self.is_disabled(LogDefect::DisconnectedClientsKept);
        let failures = self.failures.entry(client).or_default();
        if is_kept || !failures.failed(now) {
            return Err(Error::Unavailable(format!("{client:?} is disconnected")));
        }
        failures.answered();
        self.replace_client(client);
        Ok(())
    }
}
