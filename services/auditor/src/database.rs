//! The read model as the auditor reads it: one snapshot of positions and rows.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use anyhow::Context as _;
use audit::rows::{
    OrderEventRow, OrderLineRow, OrderRow, ParkedKey, PaymentRow, Row, ShipmentRow, StockRow,
};
use audit::{Error, TopicPartition};
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::Partition;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Connection as _, Row as _};
use tokio::runtime::Handle;
use uuid::Uuid;

/// All reads of the transaction see the same snapshot.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const FETCH: &str = "FETCH 2000 FROM audited";
const CLOSE: &str = "CLOSE audited";

/// The query of a table, and the parser of its rows.
type Table = (&'static str, fn(&PgRow) -> sqlx::Result<Row>);

/// Times are selected in Unix microseconds, the precision of the database.
const TABLES: [Table; 6] = [
    (
        "DECLARE audited NO SCROLL CURSOR FOR SELECT order_id, status, end_reason, customer_id, total, currency, \
         line_count, (extract(epoch from placed_at) * 1000000)::int8, \
         (extract(epoch from confirmed_at) * 1000000)::int8, (extract(epoch from updated_at) * 1000000)::int8, \
         version, tracking_number, refunded, late FROM orders",
        order,
    ),
    (
        "DECLARE audited NO SCROLL CURSOR FOR SELECT order_id, position, sku, quantity, unit_price, discount, \
         description FROM order_lines",
        order_line,
    ),
    (
        "DECLARE audited NO SCROLL CURSOR FOR SELECT order_id, version, partition, \"offset\", \
         (extract(epoch from time) * 1000000)::int8, kind, record FROM order_events",
        order_event,
    ),
    (
        "DECLARE audited NO SCROLL CURSOR FOR SELECT sku, on_hand, reserved, received, deducted, version FROM stock",
        stock,
    ),
    (
        "DECLARE audited NO SCROLL CURSOR FOR SELECT order_id, status, amount, currency, provider_reference, flagged, \
         version FROM payments",
        payment,
    ),
    (
        "DECLARE audited NO SCROLL CURSOR FOR SELECT order_id, status, tracking_number, version FROM shipments",
        shipment,
    ),
];

/// A snapshot of the read model.
pub struct Snapshot {
    connection: RefCell<PgConnection>,
    runtime: Handle,
    /// The next offset that the read model applies in each partition of the events.
    pub positions: BTreeMap<(Service, Partition), i64>,
    /// The parked keys.
    pub parked: Vec<ParkedKey>,
    /// The last order event of each partition: partition, offset and order.
    pub last_order_events: Vec<(Partition, i64, Uuid)>,
}

impl Snapshot {
    /// Begins the snapshot. Call it within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The database does not answer, or has no read model.
    pub async fn begin(url: &str, schema: &str, cluster: &Cluster) -> anyhow::Result<Self> {
        let options: PgConnectOptions = url.parse().context("the database url is not valid")?;
        let options = options.options([("search_path", schema)]);
        let mut connection = PgConnection::connect_with(&options)
            .await
            .context("the database does not answer")?;
        sqlx::query(BEGIN).execute(&mut connection).await?;
        let positions: Vec<(String, Partition, i64)> =
            sqlx::query_as("SELECT topic, partition, next_offset FROM positions")
                .fetch_all(&mut connection)
                .await
                .context("the database has no read model")?;
        let parked: Vec<(String, Partition, Vec<u8>, i64, String)> =
            sqlx::query_as("SELECT topic, partition, key, first_offset, error FROM parked")
                .fetch_all(&mut connection)
                .await?;
        let last_order_events = sqlx::query_as(
            "SELECT DISTINCT ON (partition) partition, \"offset\", order_id FROM order_events
             ORDER BY partition, \"offset\" DESC",
        )
        .fetch_all(&mut connection)
        .await?;
        let service = |topic: &str| {
            let named = |service: &Service| cluster.topic(*service, Topic::Events) == topic;
            Service::ALL.into_iter().find(named).with_context(|| {
                format!("the read model is that of another log: it has a position in {topic}")
            })
        };
        let positions = positions
            .into_iter()
            .map(|(topic, partition, next)| Ok(((service(&topic)?, partition), next)))
            .collect::<anyhow::Result<_>>()?;
        let parked = parked
            .into_iter()
            .map(|(topic, partition, key, first_offset, error)| {
                Ok(ParkedKey {
                    service: service(&topic)?,
                    partition,
                    key,
                    first_offset,
                    error,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            connection: RefCell::new(connection),
            runtime: Handle::current(),
            positions,
            parked,
            last_order_events,
        })
    }

    /// Every row. The iterator blocks: use it on a thread of the runtime that may block.
    pub const fn rows(&self) -> Rows<'_> {
        Rows {
            snapshot: self,
            table: 0,
            is_open: false,
            buffer: VecDeque::new(),
        }
    }
}

/// The rows of a snapshot, table by table.
pub struct Rows<'a> {
    snapshot: &'a Snapshot,
    table: usize,
    is_open: bool,
    buffer: VecDeque<Row>,
}

impl Rows<'_> {
    fn refill(&mut self) -> sqlx::Result<()> {
        let Snapshot {
            connection,
            runtime,
            ..
        } = self.snapshot;
        let connection = &mut *connection.borrow_mut();
        while self.buffer.is_empty()
            && let Some((declare, read)) = TABLES.get(self.table)
        {
            if !self.is_open {
                runtime.block_on(sqlx::query(*declare).execute(&mut *connection))?;
                self.is_open = true;
            }
            // A cached statement has the columns of the previous table.
            let fetch = sqlx::query(FETCH).persistent(false);
            let rows = runtime.block_on(fetch.fetch_all(&mut *connection))?;
            if rows.is_empty() {
                runtime.block_on(sqlx::query(CLOSE).execute(&mut *connection))?;
                self.is_open = false;
                self.table += 1;
            }
            self.buffer = rows.iter().map(read).collect::<sqlx::Result<_>>()?;
        }
        Ok(())
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.refill() {
            self.table = TABLES.len();
            let error = anyhow::Error::from(error).context("the read model cannot be read");
            return Some(Err(Error::Source(error.into())));
        }
        self.buffer.pop_front().map(Ok)
    }
}

/// A partition of the order events.
pub const fn order_events(partition: Partition) -> TopicPartition {
    TopicPartition::new(Service::Orders, Topic::Events, partition)
}

fn order(row: &PgRow) -> sqlx::Result<Row> {
    Ok(Row::Order(OrderRow {
        order_id: row.try_get(0)?,
        status: row.try_get(1)?,
        end_reason: row.try_get(2)?,
        customer_id: row.try_get(3)?,
        total: row.try_get(4)?,
        currency: row.try_get(5)?,
        line_count: row.try_get(6)?,
        placed_at: row.try_get(7)?,
        confirmed_at: row.try_get(8)?,
        updated_at: row.try_get(9)?,
        version: row.try_get(10)?,
        tracking_number: row.try_get(11)?,
        refunded: row.try_get(12)?,
        late: row.try_get(13)?,
    }))
}

fn order_line(row: &PgRow) -> sqlx::Result<Row> {
    Ok(Row::OrderLine(OrderLineRow {
        order_id: row.try_get(0)?,
        position: row.try_get(1)?,
        sku: row.try_get(2)?,
        quantity: row.try_get(3)?,
        unit_price: row.try_get(4)?,
        discount: row.try_get(5)?,
        description: row.try_get(6)?,
    }))
}

fn order_event(row: &PgRow) -> sqlx::Result<Row> {
    Ok(Row::OrderEvent(OrderEventRow {
        order_id: row.try_get(0)?,
        version: row.try_get(1)?,
        partition: row.try_get(2)?,
        offset: row.try_get(3)?,
        time: row.try_get(4)?,
        kind: row.try_get(5)?,
        record: row.try_get(6)?,
    }))
}

fn stock(row: &PgRow) -> sqlx::Result<Row> {
    Ok(Row::Stock(StockRow {
        sku: row.try_get(0)?,
        on_hand: row.try_get(1)?,
        reserved: row.try_get(2)?,
        received: row.try_get(3)?,
        deducted: row.try_get(4)?,
        version: row.try_get(5)?,
    }))
}

fn payment(row: &PgRow) -> sqlx::Result<Row> {
    Ok(Row::Payment(PaymentRow {
        order_id: row.try_get(0)?,
        status: row.try_get(1)?,
        amount: row.try_get(2)?,
        currency: row.try_get(3)?,
        provider_reference: row.try_get(4)?,
        flagged: row.try_get(5)?,
        version: row.try_get(6)?,
    }))
}

fn shipment(row: &PgRow) -> sqlx::Result<Row> {
    Ok(Row::Shipment(ShipmentRow {
        order_id: row.try_get(0)?,
        status: row.try_get(1)?,
        tracking_number: row.try_get(2)?,
        version: row.try_get(3)?,
    }))
}
