//! `WatchOrder`: streams the changes of one order.

use std::sync::Arc;
use std::time::Duration;

use chassis::error;
use contracts::Service;
use contracts::orders::v1::OrderStatus;
use contracts::query::v1::WatchOrderResponse;
use futures::stream::{self, Stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tonic::Status;
use uuid::Uuid;

use super::read::{self, OrderUpdate, Reader};
use super::{Api, database_status, decode_events, view};
use crate::progress::{ProgressKey, ProgressReceiver};

/// How long to wait for an order that is not in the read model yet: the caller may have placed it just now.
const UNKNOWN_ORDER_WAIT: Duration = Duration::from_secs(3);
/// Interval of polling the database for changes that another process applies; it grows while nothing changes.
const MIN_POLL: Duration = Duration::from_millis(20);
const MAX_POLL: Duration = Duration::from_millis(500);
/// Half of the calls that a server handles at the same time.
const MAX_WATCHERS: usize = 2048;
/// Watchers that query the database at the same time; the other connections are left for other reads.
const MAX_CONCURRENT_POLLS: usize = 2;

/// Limits of all watchers in this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Watchers {
    permits: Arc<Semaphore>,
    poll_permits: Arc<Semaphore>,
}

impl Watchers {
    /// The limits without any watcher.
    pub fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(MAX_WATCHERS)),
            poll_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_POLLS)),
        }
    }
}

/// One watcher. It is the state of its response stream: it queries the database only after the client has taken the
/// previous change, buffers at most one change, and is dropped together with the stream.
#[derive(Debug)]
pub struct Watch {
    reader: Reader,
    poll_permits: Arc<Semaphore>,
    receiver: ProgressReceiver,
    order_id: Uuid,
    /// Last version that the client has.
    sent_version: i64,
    /// Result of the first poll.
    first: Option<OrderUpdate>,
    /// The client has the final version.
    is_complete: bool,
    poll_interval: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    /// Finds the order.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED, NOT_FOUND, or the status of a database failure.
    pub async fn begin(api: &Api, order_id: Uuid, after_version: i64) -> Result<Self, Status> {
        let permit = Arc::clone(&api.watchers.permits)
            .try_acquire_owned()
            .map_err(|_| error::exhausted(error::RETRY_AFTER))?;
        let key = ProgressKey::Version(Service::Orders, order_id.to_string());
        let mut watch = Self {
            reader: api.reader.clone(),
            poll_permits: Arc::clone(&api.watchers.poll_permits),
            receiver: api.progress.subscribe(key),
            order_id,
            sent_version: after_version,
            first: None,
            is_complete: false,
            poll_interval: MIN_POLL,
            _permit: permit,
        };
        let deadline = Instant::now() + UNKNOWN_ORDER_WAIT;
        loop {
            match watch.poll().await? {
                None if Instant::now() >= deadline => return Err(error::not_found("order")),
                None => watch.wait().await,
                found => {
                    watch.first = found;
                    return Ok(watch);
                }
            }
        }
    }

    /// The changes until the order is final. The stream ends with NOT_FOUND when the order no longer exists, or with
    /// the status of a database failure.
    pub fn changes(self) -> impl Stream<Item = Result<WatchOrderResponse, Status>> {
        stream::try_unfold(self, |mut watch| async move {
            let change = watch.next().await?;
            Ok(change.map(|change| (change, watch)))
        })
    }

    async fn next(&mut self) -> Result<Option<WatchOrderResponse>, Status> {
        while !self.is_complete {
            let found = match self.first.take() {
                Some(found) => found,
                None => self
                    .poll()
                    .await?
                    .ok_or_else(|| error::not_found("order"))?,
            };
            self.is_complete = is_final(found.order.status);
            // The client may have read a newer version elsewhere: wait until this read model reaches it.
            if found.order.version > self.sent_version {
                return self.response(found).map(Some);
            }
            if !self.is_complete {
                self.wait().await;
            }
        }
        Ok(None)
    }

    async fn poll(&self) -> Result<Option<OrderUpdate>, Status> {
        // The semaphore is never closed.
        let _permit = self.poll_permits.acquire().await;
        read::order_update(&self.reader, self.order_id, self.sent_version)
            .await
            .map_err(database_status)
    }

    #[allow(clippy::result_large_err)]
    fn response(&mut self, found: OrderUpdate) -> Result<WatchOrderResponse, Status> {
        let version = found.order.version;
        let missing = version - self.sent_version;
        if i64::try_from(found.records.len()) != Ok(missing) {
            return Err(error::internal(&Incomplete {
                order_id: self.order_id,
                version,
                after: self.sent_version,
                found: found.records.len(),
            }));
        }
        self.sent_version = version;
        self.poll_interval = MIN_POLL;
        Ok(WatchOrderResponse {
            events: decode_events(&found.records)?,
            order: Some(view::order(found.order, Vec::new())),
        })
    }

    /// Waits until the next poll of the database is due.
    async fn wait(&mut self) {
        tokio::select! {
            () = self.receiver.changed() => self.poll_interval = MIN_POLL,
            () = sleep(self.poll_interval) => self.poll_interval = (self.poll_interval * 2).min(MAX_POLL),
        }
    }
}

/// The history of an order does not match its row, although one transaction writes both.
#[derive(Debug, thiserror::Error)]
#[error("order {order_id} has version {version}, but {found} events after version {after}")]
struct Incomplete {
    order_id: Uuid,
    version: i64,
    after: i64,
    found: usize,
}

/// Whether the status is final.
pub(crate) fn is_final(status: i16) -> bool {
    OrderStatus::try_from(i32::from(status)).is_ok_and(contracts::rules::is_final)
}
