//! The time in which a projector owns an unchanged set of partitions.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::time::{Duration, Instant};

use engine::log::replacement::Failing;
use sqlx::postgres::PgConnection;
use sqlx::types::time::OffsetDateTime;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Obstacle};
use super::lag::Lag;
use super::log::{Fetched, Log, Source};
use super::offset_advances::steps;
use super::ownership::Ownership;
use super::topics::Topics;
use super::write::{Writer, Written};
use super::{Error, LOG_SILENT, Projector};
use crate::metrics::EventDisposition;
use crate::progress::Mark;
use crate::tables::{Advance, Last, Store as _};

/// How often ownership is looked after.
const OWNERSHIP_INTERVAL: Duration = Duration::from_secs(1);
/// How often one partition's lag is measured, in turn.
const LAG_INTERVAL: Duration = Duration::from_millis(250);
/// The same after the broker has not answered.
const LAG_PAUSE: Duration = Duration::from_secs(2);
const LAG_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a position may stay behind the end of its partition.
const STILL: Duration = Duration::from_secs(5);
/// How often the records of waiting partitions are tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How long the registry's answer about itself holds.
const REGISTRY_TRUST: Duration = Duration::from_secs(30);
/// Longer than the server allows a statement: only a server that is gone takes so long.
const DATABASE_DEADLINE: Duration = Duration::from_secs(40);

/// Why a tenure ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process ends.
    Shutdown,
    /// The set of partitions is another one now.
    Settled,
    /// Somebody else has moved a position.
    Fenced,
    /// The client of the log fails although a fresh one does not.
    ClientLost,
}

/// Everything that is known about the owned partitions. Dropped whole when anything goes wrong.
pub struct OwnershipSession<'a> {
    projector: &'a Projector,
    topics: &'a Topics,
    runtime: &'a Runtime,
    connection: &'a mut PgConnection,
    log: Log,
    writer: Writer,
    positions: HashMap<Source, i64>,
    /// The last record of each partition that is in the batch, or was in one.
    last: HashMap<Source, Last>,
    /// A schema id that was in use.
    schema_id: Option<u32>,
    /// Until when the registry need not be asked again whether it is the one that gave this id.
    registry_trusted_until: Instant,
    /// Records of the partitions that wait, from the first that cannot be applied yet.
    held: HashMap<Source, VecDeque<Fetched>>,
    retry_at: Instant,
    lag: Lag,
    measure_at: Instant,
    /// Positions that are behind the end of the log and have not moved, and since when.
    still: HashMap<Source, (i64, Instant)>,
    /// For how long the clients of the log have failed; it outlasts them.
    client: &'a mut Failing,
}

impl<'a> OwnershipSession<'a> {
    /// Begins at the positions in the database.
    pub fn begin(
        projector: &'a Projector,
        topics: &'a Topics,
        runtime: &'a Runtime,
        connection: &'a mut PgConnection,
        partitions: &[i32],
        client: &'a mut Failing,
    ) -> Result<Self, Error> {
        let statements = projector.metrics.statements.clone();
        let (positions, writer) = runtime.block_on(in_time(async {
            let positions = connection.positions(&topics.names(), partitions).await?;
            Ok((
                positions,
                Writer::open(connection, topics, partitions, statements).await?,
            ))
        }))?;
        let schema_id = positions
            .iter()
            .find_map(|position| u32::try_from(position.schema_id?).ok());
        let expected = positions
            .iter()
            .filter_map(|kept| Some((topics.source(&kept.topic, kept.partition)?, kept.last()?)))
            .collect();
        let positions: HashMap<_, _> = positions
            .into_iter()
            .filter_map(|kept| {
                Some((
                    topics.source(&kept.topic, kept.partition)?,
                    kept.next_offset,
                ))
            })
            .collect();
        for (&(service, partition), &position) in &positions {
            projector.metrics.position(service, partition, position);
        }
        let now = Instant::now();
        Ok(Self {
            projector,
            topics,
            runtime,
            connection,
            log: Log::open(&projector.kafka, topics, &positions, expected)?,
            last: HashMap::new(),
            writer,
            schema_id,
            registry_trusted_until: now,
            held: HashMap::new(),
            retry_at: now,
            lag: Lag::new(positions.keys().copied().collect(), unix_ms()),
            measure_at: now,
            still: HashMap::new(),
            client,
            positions,
        })
    }

    /// Projects until the tenure ends.
    pub fn work(
        &mut self,
        ownership: &mut Ownership,
        shutdown: &CancellationToken,
    ) -> Result<End, Error> {
        let mut settle_at = Instant::now() + OWNERSHIP_INTERVAL;
        while !shutdown.is_cancelled() {
            let records = self.next_records()?;
            let batch = self.decode(records)?;
            if !self.write(batch)? {
                return Ok(End::Fenced);
            }
            self.projector.rounds.finish();
            if self.measure_lag() {
                return Ok(End::ClientLost);
            }
            if Instant::now() >= settle_at {
                if self
                    .runtime
                    .block_on(in_time(ownership.settle(self.connection)))?
                {
                    return Ok(End::Settled);
                }
                settle_at = Instant::now() + OWNERSHIP_INTERVAL;
            }
        }
        Ok(End::Shutdown)
    }

    /// The records of waiting partitions, when it is time to try them again, before what the log has next.
    fn next_records(&mut self) -> Result<Vec<Fetched>, Error> {
        let mut records = Vec::new();
        if !self.held.is_empty() && Instant::now() >= self.retry_at {
            for (source, held) in self.held.drain() {
                records.extend(held);
                self.log.resume(source)?;
            }
        }
        records.extend(self.log.gather()?);
        Ok(records)
    }

    fn decode(&mut self, records: Vec<Fetched>) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        for record in records {
            if let Some(held) = self.held.get_mut(&record.source) {
                held.push_back(record);
                continue;
            }
            let (source, last) = (record.source, record.last());
            match batch.push(&self.projector.schemas, record) {
                Ok(()) => {
                    self.last.insert(source, last);
                }
                Err((record, stranger @ Obstacle::Stranger { .. }))
                    if self.trusts_registry()? =>
                {
                    batch.refuse(record, stranger.to_string());
                    self.last.insert(source, last);
                }
                Err((record, obstacle)) => self.hold(record, obstacle)?,
            }
        }
        self.schema_id = batch.schema_id.or(self.schema_id);
        self.projector
            .metrics
            .waiting_partitions
            .set(i64::try_from(self.held.len()).unwrap_or(i64::MAX));
        Ok(batch)
    }

    /// Whether an id that the registry does not know is poison. It is not when the registry has forgotten an id that
    /// was in use: then every record would look like poison. `false`: it cannot be asked now.
    fn trusts_registry(&mut self) -> Result<bool, Error> {
        let Some(schema_id) = self.schema_id else {
            return Ok(true);
        };
        if Instant::now() < self.registry_trusted_until {
            return Ok(true);
        }
        match self
            .projector
            .services
            .block_on(self.projector.schemas.knows(schema_id))
        {
            Ok(true) => {
                self.registry_trusted_until = Instant::now() + REGISTRY_TRUST;
                Ok(true)
            }
            Ok(false) => Err(Error::RegistryReplaced { schema_id }),
            Err(error) => {
                tracing::warn!(%error, "the registry cannot be asked");
                Ok(false)
            }
        }
    }

    fn hold(&mut self, record: Fetched, obstacle: Obstacle) -> Result<(), Error> {
        let (service, partition) = record.source;
        tracing::warn!(%service, partition, offset = record.offset, reason = %obstacle, "partition waits at a record");
        self.log.pause(record.source)?;
        self.held.insert(record.source, VecDeque::from([record]));
        self.retry_at = Instant::now() + RETRY_INTERVAL;
        Ok(())
    }

    /// Commits a batch with the positions behind it; `false` when it was fenced.
    fn write(&mut self, mut batch: Batch) -> Result<bool, Error> {
        let steps = self.steps()?;
        if steps.is_empty() && batch.len() == 0 {
            // Nothing to tell, but marks that nobody awaits any more are to be forgotten.
            self.projector.progress.publish(&HashMap::new());
            return Ok(true);
        }
        let metrics = &self.projector.metrics;
        if batch.len() > 0 {
            metrics.batch_events.observe(batch.len() as f64);
        }
        let sent_ms = std::mem::take(&mut batch.sent_ms);
        let spans = std::mem::take(&mut batch.spans).transaction(batch.len());
        let timer = metrics.write_seconds.start_timer();
        let write = self.writer.write(self.connection, batch, &steps);
        let mut written = match self.runtime.block_on(in_time(write)) {
            Ok(Some(written)) => written,
            Ok(None) => {
                spans.fail("fenced");
                return Ok(false);
            }
            Err(error) => {
                spans.fail("database");
                return Err(error);
            }
        };
        timer.observe_duration();
        drop(spans);
        for step in steps {
            if let Some(source) = self.topics.source(&step.topic, step.partition) {
                self.positions.insert(source, step.to);
                metrics.position(source.0, source.1, step.to);
                written
                    .marks
                    .insert(Mark::Position(source.0, source.1), step.to);
            }
        }
        for (source, sent_ms) in sent_ms {
            self.lag.applied(source, sent_ms);
        }
        self.count(&written);
        self.projector.progress.publish(&written.marks);
        Ok(true)
    }

    /// How far the positions move with what was gathered.
    fn steps(&self) -> Result<Vec<Advance>, Error> {
        let reached = self.log.positions()?;
        let first_held = |source| {
            let held = self.held.get(&source).and_then(VecDeque::front);
            held.map(|record| record.offset)
        };
        Ok(steps(
            self.topics,
            &self.positions,
            &reached,
            &self.last,
            first_held,
        ))
    }

    fn count(&self, written: &Written) {
        let commit = OffsetDateTime::now_utc();
        let metrics = &self.projector.metrics;
        for (service, counts) in &written.counts {
            metrics.events(
                *service,
                EventDisposition::Applied,
                counts.applied.len() as u64,
            );
            metrics.events(*service, EventDisposition::Repeated, counts.repeated as u64);
            metrics.events(
                *service,
                EventDisposition::Parked,
                counts.parked.unsigned_abs(),
            );
            metrics.visible(*service, &counts.applied, commit);
        }
        metrics.steps(&written.steps, commit);
    }

    /// Measures the lag of one partition, and proves that the client of the log works: it is told where the partition
    /// ends, and moves while it is behind. The readiness says what is missing. Whether the client is to be replaced.
    fn measure_lag(&mut self) -> bool {
        let now = Instant::now();
        if now < self.measure_at {
            return false;
        }
        let Some(source) = self.lag.turn() else {
            return false;
        };
        let end = match self.log.end(source, LAG_TIMEOUT) {
            Ok(end) => end,
            Err(error) => {
                self.measure_at = now + LAG_PAUSE;
                self.log.failed(&error);
                self.projector.metrics.forget_lag();
                self.projector.readiness.not_ready(LOG_SILENT);
                return self.is_client_lost(source);
            }
        };
        self.measure_at = now + LAG_INTERVAL;
        self.log.answered();
        let position = self.positions.get(&source).copied().unwrap_or_default();
        let held = self.held.get(&source).and_then(VecDeque::front);
        let held_ms = held.and_then(|record| record.time_ms);
        let seconds = self.lag.measured(source, position, end, held_ms, unix_ms());
        let records = (end - position).max(0);
        self.projector
            .metrics
            .lag(source.0, source.1, records, seconds);
        if position >= end || held.is_some() {
            self.still.remove(&source);
        } else {
            let still = self.still.entry(source).or_insert((position, now));
            if still.0 != position {
                *still = (position, now);
            }
        }
        let standing = self.still.iter().find(|(source, (position, since))| {
            // Others have moved since they were measured.
            self.positions.get(source) == Some(position) && now.duration_since(*since) > STILL
        });
        let Some((&(service, partition), &(position, since))) = standing else {
            self.client.answered();
            self.projector.readiness.ready();
            return false;
        };
        self.projector.readiness.not_ready(format!(
            "{} [{partition}] stands still at offset {position} for {} s",
            self.topics.of(service),
            now.duration_since(since).as_secs()
        ));
        self.is_client_lost((service, partition))
    }

    /// The client has failed: whether a fresh one would not.
    fn is_client_lost(&mut self, source: Source) -> bool {
        let is_lost = self.client.failed(self.projector.made.elapsed())
            && self.log.is_answered_afresh(source, LAG_TIMEOUT);
        if is_lost {
            self.client.replaced();
            tracing::warn!(
                client = "projector",
                "log client replaced: a fresh one gets answers"
            );
        }
        is_lost
    }
}

fn unix_ms() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// A connection that has not answered in time is of no use any more: the caller drops it.
async fn in_time<T>(work: impl Future<Output = sqlx::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(DATABASE_DEADLINE, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::Silent(DATABASE_DEADLINE)),
    }
}
