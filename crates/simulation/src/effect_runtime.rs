//! What effects and timers take from a simulated world.

use std::time::Duration;

use contracts::Topic;
use engine::RecordMetadata;
use engine::effects::EffectRuntime;
use engine::log::Header;
use engine::log::kafka::SendError;
use engine::log::partitioner::partition_of;
use engine::log::simulated::Broker;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;
use uuid::{Builder, Uuid};

use crate::rng::SeededRng;

/// How long a command is tried before its sender is told that it could not be written.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);

/// The surroundings of one process.
pub struct SimulatedRuntime {
    pub broker: Broker,
    pub dice: SeededRng,
    /// In a million commands: nobody knows whether it was written.
    pub unknown: u32,
    /// When the process's runtime was begun, by its own clock and by the world's (Unix milliseconds).
    pub begun: (Instant, i64),
}

/// A UUIDv7 of that time.
pub fn uuid_v7(unix_ms: i64, dice: &SeededRng) -> Uuid {
    Builder::from_unix_timestamp_millis(unix_ms.unsigned_abs(), &dice.bytes()).into_uuid()
}

impl EffectRuntime for SimulatedRuntime {
    fn unix_ms(&self) -> i64 {
        let elapsed = self.begun.0.elapsed().as_millis();
        self.begun.1 + i64::try_from(elapsed).unwrap_or(i64::MAX / 4)
    }

    fn fresh_id(&self) -> Uuid {
        uuid_v7(self.unix_ms(), &self.dice)
    }

    fn random(&self) -> fastrand::Rng {
        self.dice.fork()
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
        let is_unknown = self.dice.happens(self.unknown);
        let is_written = !is_unknown || self.dice.toss();
        let delay = Duration::from_millis(self.dice.below(4) as u64);
        let (key, payload, headers) = (key.to_owned(), payload.to_vec(), headers.to_vec());
        async move {
            tokio::time::sleep(delay).await;
            if broker.is_away() {
                tokio::time::sleep(DELIVERY_TIMEOUT).await;
            }
            if broker.is_away() {
                return Err(SendError::Failed("the broker is away".into()));
            }
            let mut offset = 0;
            if is_written {
                let place = (service, Topic::Commands, partition);
                offset = broker.append(place, Some(key.into_bytes()), Some(payload), headers);
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
