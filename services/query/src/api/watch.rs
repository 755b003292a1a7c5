//! `WatchOrder`: one order, told as it changes.

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

use super::read::{self, News, Reader};
use super::{Api, database, events, view};
use crate::progress::{Hint, Mark};

/// How long an order is waited for that the read model does not have: whoever asks may just have got the receipt.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(3);
/// How often the database is looked at for what another process applies; the pause grows while nothing happens.
const MIN_POLL: Duration = Duration::from_millis(20);
const MAX_POLL: Duration = Duration::from_millis(500);
/// Half of the calls that a server takes at once.
const MAX_WATCHERS: usize = 2048;
/// Watchers that look at the database at the same time: other reads find connections beside them.
const LOOKS: usize = 2;

/// Everybody who watches an order in this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Watchers {
    places: Arc<Semaphore>,
    looks: Arc<Semaphore>,
}

impl Watchers {
    /// Nobody yet.
    pub fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_WATCHERS)),
            looks: Arc::new(Semaphore::new(LOOKS)),
        }
    }
}

/// One watcher. It is a value inside its own answer: it looks only when its reader has taken the change before, holds
/// nothing that was not taken yet, and is gone with its reader.
#[derive(Debug)]
pub struct Watch {
    reader: Reader,
    looks: Arc<Semaphore>,
    hint: Hint,
    order_id: Uuid,
    /// Version that the reader has.
    seen: i64,
    /// What the first look found.
    first: Option<News>,
    /// The reader has the last version that there will be.
    over: bool,
    pause: Duration,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    /// Finds the order.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED, NOT_FOUND, and what becomes of the database.
    pub async fn begin(api: &Api, order_id: Uuid, after_version: i64) -> Result<Self, Status> {
        let place = Arc::clone(&api.watchers.places)
            .try_acquire_owned()
            .map_err(|_| error::exhausted(error::RETRY_AFTER))?;
        let mark = Mark::Version(Service::Orders, order_id.to_string());
        let mut watch = Self {
            reader: api.reader.clone(),
            looks: Arc::clone(&api.watchers.looks),
            hint: api.progress.watch(mark),
            order_id,
            seen: after_version,
            first: None,
            over: false,
            pause: MIN_POLL,
            _place: place,
        };
        let patience = Instant::now() + UNKNOWN_PATIENCE;
        loop {
            match watch.look().await? {
                None if Instant::now() >= patience => return Err(error::not_found("order")),
                None => watch.wait().await,
                found => {
                    watch.first = found;
                    return Ok(watch);
                }
            }
        }
    }

    /// The changes, until the order is final. They end with NOT_FOUND when the order is gone, and with what becomes of
    /// the database.
    pub fn changes(self) -> impl Stream<Item = Result<WatchOrderResponse, Status>> {
        stream::try_unfold(self, |mut watch| async move {
            let change = watch.next().await?;
            Ok(change.map(|change| (change, watch)))
        })
    }

    async fn next(&mut self) -> Result<Option<WatchOrderResponse>, Status> {
        while !self.over {
            let found = match self.first.take() {
                Some(found) => found,
                None => self
                    .look()
                    .await?
                    .ok_or_else(|| error::not_found("order"))?,
            };
            self.over = is_final(found.order.status);
            // One that is behind its reader is waited for: the reader has asked a replica that was ahead.
            if found.order.version > self.seen {
                return self.tell(found).map(Some);
            }
            if !self.over {
                self.wait().await;
            }
        }
        Ok(None)
    }

    async fn look(&self) -> Result<Option<News>, Status> {
        // Never closed.
        let _turn = self.looks.acquire().await;
        read::news(&self.reader, self.order_id, self.seen)
            .await
            .map_err(database)
    }

    #[allow(clippy::result_large_err)]
    fn tell(&mut self, found: News) -> Result<WatchOrderResponse, Status> {
        let version = found.order.version;
        let missing = version - self.seen;
        if i64::try_from(found.records.len()) != Ok(missing) {
            return Err(error::internal(&Incomplete {
                order_id: self.order_id,
                version,
                seen: self.seen,
                found: found.records.len(),
            }));
        }
        self.seen = version;
        self.pause = MIN_POLL;
        Ok(WatchOrderResponse {
            events: events(&found.records)?,
            order: Some(view::order(found.order, Vec::new())),
        })
    }

    /// Comes back when it is worth to look again.
    async fn wait(&mut self) {
        tokio::select! {
            () = self.hint.moved() => self.pause = MIN_POLL,
            () = sleep(self.pause) => self.pause = (self.pause * 2).min(MAX_POLL),
        }
    }
}

/// The history of an order does not fit its row, although one transaction writes both.
#[derive(Debug, thiserror::Error)]
#[error("order {order_id} has version {version}, but {found} events after version {seen}")]
struct Incomplete {
    order_id: Uuid,
    version: i64,
    seen: i64,
    found: usize,
}

/// Nothing happens to an order any more.
pub(crate) fn is_final(status: i16) -> bool {
    const FINAL: [OrderStatus; 3] = [
        OrderStatus::Delivered,
        OrderStatus::Cancelled,
        OrderStatus::Rejected,
    ];
    FINAL.iter().any(|last| *last as i16 == status)
}
