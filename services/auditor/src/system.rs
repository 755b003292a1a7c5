//! The running system as evidence: one consistent cut of log, read model and ledgers.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use audit::rows::{ParkedKey, Row};
use audit::{ClientObservation, Cut, Error, Evidence, Items, LogRecord, TopicPartition};
use contracts::sandbox::v1::{LedgerBooking, LedgerPayment};
use contracts::{Service, Topic};
use engine::log::Partition;
use engine::{Cluster, Codec};
use platform_client::{Sandbox, Stack};
use registry::Schemas;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use crate::database::{self, Snapshot};
use crate::ledgers::{self, Ledgers};
use crate::log::Log;

/// Ends are read in this order: a topic comes before the topics that its records refer to.
const TOPICS: [Topic; 5] = [
    Topic::State,
    Topic::Outcomes,
    Topic::Dlq,
    Topic::Events,
    Topic::Commands,
];
/// Schema id of the records that the auditor encodes for comparison. No registry assigns it.
const WRITER_ID: u32 = u32::MAX;

/// The addresses of the evidence.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Log, registry and database.
    pub stack: Stack,
    /// The schema of the read model in the database.
    pub read_model_schema: &'static str,
    /// The partners' ledgers.
    pub sandbox: Sandbox,
}

/// The running system at one cut.
pub struct SystemEvidence {
    cut: Cut,
    log: Log,
    snapshot: Snapshot,
    ledgers: Ledgers,
    observations: Option<Vec<ClientObservation>>,
    schemas: Schemas,
    cluster: Cluster,
    on_progress: Option<Box<dyn Fn(u64)>>,
}

impl SystemEvidence {
    /// Takes the cut. `observations` must be read before. Needs a runtime with several threads.
    ///
    /// # Errors
    ///
    /// A part does not answer, or the parts do not belong together.
    pub async fn open(
        sources: &Sources,
        observations: Option<Vec<ClientObservation>>,
    ) -> anyhow::Result<Self> {
        let stack = &sources.stack;
        let cluster = platform_client::cluster(&stack.kafka);
        block_in_place(|| engine::topics::check(&cluster))?;
        let schema_topics: Vec<_> = platform_client::all_topics()
            .into_iter()
            .filter(|(_, topic)| *topic != Topic::Dlq)
            .collect();
        let remote_schemas =
            platform_client::schemas(&stack.registry, &stack.kafka.prefix, &[], &schema_topics)
                .await?;
        let sandbox = sources.sandbox.connect();
        ledgers::check_reachable(&sandbox).await?;
        let writers: Vec<_> = platform_client::all_topics()
            .into_iter()
            .map(|(service, topic)| (service, topic, WRITER_ID))
            .collect();
        let schemas = Schemas::fixed(&writers);
        let log = Log::new(cluster.clone(), remote_schemas, schemas.clone())?;

        let begun_ms = jiff::Timestamp::now().as_millisecond();
        let snapshot =
            Snapshot::begin(&stack.database.url, sources.read_model_schema, &cluster).await?;
        let cut = block_in_place(|| cut(&cluster, &log, &snapshot, begun_ms))?;
        let system = Self {
            cut,
            log,
            snapshot,
            ledgers: Ledgers::new(sandbox),
            observations,
            schemas,
            cluster,
            on_progress: None,
        };
        block_in_place(|| system.check_consistency())?;
        Ok(system)
    }

    /// An audit of this evidence fails early when `stop` is cancelled.
    pub fn stop_with(&mut self, stop: &CancellationToken) {
        self.log.stop = stop.clone();
    }

    /// Number of commands within the cut, the total for the progress.
    pub fn commands(&self) -> u64 {
        let commands =
            self.cut
                .ends
                .iter()
                .map(|(topic_partition, ends)| match topic_partition.topic {
                    Topic::Commands => ends.high - ends.low,
                    _ => 0,
                });
        u64::try_from(commands.sum::<i64>()).unwrap_or(0)
    }

    /// Calls `on_progress` with the number of commands audited so far.
    pub fn report_progress(&mut self, on_progress: impl Fn(u64) + 'static) {
        self.on_progress = Some(Box::new(on_progress));
    }

    /// Decodes the records of the log.
    pub fn codec(&self) -> Codec {
        Codec::new(self.schemas.clone())
    }

    /// Names of topics, and the number of partitions.
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Checks that log and read model belong together, and that neither was truncated or changed.
    fn check_consistency(&self) -> anyhow::Result<()> {
        let ends = |service, topic, partition| {
            self.cut
                .ends(TopicPartition::new(service, topic, partition))
        };
        for ((service, partition), committed) in &self.cut.committed {
            let commands = ends(*service, Topic::Commands, *partition);
            if *committed > commands.high {
                bail!(
                    "group {service} has processed its commands up to {committed} in partition {partition}, which ends at \
                     {}: the topic was truncated or recreated",
                    commands.high
                );
            }
        }
        for service in Service::ALL {
            for partition in 0..self.cut.partitions {
                let events = ends(service, Topic::Events, partition);
                if events.high > 0 && !self.cut.committed.contains_key(&(service, partition)) {
                    bail!(
                        "group {service} has committed nothing in partition {partition}, which has events: the group was reset"
                    );
                }
            }
        }
        for ((service, partition), position) in &self.snapshot.positions {
            let events = ends(*service, Topic::Events, *partition);
            if *partition >= self.cut.partitions || *position > events.high {
                bail!(
                    "the read model has applied {service}.events up to {position} in partition {partition}, which ends at \
                     {}: it is that of another log, or the topic was truncated or recreated",
                    events.high
                );
            }
        }
        for (partition, offset, order_id) in &self.snapshot.last_order_events {
            let topic_partition = database::order_events(*partition);
            if *offset >= self.cut.ends(topic_partition).high {
                continue;
            }
            let record = self.log.record(topic_partition, *offset)?;
            let key = record.and_then(|record| record.key);
            if key.is_some_and(|key| key != order_id.to_string().as_bytes()) {
                bail!(
                    "the read model is that of another log: it has an event of order {order_id} at {topic_partition}@{offset}, where \
                     the log has one of another order"
                );
            }
        }
        Ok(())
    }
}

fn cut(cluster: &Cluster, log: &Log, snapshot: &Snapshot, begun_ms: i64) -> anyhow::Result<Cut> {
    let mut committed = BTreeMap::new();
    for service in Service::ALL {
        let offsets = log
            .committed(service)
            .with_context(|| format!("group {service} at {}", cluster.bootstrap))?;
        committed.extend(
            offsets
                .into_iter()
                .map(|(partition, offset)| ((service, partition), offset)),
        );
    }
    let partitions = Partition::from(cluster.partitions);
    let mut ends = BTreeMap::new();
    for topic in TOPICS {
        for service in Service::ALL {
            for partition in 0..partitions {
                let topic_partition = TopicPartition::new(service, topic, partition);
                ends.insert(topic_partition, log.ends(topic_partition)?);
            }
        }
    }
    Ok(Cut {
        begun_ms,
        partitions,
        committed,
        ends,
        positions: snapshot.positions.clone(),
    })
}

impl Evidence for SystemEvidence {
    fn cut(&self) -> &Cut {
        &self.cut
    }

    fn records(&self, topic_partition: TopicPartition) -> Result<Items<'_, LogRecord>, Error> {
        Ok(Box::new(
            self.log
                .records(topic_partition, self.cut.ends(topic_partition)),
        ))
    }

    fn rows(&self) -> Result<Option<Items<'_, Row>>, Error> {
        Ok(Some(Box::new(self.snapshot.rows())))
    }

    fn parked(&self) -> Result<Vec<ParkedKey>, Error> {
        Ok(self.snapshot.parked.clone())
    }

    fn payments(&self) -> Result<Option<Items<'_, LedgerPayment>>, Error> {
        self.ledgers.payments().map(Some)
    }

    fn bookings(&self) -> Result<Option<Items<'_, LedgerBooking>>, Error> {
        self.ledgers.bookings().map(Some)
    }

    fn journal(&self) -> Result<Option<Items<'_, ClientObservation>>, Error> {
        let Some(observations) = &self.observations else {
            return Ok(None);
        };
        Ok(Some(Box::new(observations.iter().cloned().map(Ok))))
    }

    fn progress(&self, steps: u64) {
        if let Some(on_progress) = &self.on_progress {
            on_progress(steps);
        }
    }
}
