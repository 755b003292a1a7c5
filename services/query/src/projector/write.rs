//! Writes a batch in one SQL transaction: rows, history, parked keys and positions.

use std::collections::{BTreeSet, HashMap, HashSet};

use contracts::Service;
use hashlink::LruCache;
use sqlx::types::time::OffsetDateTime;

use super::batch::Batch;
use super::topics::Topics;
use crate::fold::{self, Entry, Folded, Milestone, OrderRow, PaymentRow, ShipmentRow, StockRow};
use crate::metrics::Statements;
use crate::progress::ProgressKey;
use crate::tables::{Advance, Store, Table, Transaction};

/// Cached rows of each table: enough for the open aggregates and the products of a shop.
const CACHED_ROWS: usize = 32_768;

/// Writes batches of the owned partitions.
///
/// It caches rows and parked keys, which is sound because it is their only writer. It must be dropped after any error:
/// its cache may then be ahead of the database.
pub struct Writer {
    orders: TableWriter<OrderRow>,
    stock: TableWriter<StockRow>,
    payments: TableWriter<PaymentRow>,
    shipments: TableWriter<ShipmentRow>,
    statements: Statements,
}

/// The effects of a committed batch.
#[derive(Debug, Default)]
pub struct CommittedBatch {
    /// New versions of orders and stock items.
    pub progress: HashMap<ProgressKey, i64>,
    /// Event counts by service.
    pub counts: Vec<(Service, EventCounts)>,
    /// Milestones that orders reached.
    pub milestones: Vec<Milestone>,
}

/// What became of the events of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Times of the events applied.
    pub applied: Vec<OffsetDateTime>,
    /// Events skipped because they had been applied.
    pub repeated: usize,
    /// Records parked.
    pub parked: i64,
}

impl Writer {
    /// Opens a writer for these partitions.
    pub async fn open(
        model: &mut impl Store,
        topics: &Topics,
        partitions: &[i32],
        statements: Statements,
    ) -> sqlx::Result<Self> {
        Ok(Self {
            orders: TableWriter::open(model, topics.of(Service::Orders), partitions).await?,
            stock: TableWriter::open(model, topics.of(Service::Inventory), partitions).await?,
            payments: TableWriter::open(model, topics.of(Service::Payments), partitions).await?,
            shipments: TableWriter::open(model, topics.of(Service::Shipping), partitions).await?,
            statements,
        })
    }

    /// Number of parked keys by service.
    pub fn parked_keys(&self) -> [(Service, usize); 4] {
        [
            (Service::Orders, self.orders.parked_keys.len()),
            (Service::Inventory, self.stock.parked_keys.len()),
            (Service::Payments, self.payments.parked_keys.len()),
            (Service::Shipping, self.shipments.parked_keys.len()),
        ]
    }

    /// Applies a batch and moves the positions. Returns `None`, and writes nothing, when a position is not the expected
    /// one.
    pub async fn write(
        &mut self,
        model: &mut impl Store,
        batch: Batch,
        advances: &[Advance],
    ) -> sqlx::Result<Option<CommittedBatch>> {
        let statements = &self.statements;
        let mut transaction = model.begin().await?;
        // First, so that another projector that assumes ownership of a partition blocks here or fails.
        let advance = transaction.advance(advances, batch.schema_id);
        if !statements.time("advance_positions", advance).await? {
            transaction.rollback().await?;
            return Ok(None);
        }
        let mut written = CommittedBatch::default();
        let orders = self
            .orders
            .project(&mut transaction, batch.orders, statements)
            .await?;
        if !orders.applied.is_empty() {
            let append = transaction.append_history(&orders.applied);
            statements.time("append_history", append).await?;
        }
        written.add(Service::Orders, &orders);
        let stock = self
            .stock
            .project(&mut transaction, batch.stock, statements)
            .await?;
        written.add(Service::Inventory, &stock);
        let payments = self
            .payments
            .project(&mut transaction, batch.payments, statements)
            .await?;
        written.add(Service::Payments, &payments);
        let shipments = self
            .shipments
            .project(&mut transaction, batch.shipments, statements)
            .await?;
        written.add(Service::Shipping, &shipments);
        statements.time("commit", transaction.commit()).await?;
        written.milestones = fold::milestones(&orders);
        Ok(Some(written))
    }
}

impl CommittedBatch {
    fn add<R: Table>(&mut self, service: Service, folded: &Folded<R>) {
        if matches!(service, Service::Orders | Service::Inventory) {
            self.progress.extend(
                folded
                    .changed
                    .iter()
                    .map(|row| (ProgressKey::Version(service, row.key()), row.version())),
            );
        }
        let parked = folded.parked.iter().map(|parked| parked.records).sum();
        self.counts.push((
            service,
            EventCounts {
                applied: folded
                    .applied
                    .iter()
                    .map(|applied| applied.change.time)
                    .collect(),
                repeated: folded.repeated,
                parked,
            },
        ));
    }
}

/// Folds the entries of one topic and writes its table.
struct TableWriter<R> {
    topic: String,
    rows: LruCache<String, R>,
    parked_keys: HashSet<Vec<u8>>,
}

impl<R: Table> TableWriter<R> {
    async fn open(model: &mut impl Store, topic: &str, partitions: &[i32]) -> sqlx::Result<Self> {
        Ok(Self {
            topic: topic.to_owned(),
            rows: LruCache::new(CACHED_ROWS),
            parked_keys: model
                .parked_keys(topic, partitions)
                .await?
                .into_iter()
                .collect(),
        })
    }

    async fn project(
        &mut self,
        transaction: &mut impl Transaction,
        entries: Vec<Entry<R::Event>>,
        statements: &Statements,
    ) -> sqlx::Result<Folded<R>> {
        let mut rows = self.current_rows(transaction, &entries, statements).await?;
        let folded = fold::fold(&mut rows, &mut self.parked_keys, entries);
        if !folded.changed.is_empty() {
            let store = transaction.store(&folded.changed);
            statements.time("store_rows", store).await?;
        }
        if !folded.parked.is_empty() {
            for parked in &folded.parked {
                tracing::error!(
                    topic = self.topic,
                    partition = parked.partition,
                    offset = parked.first_offset,
                    key = %String::from_utf8_lossy(&parked.key),
                    error = parked.error,
                    "event parked"
                );
            }
            let park = transaction.park(&self.topic, &folded.parked);
            statements.time("park_keys", park).await?;
        }
        for (key, row) in rows {
            self.rows.insert(key, row);
        }
        Ok(folded)
    }

    /// The rows of all aggregates in the batch, from the cache or from the table.
    async fn current_rows(
        &mut self,
        transaction: &mut impl Transaction,
        entries: &[Entry<R::Event>],
        statements: &Statements,
    ) -> sqlx::Result<HashMap<String, R>> {
        let mut rows = HashMap::new();
        let mut missing = BTreeSet::new();
        for change in entries
            .iter()
            .filter_map(|entry| entry.content.as_ref().ok())
        {
            let id = change.id.as_str();
            if rows.contains_key(id) || missing.contains(id) {
                continue;
            }
            match self.rows.remove_entry(id) {
                Some((key, row)) => {
                    rows.insert(key, row);
                }
                None => {
                    missing.insert(id);
                }
            }
        }
        if !missing.is_empty() {
            let missing: Vec<_> = missing.into_iter().collect();
            let loaded = statements.time("load_rows", transaction.load::<R>(&missing));
            rows.extend(loaded.await?.into_iter().map(|row| (row.key(), row)));
        }
        Ok(rows)
    }
}
