//! What effects and timers take from the world around their process.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::clock;
use crate::log::Header;
use crate::log::kafka::{RecordMetadata, SendError, Sender};

/// Time, ids, chance, and the way into the log; a simulation brings its own.
pub trait EffectRuntime: Send + Sync + 'static {
    /// Unix milliseconds.
    fn unix_ms(&self) -> i64;

    /// The id of a command: never given twice.
    fn fresh_id(&self) -> Uuid;

    /// For back-off.
    fn random(&self) -> fastrand::Rng;

    /// Writes a command for the aggregate `key`; the future ends when it is durable, and dropping it does not take the
    /// command back.
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
