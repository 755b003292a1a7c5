//! What comes of effects and timers goes to the service's own commands.

use std::sync::Arc;

use contracts::Message;
use contracts::core::v1::Metadata;
use observability::TraceParent;

use super::{EffectRuntime, backoff};
use crate::codec::Codec;
use crate::sending::Sending;

/// Sends commands to the service's own topic.
pub struct Answers {
    runtime: Arc<dyn EffectRuntime>,
    codec: Codec,
}

impl Answers {
    /// Into the log of these surroundings, as `codec` writes them.
    pub fn new(runtime: Arc<dyn EffectRuntime>, codec: Codec) -> Self {
        Self { runtime, codec }
    }

    /// Until it is durable: an answer that is lost would leave its effect unanswered in the log. It goes on with
    /// `trace`.
    pub async fn send<C: Into<contracts::Command>>(
        &self,
        id: &str,
        command: C,
        actor: &'static str,
        trace: Option<TraceParent>,
    ) {
        let message = Message::new(id, command);
        let service = message.service();
        let kind = message.kind();
        let sending = Sending::begin(service, kind, id, trace);
        let headers: Vec<_> = sending.header().into_iter().collect();
        let mut random = self.runtime.random();
        for number in 1.. {
            // An id for each try: a try that failed may have been written all the same, and no id is written twice.
            let metadata = Metadata {
                id: self.runtime.fresh_id().to_string(),
                aggregate_id: id.to_owned(),
                time_ms: self.runtime.unix_ms(),
                actor: actor.to_owned(),
                ..Metadata::default()
            };
            let payload = self.codec.encode_message(message.clone(), metadata);
            let sent = self.runtime.send(service, id, &payload, &headers);
            match sent.await {
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%service, kind, %error, "answer not written, retrying");
                    tokio::time::sleep(backoff::after(number, &mut random)).await;
                }
            }
        }
    }
}
