//! What stands in a record.

use std::collections::HashSet;

use contracts::{Service, Topic};
use engine::log::Input;
use prost_reflect::{DynamicMessage, FieldDescriptor, Value};
use uuid::Uuid;

/// What stands in a record.
#[derive(Clone, Debug)]
pub enum Content {
    /// A record of the contracts.
    Record(Box<Record>),
    /// Nothing: the key is deleted.
    Tombstone,
    /// Something that could not be processed; its headers say why.
    DeadLetter,
    /// Bytes that are no record, and why.
    Opaque(String),
}

/// A decoded record, whatever its topic.
#[derive(Clone, Debug)]
pub struct Record {
    /// The variant of its oneof, such as `order_created`.
    pub kind: String,
    /// Its own identity.
    pub id: String,
    /// Whose it is.
    pub aggregate_id: String,
    /// The aggregate's version.
    pub version: u64,
    /// When, by the log's own clock, Unix milliseconds.
    pub time_ms: i64,
    /// What directly led to it: the command of an event, the event of a message.
    pub causation_id: String,
    /// The call that it goes back to.
    pub correlation_id: String,
    /// Who asked.
    pub actor: String,
    /// The whole.
    pub message: DynamicMessage,
    /// The variant's content.
    pub body: Option<DynamicMessage>,
}

/// Decodes a payload by its topic's contract.
///
/// The descriptors are enough to read every topic alike; no type of a service is named here.
pub fn decode(service: Service, topic: Topic, payload: &[u8]) -> Content {
    let Some(descriptor) = registry::schema::record(service, topic) else {
        return Content::Opaque("the topic has no contract".to_owned());
    };
    let message = match DynamicMessage::decode(descriptor, payload) {
        Ok(message) => message,
        Err(error) => return Content::Opaque(error.to_string()),
    };
    let metadata = message.get_field_by_name("metadata");
    let metadata = metadata.as_ref().and_then(|value| value.as_message());
    let text = |field: &str| {
        let value = metadata.and_then(|metadata| metadata.get_field_by_name(field));
        value
            .and_then(|value| value.as_str().map(ToOwned::to_owned))
            .unwrap_or_default()
    };
    let version = metadata.and_then(|metadata| metadata.get_field_by_name("aggregate_version"));
    let time_ms = metadata.and_then(|metadata| metadata.get_field_by_name("time_ms"));
    let body = body(&message);
    Content::Record(Box::new(Record {
        kind: body
            .as_ref()
            .map_or("empty".to_owned(), |(field, _)| field.name().to_owned()),
        id: text("id"),
        aggregate_id: text("aggregate_id"),
        version: version
            .and_then(|version| version.as_u64())
            .unwrap_or_default(),
        time_ms: time_ms
            .and_then(|time_ms| time_ms.as_i64())
            .unwrap_or_default(),
        causation_id: text("causation_id"),
        correlation_id: text("correlation_id"),
        actor: text("actor"),
        body: body.map(|(_, body)| body),
        message,
    }))
}

fn body(message: &DynamicMessage) -> Option<(FieldDescriptor, DynamicMessage)> {
    let (field, value) = message
        .fields()
        .find(|(field, _)| field.containing_oneof().is_some())?;
    Some((field, value.as_message()?.clone()))
}

/// Follows an order through the records of all services.
#[derive(Clone, Debug)]
pub struct Trail {
    order_id: String,
    /// The calls that the order goes back to.
    correlations: HashSet<String>,
}

impl Trail {
    /// The trail of an order.
    pub fn of(order_id: Uuid) -> Self {
        Self {
            order_id: order_id.to_string(),
            correlations: HashSet::new(),
        }
    }

    /// Whether a record's key is the order.
    pub fn is_key(&self, input: &Input) -> bool {
        input.key.as_deref() == Some(self.order_id.as_bytes())
    }

    /// Whether a record belongs to the order: by its key, by the order that it names, or by the call that it goes
    /// back to.
    pub fn meets(&mut self, input: &Input, content: &Content) -> bool {
        let is_key = self.is_key(input);
        let Content::Record(record) = content else {
            return is_key;
        };
        if is_key || record.aggregate_id == self.order_id {
            if !record.correlation_id.is_empty() {
                self.correlations.insert(record.correlation_id.clone());
            }
            return true;
        }
        let named = record
            .body
            .as_ref()
            .and_then(|body| body.get_field_by_name("order_id"));
        let names_it =
            named.is_some_and(|named| matches!(&*named, Value::String(id) if *id == self.order_id));
        names_it || self.correlations.contains(&record.correlation_id)
    }
}

#[cfg(test)]
mod tests {
    use contracts::Record as _;
    use contracts::core::v1::Metadata;
    use contracts::inventory::v1::{StockEvent, StockReserved, stock_event};
    use contracts::orders::v1::{OrderDelivered, OrderEvent, order_event};
    use prost_reflect::prost::Message as _;

    use super::*;

    fn metadata(aggregate_id: &str, correlation_id: &str) -> Metadata {
        Metadata {
            aggregate_id: aggregate_id.into(),
            aggregate_version: 3,
            correlation_id: correlation_id.into(),
            ..Default::default()
        }
    }

    fn stock_reserved(order_id: &str, correlation_id: &str) -> (Input, Content) {
        let event = stock_event::Event::StockReserved(StockReserved {
            order_id: order_id.into(),
            quantity: 2,
        });
        let record = StockEvent::new_record(metadata("mug", correlation_id), event);
        let input = Input {
            key: Some(b"mug".to_vec()),
            ..Default::default()
        };
        (
            input,
            decode(Service::Inventory, Topic::Events, &record.encode_to_vec()),
        )
    }

    #[test]
    fn a_record_is_read_by_its_contract() {
        let (_, content) = stock_reserved("o", "c");
        let Content::Record(record) = content else {
            panic!("{content:?}")
        };
        assert_eq!(
            (record.kind.as_str(), record.aggregate_id.as_str()),
            ("stock_reserved", "mug")
        );
        assert_eq!((record.version, record.correlation_id.as_str()), (3, "c"));
        assert!(matches!(
            decode(Service::Orders, Topic::Events, &[0xff]),
            Content::Opaque(_)
        ));
    }

    #[test]
    fn an_order_is_followed_by_key_name_and_call() {
        let id = Uuid::now_v7();
        let mut trail = Trail::of(id);
        let (input, content) = stock_reserved("another", "call");
        assert!(!trail.meets(&input, &content), "the call is not known yet");

        let (input, content) = stock_reserved(&id.to_string(), "");
        assert!(trail.meets(&input, &content), "it names the order");

        let event = order_event::Event::OrderDelivered(OrderDelivered {});
        let record = OrderEvent::new_record(metadata(&id.to_string(), "call"), event);
        let content = decode(Service::Orders, Topic::Events, &record.encode_to_vec());
        let input = Input {
            key: Some(id.to_string().into_bytes()),
            ..Default::default()
        };
        assert!(trail.meets(&input, &content), "it is the order's own");

        let (input, content) = stock_reserved("another", "call");
        assert!(
            trail.meets(&input, &content),
            "it goes back to the order's call"
        );
    }
}
