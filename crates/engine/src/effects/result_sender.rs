//! Sends the results of effects, and due timers, as commands to the service's own topic.

use std::sync::Arc;

use contracts::Message;
use contracts::core::v1::Metadata;
use observability::TraceParent;

use super::{EffectRuntime, backoff};
use crate::codec::Codec;
use crate::send_span::SendSpan;

/// Writes commands to the service's own topic.
pub struct ResultSender {
    environment: Arc<dyn EffectRuntime>,
    codec: Codec,
}

impl ResultSender {
    /// Sends through `environment`, encoded by `codec`.
    pub fn new(environment: Arc<dyn EffectRuntime>, codec: Codec) -> Self {
        Self { environment, codec }
    }

    /// Retries until the command is durable: a lost answer would leave its effect without an answer in the log. The
    /// command continues `trace`.
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
        let send_span = SendSpan::begin(service, kind, id, trace);
        let headers: Vec<_> = send_span.header().into_iter().collect();
        let mut random = self.environment.random();
        for number in 1.. {
            // A fresh id for each try: a failed try may have been written all the same, and no id is written twice.
            let metadata = Metadata {
                id: self.environment.fresh_id().to_string(),
                aggregate_id: id.to_owned(),
                time_ms: self.environment.unix_ms(),
                actor: actor.to_owned(),
                ..Metadata::default()
            };
            let payload = self.codec.encode_message(message.clone(), metadata);
            let sent = self.environment.send(service, id, &payload, &headers);
            match sent.await {
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%service, kind, %error, "answer not written, retrying");
                    tokio::time::sleep(backoff::delay(number, &mut random)).await;
                }
            }
        }
    }
}
