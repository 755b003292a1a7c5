//! Decoded records of any topic.

use std::collections::HashSet;

use contracts::{Service, Topic};
use engine::log::Input;
use prost_reflect::{DynamicMessage, FieldDescriptor, Value};
use uuid::Uuid;

/// The content of a record.
#[derive(Clone, Debug)]
pub enum Content {
    /// A record of the contracts.
    Record(Box<Record>),
    /// No value: the key is deleted.
    Tombstone,
    /// A record that could not be processed; its headers contain the reason.
    DeadLetter,
    /// A value that cannot be decoded, with the reason.
    Opaque(String),
}

/// A decoded record of any topic.
#[derive(Clone, Debug)]
pub struct Record {
    /// Name of the oneof variant, such as `order_created`.
    pub kind: String,
    /// Record id.
    pub id: String,
    /// Aggregate id.
    pub aggregate_id: String,
    /// Aggregate version.
    pub version: u64,
    /// Time in the metadata, in Unix milliseconds.
    pub time_ms: i64,
    /// Id of the direct cause: the command of an event, the event of a message.
    pub causation_id: String,
    /// Id of the call that it originates from.
    pub correlation_id: String,
    /// Actor of the call.
    pub actor: String,
    /// The complete message.
    pub message: DynamicMessage,
    /// Content of the oneof variant.
    pub body: Option<DynamicMessage>,
}

/// Decodes a payload by its topic's contract.
///
/// It uses only the descriptors, so it works for every topic without the types of the services.
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

/// Selects the records that belong to an order, in the topics of all services.
#[derive(Clone, Debug)]
pub struct OrderFilter {
    order_id: String,
    /// Correlation ids of the order's records.
    correlations: HashSet<String>,
}

impl OrderFilter {
    /// The filter of an order.
    pub fn of(order_id: Uuid) -> Self {
        Self {
            order_id: order_id.to_string(),
            correlations: HashSet::new(),
        }
    }

    /// Whether the record's key is the order id.
    pub fn has_order_key(&self, input: &Input) -> bool {
        input.key.as_deref() == Some(self.order_id.as_bytes())
    }

    /// Whether a record belongs to the order: by its key, by its `order_id` field, or by its correlation id.
    pub fn matches(&mut self, input: &Input, content: &Content) -> bool {
        let has_order_key = self.has_order_key(input);
        let Content::Record(record) = content else {
            return has_order_key;
        };
        if has_order_key || record.aggregate_id == self.order_id {
            if !record.correlation_id.is_empty() {
                self.correlations.insert(record.correlation_id.clone());
            }
            return true;
        }
        let order_id = record
            .body
            .as_ref()
            .and_then(|body| body.get_field_by_name("order_id"));
        let has_order_id = order_id.is_some_and(
            |order_id| matches!(&*order_id, Value::String(id) if *id == self.order_id),
        );
        has_order_id || self.correlations.contains(&record.correlation_id)
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
    fn a_record_is_decoded_by_its_contract() {
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
    fn an_order_filter_matches_key_order_id_and_correlation_id() {
        let id = Uuid::now_v7();
        let mut filter = OrderFilter::of(id);
        let (input, content) = stock_reserved("another", "call");
        assert!(
            !filter.matches(&input, &content),
            "the correlation id is not known yet"
        );

        let (input, content) = stock_reserved(&id.to_string(), "");
        assert!(
            filter.matches(&input, &content),
            "its order_id field matches"
        );

        let event = order_event::Event::OrderDelivered(OrderDelivered {});
        let record = OrderEvent::new_record(metadata(&id.to_string(), "call"), event);
        let content = decode(Service::Orders, Topic::Events, &record.encode_to_vec());
        let input = Input {
            key: Some(id.to_string().into_bytes()),
            ..Default::default()
        };
        assert!(filter.matches(&input, &content), "its key matches");

        let (input, content) = stock_reserved("another", "call");
        assert!(
            filter.matches(&input, &content),
            "its correlation id matches"
        );
    }
}
