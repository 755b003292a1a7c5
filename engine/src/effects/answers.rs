//! What comes of effects and timers goes to the service's own commands.

use contracts::Message;
use contracts::core::v1::Metadata;
use observability::TraceParent;
use uuid::Uuid;

use super::backoff;
use super::clock::unix_ms;
use crate::codec::Codec;
use crate::log::kafka::Sender;
use crate::sending::Sending;

/// Sends commands to the service's own topic.
pub struct Answers {
    sender: Sender,
    codec: Codec,
}

impl Answers {
    /// Over `sender`, as `codec` writes them.
    pub fn new(sender: Sender, codec: Codec) -> Self {
        Self { sender, codec }
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
        let metadata = Metadata {
            id: Uuid::now_v7().to_string(),
            aggregate_id: id.to_owned(),
            time_ms: unix_ms(),
            actor: actor.to_owned(),
            ..Metadata::default()
        };
        let kind = message.kind();
        let payload = self.codec.encode_message(message, metadata);
        let sending = Sending::begin(service, kind, id, trace);
        let headers: Vec<_> = sending.header().into_iter().collect();
        let mut random = fastrand::Rng::new();
        for number in 1.. {
            let sent = match self.sender.send(service, id, &payload, &headers) {
                Ok(durable) => durable.await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%service, kind, %error, "answer not written, retrying");
                    tokio::time::sleep(backoff::after(number, &mut random)).await;
                }
            }
        }
    }
}
