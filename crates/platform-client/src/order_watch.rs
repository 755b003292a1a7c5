//! Follows an order over the public API, from version to version, over connections that break.

use std::time::Duration;

use anyhow::Context as _;
use contracts::query::v1::{WatchOrderRequest, WatchOrderResponse};
use tokio::time::Instant;
use tonic::codec::Streaming;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::Clients;
use crate::retry::{self, Backoff};

/// How long one stream may last; an order that waits for longer is watched by another.
const STREAM_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// How long the API may fail on end.
const PATIENCE: Duration = Duration::from_secs(30);

/// An order that is followed until it is delivered, cancelled or rejected.
pub struct Watch {
    clients: Clients,
    order_id: Uuid,
    /// The last version that was seen.
    version: u64,
    stream: Option<Streaming<WatchOrderResponse>>,
    failing: Option<Failing>,
}

/// The API does not answer.
struct Failing {
    since: Instant,
    backoff: Backoff,
}

impl Watch {
    /// Watches an order from behind a version on.
    pub const fn new(clients: Clients, order_id: Uuid, after_version: u64) -> Self {
        Self {
            clients,
            order_id,
            version: after_version,
            stream: None,
            failing: None,
        }
    }

    /// Waits for the next changes, each version once; `None` behind the order's end.
    ///
    /// # Errors
    ///
    /// There is no such order, or the API fails for too long.
    pub async fn next(&mut self) -> anyhow::Result<Option<WatchOrderResponse>> {
        loop {
            match self.received().await {
                // The stream ends with the order.
                Ok(None) => return Ok(None),
                Ok(Some(mut change)) => {
                    self.failing = None;
                    change.events.retain(|event| {
                        let metadata = event.metadata.as_ref();
                        metadata.is_some_and(|metadata| metadata.aggregate_version > self.version)
                    });
                    let order = change.order.as_ref();
                    self.version =
                        order.map_or(self.version, |order| order.version.max(self.version));
                    return Ok(Some(change));
                }
                Err(status) => self.survive(&status).await?,
            }
        }
    }

    async fn received(&mut self) -> Result<Option<WatchOrderResponse>, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let mut request = Request::new(WatchOrderRequest {
                    order_id: self.order_id.to_string(),
                    after_version: self.version,
                });
                request.set_timeout(STREAM_TIMEOUT);
                let stream = self.clients.query.watch_order(request).await?;
                self.stream.insert(stream.into_inner())
            }
        };
        stream.message().await
    }

    /// Waits before the stream is opened again.
    async fn survive(&mut self, status: &Status) -> anyhow::Result<()> {
        let was_open = self.stream.take().is_some();
        let failed = || self.clients.failed(status);
        if !retry::may_pass(status) {
            return Err(failed().context(format!("order {}", self.order_id)));
        }
        // Nothing has happened for as long as one stream lasts.
        if was_open && status.code() == Code::DeadlineExceeded {
            return Ok(());
        }
        let failing = self.failing.get_or_insert_with(|| {
            eprintln!("{}; the watch goes on when it answers", failed());
            Failing {
                since: Instant::now(),
                backoff: Backoff::default(),
            }
        });
        if failing.since.elapsed() > PATIENCE {
            return Err(failed()).with_context(|| {
                format!(
                    "order {} was seen up to version {}",
                    self.order_id, self.version
                )
            });
        }
        tokio::time::sleep(failing.backoff.next(status)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
