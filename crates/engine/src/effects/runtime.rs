//! Time, ids, randomness and the producer that effects and timers use.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::clock;
use crate::log::kafka::Sender;
use crate::log::{Header, RecordMetadata, SendError};

/// Time, ids, randomness, and access to the log; the simulation has its own implementation.
pub trait EffectRuntime: Send + Sync + 'static {
    /// Unix milliseconds.
    fn unix_ms(&self) -> i64;

    /// A unique id for a command.
    fn fresh_id(&self) -> Uuid;

    /// Random numbers for back-off.
    fn random(&self) -> fastrand::Rng;

    /// Writes a command for the aggregate `key`. The future ends when the command is durable; dropping it does not
    /// cancel the write.
    fn send(
        &self,
        service: contracts::Service,
        key: &str,
        payload: &[u8],
        headers: &[Header],
    ) -> BoxFuture<'static, Result<RecordMetadata, SendError>>;
}

impl EffectRuntime for Sender {
    fn unix_ms(&self) -> i64 {
        clock::unix_ms()
    }

    fn fresh_id(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn random(&self) -> fastrand::Rng {
        fastrand::Rng::new()
    }

    fn send(
        &self,
        service: contracts::Service,
        key: &str,
        payload: &[u8],
        headers: &[Header],
    ) -> BoxFuture<'static, Result<RecordMetadata, SendError>> {
        match Self::send(self, service, key, payload, headers) {
            Ok(durable) => durable.boxed(),
            Err(error) => futures::future::ready(Err(error)).boxed(),
        }
    }
}
