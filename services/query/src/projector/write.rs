//! One batch, one SQL transaction: rows, history, parked keys and positions together.

use std::collections::{BTreeSet, HashMap, HashSet};

use contracts::Service;
use hashlink::LruCache;
use sqlx::types::time::OffsetDateTime;

use super::batch::Batch;
use super::topics::Topics;
use crate::fold::{self, Entry, Folded, OrderRow, PaymentRow, ShipmentRow, Step, StockRow};
use crate::metrics::Statements;
use crate::progress::Mark;
use crate::tables::{Advance, Store, Table, Transaction};

/// Rows of each kind that are kept in memory: the aggregates in motion, and a shop's products.
const CACHED_ROWS: usize = 32_768;

/// Writes batches of the partitions that it was made for.
///
/// It remembers rows and parked keys, which is sound because nobody else writes them. After any error it must be
/// dropped: what it remembers may then be ahead of the database.
pub struct Writer {
    orders: TableWriter<OrderRow>,
    stock: TableWriter<StockRow>,
    payments: TableWriter<PaymentRow>,
    shipments: TableWriter<ShipmentRow>,
    statements: Statements,
}

/// What a committed batch did.
#[derive(Debug, Default)]
pub struct Written {
    /// New versions of orders and stock items.
    pub marks: HashMap<Mark, i64>,
    /// By service.
    pub counts: Vec<(Service, Counts)>,
    /// What happened to orders.
    pub steps: Vec<Step>,
}

/// What a committed batch did to one kind of aggregate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times of the events applied.
    pub applied: Vec<OffsetDateTime>,
    /// Events skipped because they had been applied.
    pub repeated: usize,
    /// Records set aside.
    pub parked: i64,
}

impl Writer {
    /// A writer for these partitions.
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

    /// Applies a batch and moves the positions. `None`: a position was not where it was expected, nothing is written.
    pub async fn write(
        &mut self,
        model: &mut impl Store,
        batch: Batch,
        steps: &[Advance],
    ) -> sqlx::Result<Option<Written>> {
        let timed = &self.statements;
        let mut transaction = model.begin().await?;
        // First, so that whoever else thinks to own a partition waits here or fails.
        let advance = transaction.advance(steps, batch.schema_id);
        if !timed.time("advance_positions", advance).await? {
            transaction.rollback().await?;
            return Ok(None);
        }
        let mut written = Written::default();
        let orders = self
            .orders
            .project(&mut transaction, batch.orders, timed)
            .await?;
        if !orders.applied.is_empty() {
            let append = transaction.append_history(&orders.applied);
            timed.time("append_history", append).await?;
        }
        written.note(Service::Orders, &orders);
        let stock = self
            .stock
            .project(&mut transaction, batch.stock, timed)
            .await?;
        written.note(Service::Inventory, &stock);
        let payments = self
            .payments
            .project(&mut transaction, batch.payments, timed)
            .await?;
        written.note(Service::Payments, &payments);
        let shipments = self
            .shipments
            .project(&mut transaction, batch.shipments, timed)
            .await?;
        written.note(Service::Shipping, &shipments);
        timed.time("commit", transaction.commit()).await?;
        written.steps = fold::steps(&orders);
        Ok(Some(written))
    }
}

impl Written {
    fn note<R: Table>(&mut self, service: Service, folded: &Folded<R>) {
        if matches!(service, Service::Orders | Service::Inventory) {
            self.marks.extend(
                folded
                    .changed
                    .iter()
                    .map(|row| (Mark::Version(service, row.key()), row.version())),
            );
        }
        let parked = folded.parked.iter().map(|parked| parked.records).sum();
        self.counts.push((
            service,
            Counts {
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

/// One kind of aggregate on its way into its table.
struct TableWriter<R> {
    topic: String,
    rows: LruCache<String, R>,
    parked: HashSet<Vec<u8>>,
}

impl<R: Table> TableWriter<R> {
    async fn open(model: &mut impl Store, topic: &str, partitions: &[i32]) -> sqlx::Result<Self> {
        Ok(Self {
            topic: topic.to_owned(),
            rows: LruCache::new(CACHED_ROWS),
            parked: model
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
        timed: &Statements,
    ) -> sqlx::Result<Folded<R>> {
        let mut rows = self.current(transaction, &entries, timed).await?;
        let folded = fold::fold(&mut rows, &mut self.parked, entries);
        if !folded.changed.is_empty() {
            let store = transaction.store(&folded.changed);
            timed.time("store_rows", store).await?;
        }
        if !folded.parked.is_empty() {
            for parked in &folded.parked {
                tracing::error!(
                    topic = self.topic,
                    partition = parked.partition,
                    offset = parked.first_offset,
                    key = %String::from_utf8_lossy(&parked.key),
                    error = parked.error,
                    "event set aside"
                );
            }
            let park = transaction.park(&self.topic, &folded.parked);
            timed.time("park_keys", park).await?;
        }
        for (key, row) in rows {
            self.rows.insert(key, row);
        }
        Ok(folded)
    }

    /// The rows of all aggregates in the batch, from memory or from the table.
    async fn current(
        &mut self,
        transaction: &mut impl Transaction,
        entries: &[Entry<R::Event>],
        timed: &Statements,
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
            let loaded = timed.time("load_rows", transaction.load::<R>(&missing));
            rows.extend(loaded.await?.into_iter().map(|row| (row.key(), row)));
        }
        Ok(rows)
    }
}
