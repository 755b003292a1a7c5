//! Follows the events of a service: some moments of an order are visible only in events of other services.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::Tail;
use uuid::Uuid;

use platform_client::content::{Content, decode};

const WAIT: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(30);

/// The events of a service from some point on.
pub struct EventTap {
    service: Service,
    tail: Tail,
}

impl EventTap {
    /// Follows the events that are written from now on.
    ///
    /// # Errors
    ///
    /// The broker does not answer.
    pub async fn at_end(cluster: &Arc<Cluster>, service: Service) -> anyhow::Result<Self> {
        let cluster = Arc::clone(cluster);
        // The Kafka clients block.
        let tail =
            tokio::task::spawn_blocking(move || Tail::at_end(&cluster, service, Topic::Events));
        Ok(Self {
            service,
            tail: tail.await??,
        })
    }

    /// Waits for an event of the aggregate of the order, such as `payment_voided`.
    ///
    /// # Errors
    ///
    /// The event does not arrive in time, or the broker does not answer.
    pub async fn wait_for(mut self, order_id: Uuid, kind: &'static str) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || self.poll_until(order_id, kind)).await?
    }

    fn poll_until(&mut self, order_id: Uuid, kind: &'static str) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            let Some(input) = self.tail.next(WAIT)? else {
                continue;
            };
            let payload = input.payload.as_deref().unwrap_or_default();
            let Ok(framed) = registry::unframe(payload) else {
                continue;
            };
            if let Content::Record(record) = decode(self.service, Topic::Events, framed.payload)
                && record.aggregate_id == order_id.to_string()
                && record.kind == kind
            {
                return Ok(());
            }
        }
        bail!("no {kind} event from {} in time", self.service)
    }
}
