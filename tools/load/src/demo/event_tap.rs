//! What a service writes, heard from outside: some moments of an order are seen in its neighbours' events only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::Tail;
use uuid::Uuid;

use platform_client::content::{Content, decode};

const WAIT: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

/// The events of a service from some moment on.
pub struct EventTap {
    service: Service,
    tail: Tail,
}

impl EventTap {
    /// Everything that is written from now on.
    ///
    /// # Errors
    ///
    /// The broker does not answer.
    pub async fn from_now_on(cluster: &Arc<Cluster>, service: Service) -> anyhow::Result<Self> {
        let cluster = Arc::clone(cluster);
        // The clients of the log block.
        let tail =
            tokio::task::spawn_blocking(move || Tail::at_end(&cluster, service, Topic::Events));
        Ok(Self {
            service,
            tail: tail.await??,
        })
    }

    /// Waits for an event of the order's aggregate there, such as `payment_voided`.
    ///
    /// # Errors
    ///
    /// It does not come, or the broker does not answer.
    pub async fn hears(mut self, order_id: Uuid, kind: &'static str) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || self.wait(order_id, kind)).await?
    }

    fn wait(&mut self, order_id: Uuid, kind: &'static str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
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
        bail!("{} says nothing of {kind}", self.service)
    }
}
