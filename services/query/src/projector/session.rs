//! An ownership session: the time in which a projector owns an unchanged set of partitions.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::time::{Duration, Instant};

use engine::log::replacement::FailureTracker;
use sqlx::postgres::PgConnection;
use sqlx::types::time::OffsetDateTime;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, SchemaError};
use super::data_errors::{RefusedRecords, data_error};
use super::lag::LagEstimator;
use super::log::{FetchedRecord, LogReader, MAX_BATCH, Source};
use super::observable::ObservablePartition;
use super::offset_advances::offset_advances;
use super::ownership::Ownership;
use super::topics::Topics;
use super::write::{CommittedBatch, Writer};
use super::{Error, LOG_UNAVAILABLE, Projector};
use crate::metrics::EventDisposition;
use crate::progress::ProgressKey;
use crate::tables::{Advance, RecordIdentity, Store as _};

/// How often ownership is rebalanced.
const OWNERSHIP_INTERVAL: Duration = Duration::from_secs(1);
/// How often the lag of one partition is measured; the partitions take turns.
const LAG_INTERVAL: Duration = Duration::from_millis(250);
/// Interval of lag measurements while the broker does not answer.
const LAG_RETRY_INTERVAL: Duration = Duration::from_secs(2);
const LAG_TIMEOUT: Duration = Duration::from_secs(1);
/// A position behind the end that has not advanced for this time is stalled.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often held records are retried.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// For how long the registry is trusted after it confirmed a schema id in use.
const REGISTRY_TRUST_DURATION: Duration = Duration::from_secs(30);
/// Longer than the server's `statement_timeout`: only an unreachable server takes this long.
const DATABASE_DEADLINE: Duration = Duration::from_secs(40);

/// Why an ownership session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The process shuts down.
    Shutdown,
    /// The set of owned partitions changed.
    Rebalanced,
    /// Another projector has moved a position.
    Fenced,
    /// The log client fails while a fresh client gets answers.
    ClientLost,
    /// The database refused a batch because of its data. The next session writes its records one by one, or parks its
    /// only record.
    DataRefused,
}

/// Whether the log client works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogClient {
    /// It works, or it is not known to be lost.
    Working,
    /// It must be replaced: a fresh client gets answers, but it does not.
    Lost,
}

/// All state of the owned partitions. It is dropped after any failure.
pub struct OwnershipSession<'a> {
    projector: &'a Projector,
    topics: &'a Topics,
    runtime: &'a Runtime,
    connection: &'a mut PgConnection,
    log: LogReader,
    writer: Writer,
    positions: HashMap<Source, i64>,
    /// The last record of each partition that was added to a batch.
    last_records: HashMap<Source, RecordIdentity>,
    /// A schema id in use.
    schema_id: Option<u32>,
    /// Until then the registry is assumed to know `schema_id`.
    registry_trusted_until: Instant,
    /// Records of paused partitions, from the first one that cannot be applied yet.
    held: HashMap<Source, VecDeque<FetchedRecord>>,
    retry_at: Instant,
    lag: LagEstimator,
    measure_at: Instant,
    /// Positions that are behind the end of their partition, and since when they have not advanced.
    behind: HashMap<Source, (i64, Instant)>,
    /// For how long the log clients have failed; kept across sessions.
    log_failures: &'a mut FailureTracker,
    /// Records that the database refuses; kept across sessions.
    refused: &'a mut RefusedRecords,
}

impl<'a> OwnershipSession<'a> {
    /// Starts at the positions in the database.
    pub fn begin(
        projector: &'a Projector,
        topics: &'a Topics,
        runtime: &'a Runtime,
        connection: &'a mut PgConnection,
        partitions: &[i32],
        log_failures: &'a mut FailureTracker,
        refused: &'a mut RefusedRecords,
    ) -> Result<Self, Error> {
        let statements = projector.metrics.statements.clone();
        let (positions, writer) = runtime.block_on(with_deadline(async {
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
            .filter_map(|position| {
                let source = topics.source(&position.topic, position.partition)?;
                Some((source, position.last_record()?))
            })
            .collect();
        let positions: HashMap<_, _> = positions
            .into_iter()
            .filter_map(|position| {
                Some((
                    topics.source(&position.topic, position.partition)?,
                    position.next_offset,
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
            log: LogReader::open(&projector.kafka, topics, &positions, expected)?,
            last_records: HashMap::new(),
            writer,
            schema_id,
            registry_trusted_until: now,
            held: HashMap::new(),
            retry_at: now,
            lag: LagEstimator::new(positions.keys().copied().collect(), unix_ms()),
            measure_at: now,
            behind: HashMap::new(),
            log_failures,
            refused,
            positions,
        })
    }

    /// Projects until the session ends.
    pub fn run(
        &mut self,
        ownership: &mut Ownership,
        shutdown: &CancellationToken,
    ) -> Result<SessionEnd, Error> {
        let mut rebalance_at = Instant::now() + OWNERSHIP_INTERVAL;
        while !shutdown.is_cancelled() {
            let records = self.next_records()?;
            let mut batch = self.decode(records)?;
            let records = std::mem::take(&mut batch.records);
            match self.write(batch) {
                Ok(true) => {}
                Ok(false) => return Ok(SessionEnd::Fenced),
                Err(error) => return self.on_failed_write(error, &records),
            }
            self.refused.forget(&self.positions);
            self.projector.iterations.increment();
            if self.check_log() == LogClient::Lost {
                return Ok(SessionEnd::ClientLost);
            }
            if Instant::now() >= rebalance_at {
                if self
                    .runtime
                    .block_on(with_deadline(ownership.rebalance(self.connection)))?
                {
                    return Ok(SessionEnd::Rebalanced);
                }
                rebalance_at = Instant::now() + OWNERSHIP_INTERVAL;
            }
        }
        Ok(SessionEnd::Shutdown)
    }

    /// Ends the session after a data error, so that nothing that was cached of the refused batch remains.
    fn on_failed_write(
        &mut self,
        error: Error,
        records: &[(Source, i64)],
    ) -> Result<SessionEnd, Error> {
        let Error::Database(cause) = &error else {
            return Err(error);
        };
        let Some(reason) = data_error(cause) else {
            return Err(error);
        };
        if !self.refused.note(records, &reason) {
            return Err(error);
        }
        tracing::warn!(
            records = records.len(),
            reason,
            "the database refuses the data of a batch"
        );
        Ok(SessionEnd::DataRefused)
    }

    /// The held records, when a retry is due, and then the next records of the log.
    fn next_records(&mut self) -> Result<Vec<FetchedRecord>, Error> {
        let mut records = Vec::new();
        if !self.held.is_empty() && Instant::now() >= self.retry_at {
            for (source, held) in self.held.drain() {
                records.extend(held);
                self.log.resume(source)?;
            }
        }
        let max = if self.refused.includes(&self.positions) {
            1
        } else {
            MAX_BATCH
        };
        records.extend(self.log.gather(max)?);
        Ok(records)
    }

    fn decode(&mut self, records: Vec<FetchedRecord>) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        for record in records {
            if let Some(held) = self.held.get_mut(&record.source) {
                held.push_back(record);
                continue;
            }
            let (source, identity) = (record.source, record.identity());
            if let Some(reason) = self.refused.reason(source, record.offset) {
                batch.push_unreadable(record, format!("the database refuses it: {reason}"));
                self.last_records.insert(source, identity);
                continue;
            }
            match batch.push(&self.projector.schemas, record) {
                Ok(()) => {
                    self.last_records.insert(source, identity);
                }
                Err((record, error @ SchemaError::Unknown { .. })) if self.check_registry()? => {
                    batch.push_unreadable(record, error.to_string());
                    self.last_records.insert(source, identity);
                }
                Err((record, error)) => self.hold(record, error)?,
            }
        }
        self.schema_id = batch.schema_id.or(self.schema_id);
        self.projector
            .metrics
            .waiting_partitions
            .set(i64::try_from(self.held.len()).unwrap_or(i64::MAX));
        Ok(batch)
    }

    /// Whether a record with an unknown schema id is poison. Only a registry that still knows an id in use can decide
    /// this: with a wiped registry every record would look like poison. `false` when the registry does not answer.
    fn check_registry(&mut self) -> Result<bool, Error> {
        let Some(schema_id) = self.schema_id else {
            return Ok(true);
        };
        if Instant::now() < self.registry_trusted_until {
            return Ok(true);
        }
        match self
            .projector
            .main_runtime
            .block_on(self.projector.schemas.knows(schema_id))
        {
            Ok(true) => {
                self.registry_trusted_until = Instant::now() + REGISTRY_TRUST_DURATION;
                Ok(true)
            }
            Ok(false) => Err(Error::RegistryReplaced { schema_id }),
            Err(error) => {
                tracing::warn!(%error, "the schema registry does not answer");
                Ok(false)
            }
        }
    }

    fn hold(&mut self, record: FetchedRecord, error: SchemaError) -> Result<(), Error> {
        let (service, partition) = record.source;
        tracing::warn!(%service, partition, offset = record.offset, reason = %error, "partition paused at a record");
        self.log.pause(record.source)?;
        self.held.insert(record.source, VecDeque::from([record]));
        self.retry_at = Instant::now() + RETRY_INTERVAL;
        Ok(())
    }

    /// Commits a batch together with the positions after it. Returns `false` when it was fenced.
    fn write(&mut self, mut batch: Batch) -> Result<bool, Error> {
        let advances = self.pending_advances()?;
        if advances.is_empty() && batch.len() == 0 {
            self.projector.progress.publish(&HashMap::new());
            return Ok(true);
        }
        let metrics = &self.projector.metrics;
        if batch.len() > 0 {
            metrics.batch_events.observe(batch.len() as f64);
        }
        let sent_ms = std::mem::take(&mut batch.sent_ms);
        let spans = std::mem::take(&mut batch.spans).start_transaction(batch.len());
        let timer = metrics.write_seconds.start_timer();
        let write = self.writer.write(self.connection, batch, &advances);
        let mut written = match self.runtime.block_on(with_deadline(write)) {
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
        for advance in advances {
            if let Some(source) = self.topics.source(&advance.topic, advance.partition) {
                self.positions.insert(source, advance.to);
                metrics.position(source.0, source.1, advance.to);
                written
                    .progress
                    .insert(ProgressKey::Position(source.0, source.1), advance.to);
            }
        }
        for (source, sent_ms) in sent_ms {
            self.lag.record_applied(source, sent_ms);
        }
        self.record_metrics(&written);
        self.projector.progress.publish(&written.progress);
        Ok(true)
    }

    /// The advances of the positions after a gather.
    fn pending_advances(&self) -> Result<Vec<Advance>, Error> {
        let reached = self.log.positions()?;
        let first_held = |source| {
            let held = self.held.get(&source).and_then(VecDeque::front);
            held.map(|record| record.offset)
        };
        Ok(offset_advances(
            self.topics,
            &self.positions,
            &reached,
            &self.last_records,
            first_held,
        ))
    }

    fn record_metrics(&self, written: &CommittedBatch) {
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
        metrics.milestones(&written.milestones, commit);
    }

    /// Measures the lag of one partition, and checks that the log client works: the broker reports the end of the
    /// partition, and positions behind their end advance. Updates the readiness.
    fn check_log(&mut self) -> LogClient {
        let now = Instant::now();
        if now < self.measure_at {
            return LogClient::Working;
        }
        let Some(source) = self.lag.next_partition() else {
            return LogClient::Working;
        };
        let end = match self.log.end(source, LAG_TIMEOUT) {
            Ok(end) => end,
            Err(error) => {
                self.measure_at = now + LAG_RETRY_INTERVAL;
                self.log.failed(&error);
                self.projector.metrics.reset_lag();
                self.projector.readiness.not_ready(LOG_UNAVAILABLE);
                return self.record_client_failure(source);
            }
        };
        self.measure_at = now + LAG_INTERVAL;
        self.log.answered();
        self.observe();
        let position = self.positions.get(&source).copied().unwrap_or_default();
        let held = self.held.get(&source).and_then(VecDeque::front);
        let held_ms = held.and_then(|record| record.time_ms);
        let seconds = self.lag.measure(source, position, end, held_ms, unix_ms());
        let records = (end - position).max(0);
        self.projector
            .metrics
            .lag(source.0, source.1, records, seconds);
        if position >= end || held.is_some() {
            self.behind.remove(&source);
        } else {
            let behind = self.behind.entry(source).or_insert((position, now));
            if behind.0 != position {
                *behind = (position, now);
            }
        }
        let stalled = self.behind.iter().find(|(source, (position, since))| {
            // Positions that advanced after their measurement are not stalled.
            self.positions.get(source) == Some(position)
                && now.duration_since(*since) > STALL_TIMEOUT
        });
        let Some((&(service, partition), &(position, since))) = stalled else {
            self.log_failures.answered();
            self.projector.readiness.ready();
            return LogClient::Working;
        };
        self.projector.readiness.not_ready(format!(
            "{} [{partition}] has been stalled at offset {position} for {} s",
            self.topics.of(service),
            now.duration_since(since).as_secs()
        ));
        self.record_client_failure((service, partition))
    }

    fn observe(&self) {
        let partitions = self.positions.iter().map(|(&source, &position)| {
            let held_records = self.held.get(&source).map_or(0, VecDeque::len);
            let observed = ObservablePartition {
                position,
                held_records,
            };
            (source, observed)
        });
        self.projector
            .observed
            .projecting(partitions, self.writer.parked_keys());
    }

    /// Records a failure of the log client. It is lost when it has failed for some time and a fresh client gets
    /// answers.
    fn record_client_failure(&mut self, source: Source) -> LogClient {
        let is_lost = self
            .log_failures
            .failed(self.projector.created_at.elapsed())
            && self.log.fresh_client_answers(source, LAG_TIMEOUT);
        if !is_lost {
            return LogClient::Working;
        }
        self.log_failures.replaced();
        tracing::warn!(
            client = "projector",
            "log client replaced: a fresh one gets answers"
        );
        LogClient::Lost
    }
}

/// The wall-clock time, Unix milliseconds.
pub fn unix_ms() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// Fails when the database does not answer within [`DATABASE_DEADLINE`]; the caller then drops the connection.
async fn with_deadline<T>(work: impl Future<Output = sqlx::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(DATABASE_DEADLINE, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::DatabaseTimeout(DATABASE_DEADLINE)),
    }
}
