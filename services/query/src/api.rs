//! The read API: `ordermesh.query.v1.QueryService`.

mod page;
mod read;
mod view;
mod wait;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use chassis::error;
use contracts::orders::v1::{OrderEvent, OrderStatus};
use contracts::query::v1::query_service_server::QueryService;
use contracts::query::v1::{
    EventsPosition, GetOrderHistoryRequest, GetOrderHistoryResponse, GetOrderRequest,
    GetOrderResponse, GetStockRequest, GetStockResponse, ListOrdersRequest, ListOrdersResponse,
    WatchOrderRequest, WatchOrderResponse,
};
use contracts::{Service, Topic};
use prost::Message as _;
use sqlx::types::time::OffsetDateTime;
use tokio::time::Instant;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::progress::{Progress, ProgressKey};
use page::{PageKey, ceil_to_micros};
use read::PageQuery;
use wait::Wait;
use watch::Watch;

pub use read::Reader;
pub use watch::Watchers;
#[cfg(test)]
pub(crate) use watch::is_final;

const DEFAULT_PAGE: u32 = 50;
/// Before the time of every event.
const EARLIEST: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
/// Retry delay that is sent to callers while the database is unavailable.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The implementation of the service.
#[derive(Clone)]
pub struct Api {
    /// Reads the read model.
    pub reader: Reader,
    /// Notifications of the projector of this process.
    pub progress: Arc<Progress>,
    /// The prefix of all topics.
    pub prefix: String,
    /// Partitions of each topic.
    pub partitions: u16,
    /// Limits of the `WatchOrder` streams.
    pub watchers: Watchers,
}

#[tonic::async_trait]
impl QueryService for Api {
    async fn get_order(
        &self,
        request: Request<GetOrderRequest>,
    ) -> Result<Response<GetOrderResponse>, Status> {
        let deadline = wait::deadline(request.extensions());
        let request = request.into_inner();
        error::validate(&request)?;
        let order_id = order_id(&request.order_id)?;
        let min_version = version("min_version", request.min_version)?;
        if let Some(position) = request.min_position {
            self.wait_for_position(position, deadline).await?;
        }
        let row = if min_version == 0 {
            let row = read::order(&self.reader, order_id)
                .await
                .map_err(database_status)?;
            row.ok_or_else(|| error::not_found("order"))?
        } else {
            let receiver = self
                .progress
                .subscribe(ProgressKey::Version(Service::Orders, order_id.to_string()));
            let mut wait = Wait::new(receiver, min_version, deadline);
            loop {
                match read::order(&self.reader, order_id)
                    .await
                    .map_err(database_status)?
                {
                    Some(row) if row.version >= min_version => break row,
                    _ => wait.next_poll().await?,
                }
            }
        };
        // Lines never change, so order and lines need no common snapshot.
        let lines = read::lines(&self.reader, order_id)
            .await
            .map_err(database_status)?;
        Ok(Response::new(GetOrderResponse {
            order: Some(view::order(row, lines)),
        }))
    }

    async fn list_orders(
        &self,
        request: Request<ListOrdersRequest>,
    ) -> Result<Response<ListOrdersResponse>, Status> {
        let request = request.into_inner();
        error::validate(&request)?;
        let after = match request.page_token.as_str() {
            "" => PageKey::FIRST,
            token => PageKey::from_token(token).ok_or_else(|| {
                error::invalid_field("page_token", "is not a token of an earlier page")
            })?,
        };
        // Validation has already rejected times that cannot be converted.
        let placed_from = request.placed_from.as_ref().and_then(ceil_to_micros);
        let placed_before = request.placed_before.as_ref().and_then(ceil_to_micros);
        let size = if request.page_size == 0 {
            DEFAULT_PAGE
        } else {
            request.page_size
        };
        let page = PageQuery {
            statuses: &statuses(request.statuses()),
            placed_from: placed_from.unwrap_or(EARLIEST),
            after: placed_before.map_or(after, |time| after.min(PageKey::before(time))),
            // One more than requested shows whether there is a next page.
            limit: i64::from(size) + 1,
        };
        let rows = match request.customer_id.as_str() {
            "" => read::by_status(&self.reader, page).await,
            customer if customer.contains('\0') => Ok(Vec::new()),
            customer => read::by_customer(&self.reader, customer, page).await,
        };
        let mut rows = rows.map_err(database_status)?;
        let size = size as usize;
        let has_more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| has_more).map(|last| PageKey {
            placed_at: last.placed_at,
            order_id: last.order_id,
        });
        Ok(Response::new(ListOrdersResponse {
            orders: rows
                .into_iter()
                .map(|row| view::order(row, Vec::new()))
                .collect(),
            next_page_token: next.map(PageKey::to_token).unwrap_or_default(),
        }))
    }

    type WatchOrderStream = BoxStream<WatchOrderResponse>;

    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let request = request.into_inner();
        error::validate(&request)?;
        let order_id = order_id(&request.order_id)?;
        let after_version = version("after_version", request.after_version)?;
        let watch = Watch::begin(self, order_id, after_version).await?;
        Ok(Response::new(Box::pin(watch.changes())))
    }

    async fn get_order_history(
        &self,
        request: Request<GetOrderHistoryRequest>,
    ) -> Result<Response<GetOrderHistoryResponse>, Status> {
        let request = request.into_inner();
        error::validate(&request)?;
        let order_id = order_id(&request.order_id)?;
        let records = read::history(&self.reader, order_id)
            .await
            .map_err(database_status)?;
        if records.is_empty() {
            return Err(error::not_found("order"));
        }
        let events = decode_events(&records)?;
        Ok(Response::new(GetOrderHistoryResponse { events }))
    }

    async fn get_stock(
        &self,
        request: Request<GetStockRequest>,
    ) -> Result<Response<GetStockResponse>, Status> {
        let deadline = wait::deadline(request.extensions());
        let request = request.into_inner();
        error::validate(&request)?;
        let min_version = version("min_version", request.min_version)?;
        let sku = request.sku;
        // PostgreSQL's `text` cannot contain NUL: there is no such product.
        if sku.contains('\0') {
            return Err(error::not_found("product"));
        }
        let row = if min_version == 0 {
            let row = read::stock(&self.reader, &sku)
                .await
                .map_err(database_status)?;
            row.ok_or_else(|| error::not_found("product"))?
        } else {
            let receiver = self
                .progress
                .subscribe(ProgressKey::Version(Service::Inventory, sku.clone()));
            let mut wait = Wait::new(receiver, min_version, deadline);
            loop {
                match read::stock(&self.reader, &sku)
                    .await
                    .map_err(database_status)?
                {
                    Some(row) if row.version >= min_version => break row,
                    _ => wait.next_poll().await?,
                }
            }
        };
        Ok(Response::new(view::stock(row)))
    }
}

impl Api {
    /// Waits until the order events of a partition are applied up to a position.
    async fn wait_for_position(
        &self,
        position: EventsPosition,
        deadline: Instant,
    ) -> Result<(), Status> {
        let partition = u16::try_from(position.partition)
            .ok()
            .filter(|partition| *partition < self.partitions)
            .map(i32::from)
            .ok_or_else(|| {
                error::invalid_field("min_position.partition", "there is no such partition")
            })?;
        let topic = Topic::Events.of(Service::Orders, &self.prefix);
        let receiver = self
            .progress
            .subscribe(ProgressKey::Position(Service::Orders, partition));
        let mut wait = Wait::new(receiver, position.offset, deadline);
        loop {
            let reached = read::position(&self.reader, &topic, partition)
                .await
                .map_err(database_status)?;
            if reached.unwrap_or_default() >= position.offset {
                return Ok(());
            }
            wait.next_poll().await?;
        }
    }
}

// A `Status` is large, but errors are rare.
#[allow(clippy::result_large_err)]
fn order_id(text: &str) -> Result<Uuid, Status> {
    Uuid::try_parse(text).map_err(|_| error::invalid_field("order_id", "must be a UUID"))
}

#[allow(clippy::result_large_err)]
fn version(field: &str, version: u64) -> Result<i64, Status> {
    i64::try_from(version).map_err(|_| error::invalid_field(field, "is larger than any version"))
}

#[allow(clippy::result_large_err)]
fn decode_events(records: &[Vec<u8>]) -> Result<Vec<OrderEvent>, Status> {
    records
        .iter()
        .map(|record| OrderEvent::decode(record.as_slice()))
        .collect::<Result<_, _>>()
        .map_err(|error| error::internal(&error))
}

/// The requested statuses, sorted and without duplicates; all statuses when none is requested.
fn statuses(requested: impl Iterator<Item = OrderStatus>) -> Vec<i16> {
    let mut statuses: Vec<_> = requested.map(|status| status as i16).collect();
    if statuses.is_empty() {
        statuses = (OrderStatus::Pending as i16..=OrderStatus::Rejected as i16).collect();
    }
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

/// The status for a database failure: UNAVAILABLE when it is transient, otherwise INTERNAL.
fn database_status(failure: sqlx::Error) -> Status {
    let is_internal = match &failure {
        sqlx::Error::Database(error) => !error.code().is_some_and(|code| is_transient(&code)),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed => false,
        _ => true,
    };
    if is_internal {
        return error::internal(&failure);
    }
    tracing::warn!(error = %failure, "the read model cannot be read");
    error::unavailable("the read model", RETRY_AFTER)
}

/// Whether an SQLSTATE reports a transient condition of the server.
fn is_transient(code: &str) -> bool {
    // Connection, resources, operator intervention, transaction rollback.
    const CLASSES: [&str; 4] = ["08", "53", "57", "40"];
    // The tables do not exist yet, or are being rebuilt.
    const UNDEFINED_TABLE: &str = "42P01";
    code == UNDEFINED_TABLE || CLASSES.iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_status_selects_all_and_duplicates_are_removed() {
        assert_eq!(statuses([].into_iter()), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(
            statuses(
                [
                    OrderStatus::Shipped,
                    OrderStatus::Pending,
                    OrderStatus::Shipped
                ]
                .into_iter()
            ),
            [1, 4]
        );
    }

    #[test]
    fn only_non_transient_failures_are_internal() {
        assert_eq!(
            database_status(sqlx::Error::PoolTimedOut).code(),
            tonic::Code::Unavailable
        );
        assert_eq!(
            database_status(sqlx::Error::ColumnNotFound("x".into())).code(),
            tonic::Code::Internal
        );
        assert!(is_transient("57P01") && is_transient("08006") && is_transient("42P01"));
        assert!(!is_transient("42601") && !is_transient("22021"));
    }
}
