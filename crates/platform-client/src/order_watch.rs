//! Watches an order over the public API, and resumes broken streams.

use std::time::Duration;

use anyhow::Context as _;
use contracts::query::v1::{WatchOrderRequest, WatchOrderResponse};
use tokio::time::Instant;
use tonic::codec::Streaming;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::Clients;
use crate::retry::{self, Backoff};

/// Deadline of one stream; a longer watch opens another one.
const STREAM_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// The watch fails when the API has failed for longer.
const MAX_OUTAGE: Duration = Duration::from_secs(30);

/// A watch of an order until it is delivered, cancelled or rejected.
pub struct Watch {
    clients: Clients,
    order_id: Uuid,
    /// The last version that was received.
    version: u64,
    stream: Option<Streaming<WatchOrderResponse>>,
    outage: Option<ApiOutage>,
}

/// The API does not answer.
struct ApiOutage {
    since: Instant,
    backoff: Backoff,
}

impl Watch {
    /// Watches an order after a version.
    pub const fn new(clients: Clients, order_id: Uuid, after_version: u64) -> Self {
        Self {
            clients,
            order_id,
            version: after_version,
            stream: None,
            outage: None,
        }
    }

    /// Waits for the next change. Each version is returned once; `None` after the final one.
    ///
    /// # Errors
    ///
    /// There is no such order, or the API fails for longer than 30 s.
    pub async fn next(&mut self) -> anyhow::Result<Option<WatchOrderResponse>> {
        loop {
            match self.receive().await {
                // The stream ends when the order is final.
                Ok(None) => return Ok(None),
                Ok(Some(mut change)) => {
                    self.outage = None;
                    change.events.retain(|event| {
                        let metadata = event.metadata.as_ref();
                        metadata.is_some_and(|metadata| metadata.aggregate_version > self.version)
                    });
                    let order = change.order.as_ref();
                    self.version =
                        order.map_or(self.version, |order| order.version.max(self.version));
                    return Ok(Some(change));
                }
                Err(status) => self.wait_to_reconnect(&status).await?,
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<WatchOrderResponse>, Status> {
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
    async fn wait_to_reconnect(&mut self, status: &Status) -> anyhow::Result<()> {
        let was_open = self.stream.take().is_some();
        let failed = || self.clients.failed(status);
        if !retry::is_retryable(status) {
            return Err(failed().context(format!("order {}", self.order_id)));
        }
        // The stream has reached its deadline, which is no failure.
        if was_open && status.code() == Code::DeadlineExceeded {
            return Ok(());
        }
        let outage = self.outage.get_or_insert_with(|| {
            eprintln!("{}; the watch resumes when it answers", failed());
            ApiOutage {
                since: Instant::now(),
                backoff: Backoff::default(),
            }
        });
        if outage.since.elapsed() > MAX_OUTAGE {
            return Err(failed()).with_context(|| {
                format!(
                    "order {} was received up to version {}",
                    self.order_id, self.version
                )
            });
        }
        tokio::time::sleep(outage.backoff.next(status)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
