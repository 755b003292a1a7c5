//! Dead letters: records that can never be processed, stored unchanged.

use contracts::{Contract, Topic};

use super::WorkerContext;
use crate::codec::Poison;
use crate::log::{Header, Input, Output};
use crate::{Decider, headers};

/// Longer payloads are truncated: such a dead letter could not be written, and its window would abort for ever. No
/// valid command is as long.
const LONGEST_PAYLOAD: usize = 900_000;
/// Headers are left out when their total length exceeds this, for the same reason.
const LONGEST_HEADERS: usize = 50_000;
/// Longer keys, which cannot be ids, are truncated for the same reason.
const LONGEST_KEY: usize = 1_000;

/// The unchanged record, with its origin and the error as headers.
pub fn dead_letter<D: Decider>(
    context: &WorkerContext<D>,
    input: &Input,
    poison: &Poison,
) -> Output {
    let service = D::Contract::SERVICE;
    let text = |name: &str, value: String| (name.to_owned(), value.into_bytes());
    let length = |(name, value): &Header| name.len() + value.len();
    let mut dead_headers = input.headers.clone();
    if dead_headers.iter().map(length).sum::<usize>() > LONGEST_HEADERS {
        dead_headers.clear();
    }
    dead_headers.extend([
        text(headers::DEAD_SOURCE_TOPIC, context.commands_topic.clone()),
        text(headers::DEAD_SOURCE_PARTITION, input.partition.to_string()),
        text(headers::DEAD_SOURCE_OFFSET, input.offset.to_string()),
        text(headers::DEAD_ERROR_CLASS, poison.class.to_owned()),
        text(
            headers::DEAD_ERROR_MESSAGE,
            poison.message.chars().take(1_000).collect(),
        ),
        text(headers::DEAD_ATTEMPTS, "1".to_owned()),
        text(headers::DEAD_TIME, input.time_ms.to_string()),
    ]);
    if let Some(id) = poison.schema_id {
        dead_headers.push(text(headers::DEAD_SCHEMA_ID, id.to_string()));
    }
    if let Some(payload) = input
        .payload
        .as_ref()
        .filter(|payload| payload.len() > LONGEST_PAYLOAD)
    {
        dead_headers.push(text(headers::DEAD_CUT_FROM, payload.len().to_string()));
    }
    Output {
        service,
        topic: Topic::Dlq,
        partition: input.partition,
        key: input.key.as_deref().map(|key| cut(key, LONGEST_KEY)),
        payload: input
            .payload
            .as_deref()
            .map(|payload| cut(payload, LONGEST_PAYLOAD)),
        headers: dead_headers,
    }
}

fn cut(bytes: &[u8], longest: usize) -> Vec<u8> {
    bytes[..bytes.len().min(longest)].to_vec()
}
