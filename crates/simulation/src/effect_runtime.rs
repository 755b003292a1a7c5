//! The runtime of effects and timers in a simulation.

use std::time::Duration;

use contracts::Topic;
use engine::effects::EffectRuntime;
use engine::log::Header;
use engine::log::partitioner::partition_of;
use engine::log::simulated::Broker;
use engine::{RecordMetadata, SendError};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;
use uuid::{Builder, Uuid};

use crate::rng::SeededRng;

/// How long a send is retried before it fails.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);

/// The effect runtime of one process.
pub struct SimulatedRuntime {
    pub broker: Broker,
    pub rng: SeededRng,
    /// See [`crate::Plan::unknown_send_ppm`].
    pub unknown_send_ppm: u32,
    /// Start of the process, by the clock of its tokio runtime and by the simulation's clock (Unix milliseconds).
    pub started: (Instant, i64),
}

/// A random UUIDv7 of that time.
pub fn uuid_v7(unix_ms: i64, rng: &SeededRng) -> Uuid {
    Builder::from_unix_timestamp_millis(unix_ms.unsigned_abs(), &rng.bytes()).into_uuid()
}

impl EffectRuntime for SimulatedRuntime {
    fn unix_ms(&self) -> i64 {
        let elapsed = self.started.0.elapsed().as_millis();
        self.started.1 + i64::try_from(elapsed).unwrap_or(i64::MAX / 4)
    }

    fn fresh_id(&self) -> Uuid {
        uuid_v7(self.unix_ms(), &self.rng)
    }

    fn random(&self) -> fastrand::Rng {
        self.rng.fork()
    }

    fn send(
        &self,
        service: contracts::Service,
        key: &str,
        payload: &[u8],
        headers: &[Header],
    ) -> BoxFuture<'static, Result<RecordMetadata, SendError>> {
        let broker = self.broker.clone();
        let partition = partition_of(key.as_bytes(), broker.partitions());
        let is_unknown = self.rng.happens(self.unknown_send_ppm);
        let is_written = !is_unknown || self.rng.flip_coin();
        let delay = Duration::from_millis(self.rng.below(4) as u64);
        let (key, payload, headers) = (key.to_owned(), payload.to_vec(), headers.to_vec());
        async move {
            tokio::time::sleep(delay).await;
            if broker.is_unavailable() {
                tokio::time::sleep(DELIVERY_TIMEOUT).await;
            }
            if broker.is_unavailable() {
                return Err(SendError::Failed("the broker is unavailable".into()));
            }
            let mut offset = 0;
            if is_written {
                let tp = (service, Topic::Commands, partition);
                offset = broker.append(tp, Some(key.into_bytes()), Some(payload), headers);
            }
            if is_unknown {
                tokio::time::sleep(DELIVERY_TIMEOUT).await;
                return Err(SendError::Failed("no answer".into()));
            }
            Ok(RecordMetadata { partition, offset })
        }
        .boxed()
    }
}
