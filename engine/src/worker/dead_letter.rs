//! Dead letters: records that can never be processed, kept as they came.

use contracts::{Contract, Topic};

use super::Tools;
use crate::codec::Poison;
use crate::log::{Input, Output};
use crate::{Decider, headers};

/// The record as it came, with where it stood and why it is dead.
pub fn dead_letter<D: Decider>(tools: &Tools<D>, input: &Input, poison: &Poison) -> Output {
    let service = D::Contract::SERVICE;
    let text = |name: &str, value: String| (name.to_owned(), value.into_bytes());
    let mut dead_headers = input.headers.clone();
    dead_headers.extend([
        text(headers::DEAD_SOURCE_TOPIC, tools.commands_topic.clone()),
        text(headers::DEAD_SOURCE_PARTITION, input.partition.to_string()),
        text(headers::DEAD_SOURCE_OFFSET, input.offset.to_string()),
        text(headers::DEAD_ERROR_CLASS, poison.class.to_owned()),
        text(headers::DEAD_ERROR_MESSAGE, poison.message.chars().take(1_000).collect()),
        text(headers::DEAD_ATTEMPTS, "1".to_owned()),
        text(headers::DEAD_TIME, input.time_ms.to_string()),
    ]);
    if let Some(id) = poison.schema_id {
        dead_headers.push(text(headers::DEAD_SCHEMA_ID, id.to_string()));
    }
    Output {
        service,
        topic: Topic::Dlq,
        partition: input.partition,
        key: input.key.clone(),
        payload: input.payload.clone(),
        headers: dead_headers,
    }
}
