//! Invariants that a worker checks on each transaction before it writes it.
//!
//! A violation is a defect of the engine. A build with the feature `simulation`, which every development build has,
//! panics. In a release the partition fails alone: its part of the transaction is not written, its state is dropped,
//! and it is not processed until the group assigns it again.

use std::collections::BTreeMap;

use contracts::{Contract, Topic};

use super::partition::PartitionState;
use super::{Error, Worker};
use crate::Decider;
use crate::effects::EffectScheduler;
use crate::log::{Log, Output, Partition, PartitionWrites};

/// The invariants that a worker checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// Only a restored partition writes.
    Restored,
    /// The offset to commit is not below the committed one.
    PositionForward,
    /// The records of a partition are written to the same partition of the service's topics.
    OwnPartition,
    /// The next checkpoint has every changed state.
    Checkpointed,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Restored,
        Self::PositionForward,
        Self::OwnPartition,
        Self::Checkpointed,
    ];

    /// Label of the metric.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::PositionForward => "position_forward",
            Self::OwnPartition => "own_partition",
            Self::Checkpointed => "checkpointed",
        }
    }
}

impl<D: Decider, L: Log, S: EffectScheduler<D>> Worker<D, L, S> {
    /// Removes the writes of partitions that violate an invariant, and fails these partitions.
    pub(super) fn check_invariants(
        &mut self,
        writes: &mut BTreeMap<Partition, PartitionWrites>,
    ) -> Result<(), Error> {
        let violations: Vec<_> = writes
            .values()
            .filter_map(|partition_writes| {
                let partition = partition_writes.partition;
                let state = self.partitions.get(partition);
                let (invariant, message) = violation::<D>(state, partition_writes)?;
                Some((partition, invariant.name(), message))
            })
            .collect();
        for (partition, invariant, message) in violations {
            if cfg!(feature = "simulation") {
                let service = D::Contract::SERVICE;
                panic!("{service} partition {partition} violates {invariant}: {message}");
            }
            writes.remove(&partition);
            self.fail_partition(partition, invariant, &message)?;
        }
        Ok(())
    }

    fn fail_partition(
        &mut self,
        partition: Partition,
        invariant: &'static str,
        message: &str,
    ) -> Result<(), Error> {
        let service = D::Contract::SERVICE;
        tracing::error!(%service, partition, invariant, message, "invariant violated: partition failed");
        self.context
            .metrics
            .invariant_violations
            .with_label_values(&[service.name(), invariant])
            .inc();
        self.forget(partition);
        let reason = format!("invariant {invariant} violated: {message}; restart the process");
        self.partitions.fail(partition, reason);
        self.report_partitions();
        self.log
            .pause(partition)
            .or_else(|error| self.handle_log_error(error))
    }
}

/// The first invariant that the writes of a partition violate, and how.
fn violation<D: Decider>(
    state: Option<&PartitionState<D>>,
    writes: &PartitionWrites,
) -> Option<(Invariant, String)> {
    let Some(state) = state else {
        return Some((Invariant::Restored, "the partition has no state".to_owned()));
    };
    if writes.offset < state.committed {
        let (offset, committed) = (writes.offset, state.committed);
        let message = format!("the offset to commit, {offset}, is below the committed {committed}");
        return Some((Invariant::PositionForward, message));
    }
    let is_elsewhere =
        |output: &&Output| output.topic != Topic::Commands && output.partition != writes.partition;
    if let Some(output) = writes.outputs.iter().find(is_elsewhere) {
        let (topic, partition) = (output.topic.name(), output.partition);
        let message = format!("a record is addressed to partition {partition} of {topic}");
        return Some((Invariant::OwnPartition, message));
    }
    let is_lost = |id: &&String| !state.dirty.contains(*id) || !state.aggregates.contains_key(*id);
    let lost = state.changed.iter().find(is_lost)?;
    let message = format!("{lost} has changed, but the next checkpoint will not have it");
    Some((Invariant::Checkpointed, message))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use contracts::{Inventory, Message};
    use registry::Schemas;

    use super::*;
    use crate::effects::EffectContext;
    use crate::log::Cluster;
    use crate::worker::Settings;
    use crate::worker::aggregate::Aggregate;
    use crate::{Codec, Command, Context, Event, Metrics, Outcome, Outstanding, State};

    const PARTITION: Partition = 2;
    const COMMITTED: i64 = 10;

    /// Decides nothing.
    struct NoRules;

    impl Decider for NoRules {
        type Contract = Inventory;
        type Rejection = ();
        type Effect = ();
        const RULES_VERSION: u32 = 1;

        fn decide(
            &self,
            _: &State<Self>,
            _: &Command<Self>,
            _: &Context<'_>,
        ) -> Result<Vec<Event<Self>>, ()> {
            Ok(Vec::new())
        }

        fn evolve(_: &mut State<Self>, _: &Event<Self>) {}

        fn react(_: &State<Self>, _: &Event<Self>, _: &str) -> Vec<Message> {
            Vec::new()
        }

        fn outstanding(_: &State<Self>, _: &str) -> Vec<Outstanding<Self>> {
            Vec::new()
        }

        fn accepted(_: &State<Self>) -> Outcome<Self> {
            Self::rejected(&())
        }

        fn rejected((): &()) -> Outcome<Self> {
            Inventory::parked()
        }

        fn finished(_: &State<Self>) -> bool {
            false
        }

        fn is_id(_: &str) -> bool {
            true
        }
    }

    fn valid() -> (PartitionState<NoRules>, PartitionWrites) {
        let mut state = PartitionState::at(COMMITTED);
        state
            .aggregates
            .insert("mug".to_owned(), Aggregate::default());
        state.mark_changed("mug");
        let writes = PartitionWrites {
            partition: PARTITION,
            offset: COMMITTED + 1,
            outputs: vec![output(Topic::Events, PARTITION), output(Topic::Commands, 3)],
        };
        (state, writes)
    }

    fn output(topic: Topic, partition: Partition) -> Output {
        Output {
            service: Inventory::SERVICE,
            topic,
            partition,
            key: None,
            payload: None,
            headers: Vec::new(),
        }
    }

    fn found(
        spoil: impl FnOnce(&mut PartitionState<NoRules>, &mut PartitionWrites),
    ) -> Option<Invariant> {
        let (mut state, mut writes) = valid();
        spoil(&mut state, &mut writes);
        violation(Some(&state), &writes).map(|(invariant, _)| invariant)
    }

    #[test]
    fn every_violation_is_found() {
        assert_eq!(found(|_, _| {}), None);
        assert_eq!(
            violation::<NoRules>(None, &valid().1).map(|(invariant, _)| invariant),
            Some(Invariant::Restored)
        );
        for topic in [Topic::Events, Topic::State, Topic::Outcomes, Topic::Dlq] {
            assert_eq!(
                found(|_, writes| writes.outputs.push(output(topic, PARTITION + 1))),
                Some(Invariant::OwnPartition)
            );
        }
        assert_eq!(
            found(|_, writes| writes.offset = COMMITTED - 1),
            Some(Invariant::PositionForward)
        );
        assert_eq!(
            found(|state, _| state.dirty.clear()),
            Some(Invariant::Checkpointed)
        );
        assert_eq!(
            found(|state, _| state.aggregates.clear()),
            Some(Invariant::Checkpointed)
        );
    }

    /// Runs no effects.
    struct NoEffects;

    impl EffectScheduler<NoRules> for NoEffects {
        fn replace(
            &mut self,
            _: Partition,
            _: String,
            _: Vec<Outstanding<NoRules>>,
            _: EffectContext,
        ) {
        }

        fn forget(&mut self, _: Partition) {}

        fn is_alive(&self) -> bool {
            true
        }
    }

    #[cfg(feature = "simulation")]
    #[test]
    fn a_failed_partition_is_reported_and_stays_failed_while_others_are_processed() {
        use crate::log::simulated::{Broker, Clock, Journal, NoFaults, SimulatedLog};

        let clock = Clock::default();
        let broker = Broker::new(clock.clone(), Journal::new(clock, 0), 2);
        let faults = Rc::new(NoFaults(broker.clone()));
        let log = SimulatedLog::new(broker, faults, Inventory::SERVICE, "one", None).unwrap();
        let schemas = Schemas::fixed(&[
            (Inventory::SERVICE, Topic::Events, 1),
            (Inventory::SERVICE, Topic::State, 2),
        ]);
        let cluster = Cluster {
            bootstrap: String::new(),
            prefix: String::new(),
            partitions: 2,
        };
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let mut worker = Worker::new(
            NoRules,
            cluster.into(),
            Codec::new(schemas),
            log,
            NoEffects,
            metrics.clone(),
            Settings::default(),
        );
        let status = worker.status();
        for _ in 0..1_000 {
            worker.step().unwrap();
        }
        assert_eq!(status.restored(), [0, 1]);
        status.ready().unwrap();

        worker.fail_partition(0, "own_partition", "a test").unwrap();
        // As after an aborted transaction.
        worker.reset_partitions();
        for _ in 0..1_000 {
            worker.step().unwrap();
        }
        assert_eq!(status.restored(), [1]);
        assert_eq!(status.observable_state().partitions[&0].phase, "failed");
        assert_eq!(
            status.ready().unwrap_err(),
            "partition 0: invariant own_partition violated: a test; restart the process"
        );
        let labels = [Inventory::SERVICE.name(), "own_partition"];
        let violations = metrics.invariant_violations.with_label_values(&labels);
        assert_eq!(violations.get(), 1);
    }
}
