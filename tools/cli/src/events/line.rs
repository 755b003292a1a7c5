//! Formats a record as one line.

use engine::headers::{DEAD_ERROR_CLASS, DEAD_ERROR_MESSAGE, DEAD_SOURCE_OFFSET};
use engine::log::Input;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value};
use serde_json::{Map, json};

use platform_client::content::{Content, Record};
use terminal::{self, amount, time};

/// Most characters shown of a text.
const TEXT_WIDTH: usize = 40;

/// A line for people: time, topic and offset, kind, aggregate and version, details.
pub fn text(topic: &str, input: &Input, content: &Content) -> String {
    let source = format!("{topic}/{}@{}", input.partition, input.offset);
    let key = input
        .key
        .as_deref()
        .map_or_else(|| "-".into(), String::from_utf8_lossy);
    let (kind, aggregate, details) = match content {
        Content::Record(record) => (
            record.kind.as_str(),
            aggregate_text(record, &key),
            details(record),
        ),
        Content::Tombstone => ("tombstone", key.into_owned(), String::new()),
        Content::DeadLetter => ("dead_letter", key.into_owned(), dead_letter(input)),
        Content::Opaque(reason) => ("unreadable", key.into_owned(), reason.clone()),
    };
    let line = format!(
        "{}  {source:<24}  {kind:<24}  {aggregate:<40}  {details}",
        time(input.time_ms)
    );
    line.trim_end().to_owned()
}

/// A line of JSON.
///
/// # Errors
///
/// A value has no representation in JSON.
pub fn json(topic: &str, input: &Input, content: &Content) -> anyhow::Result<String> {
    let headers: Map<_, _> = input
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), json!(String::from_utf8_lossy(value))))
        .collect();
    let mut line = json!({
        "topic": topic,
        "partition": input.partition,
        "offset": input.offset,
        "time_ms": input.time_ms,
        "key": input.key.as_deref().map(String::from_utf8_lossy),
        "headers": headers,
    });
    match content {
        Content::Record(record) => {
            line["kind"] = json!(record.kind);
            line["record"] = terminal::json(&record.message)?;
        }
        Content::Tombstone => line["kind"] = json!("tombstone"),
        Content::DeadLetter => {
            line["kind"] = json!("dead_letter");
            line["payload_hex"] = json!(input.payload.as_deref().map(hex::encode));
        }
        Content::Opaque(reason) => {
            line["kind"] = json!("unreadable");
            line["reason"] = json!(reason);
            line["payload_hex"] = json!(input.payload.as_deref().map(hex::encode));
        }
    }
    Ok(line.to_string())
}

fn aggregate_text(record: &Record, key: &str) -> String {
    // Records of the engine and outcomes have a key that is not an aggregate id.
    let id = if record.aggregate_id.is_empty() {
        key
    } else {
        &record.aggregate_id
    };
    if record.version > 0 {
        format!("{id} v{}", record.version)
    } else {
        id.to_owned()
    }
}

fn dead_letter(input: &Input) -> String {
    let header =
        |name: &str| String::from_utf8_lossy(input.header(name).unwrap_or_default()).into_owned();
    let bytes = input.payload.as_ref().map_or(0, Vec::len);
    format!(
        "{}: {} (offset {}, {bytes} bytes)",
        header(DEAD_ERROR_CLASS),
        header(DEAD_ERROR_MESSAGE),
        header(DEAD_SOURCE_OFFSET)
    )
}

/// The scalar fields of the body, by name. Contact data is not shown.
fn details(record: &Record) -> String {
    let Some(body) = &record.body else {
        return String::new();
    };
    let shown = body.fields().filter_map(|(field, value)| {
        let value = value_text(body, &field, value)?;
        Some(format!("{}={value}", field.name()))
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn value_text(body: &DynamicMessage, field: &FieldDescriptor, value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => shortened(text),
        Value::Bool(flag) => flag.to_string(),
        Value::I64(number) if field.name().ends_with("_ms") => time(*number).replace(' ', "T"),
        // An amount has its currency in the same message.
        Value::I64(number) => match currency(body) {
            Some(code) => format!("{}{code}", amount(*number, &code)),
            None => number.to_string(),
        },
        Value::I32(number) => number.to_string(),
        Value::U32(number) => number.to_string(),
        Value::U64(number) => number.to_string(),
        Value::EnumNumber(number) => enum_text(field, *number),
        Value::List(items) => items.len().to_string(),
        Value::Message(money) => {
            let minor_units = money.get_field_by_name("minor_units")?.as_i64()?;
            let code = currency(money)?;
            format!("{}{code}", amount(minor_units, &code))
        }
        _ => return None,
    })
}

fn currency(message: &DynamicMessage) -> Option<String> {
    message
        .get_field_by_name("currency")?
        .as_str()
        .map(ToOwned::to_owned)
}

fn shortened(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(TEXT_WIDTH)
        .collect();
    if text.chars().count() > TEXT_WIDTH {
        shown.push('…');
    }
    if shown.contains(' ') {
        format!("\"{shown}\"")
    } else {
        shown
    }
}

/// `END_REASON_OUT_OF_STOCK` of the enum `EndReason` is `out_of_stock`.
fn enum_text(field: &FieldDescriptor, number: i32) -> String {
    let Kind::Enum(descriptor) = field.kind() else {
        return number.to_string();
    };
    let Some(value) = descriptor.get_value(number) else {
        return number.to_string();
    };
    let normalised = |name: &str| name.to_lowercase().replace('_', "");
    let prefix = normalised(descriptor.name());
    // The prefix is the name of the enum with other underscores.
    let mut parts = value.name().split('_');
    let mut consumed = String::new();
    while consumed.len() < prefix.len() {
        match parts.next() {
            Some(part) => consumed.push_str(&normalised(part)),
            None => return value.name().to_lowercase(),
        }
    }
    parts.collect::<Vec<_>>().join("_").to_lowercase()
}

#[cfg(test)]
mod tests {
    use contracts::Record as _;
    use contracts::core::v1::Metadata;
    use contracts::orders::v1::{
        Contact, EndReason, OrderCreated, OrderEvent, OrderLine, OrderRejected, order_event,
    };
    use contracts::{Service, Topic};
    use prost_reflect::prost::Message as _;

    use super::*;
    use platform_client::content::decode;

    fn line(event: order_event::Event) -> (String, serde_json::Value) {
        let metadata = Metadata {
            aggregate_id: "o-1".into(),
            aggregate_version: 2,
            ..Default::default()
        };
        let record = OrderEvent::new_record(metadata, event).encode_to_vec();
        let content = decode(Service::Orders, Topic::Events, &record);
        let input = Input {
            partition: 3,
            offset: 17,
            time_ms: 1_700_000_000_123,
            ..Default::default()
        };
        let json = json("orders.events", &input, &content).unwrap();
        (
            text("orders.events", &input, &content),
            serde_json::from_str(&json).unwrap(),
        )
    }

    #[test]
    fn a_line_has_the_main_fields_but_no_contact() {
        let (text, json) = line(order_event::Event::OrderCreated(OrderCreated {
            customer_id: "ada".into(),
            contact: Some(Contact {
                email: "ada@example.com".into(),
                ..Default::default()
            }),
            lines: vec![OrderLine::default(); 3],
            currency: "USD".into(),
            total: 1_234,
            ..Default::default()
        }));
        for part in [
            "2023-11-14 22:13:20.123",
            "orders.events/3@17",
            "order_created",
            "o-1 v2",
            "lines=3",
            "total=12.34USD",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("example.com"), "{text}");
        assert_eq!(json["record"]["orderCreated"]["total"], "1234");
        assert_eq!(
            (json["offset"].as_i64(), json["kind"].as_str()),
            (Some(17), Some("order_created"))
        );
    }

    #[test]
    fn an_enum_value_is_shown_without_its_prefix() {
        let rejected = OrderRejected {
            reason: EndReason::OutOfStock.into(),
        };
        let (text, _) = line(order_event::Event::OrderRejected(rejected));
        assert!(text.ends_with("reason=out_of_stock"), "{text}");
    }

    #[test]
    fn a_dead_letter_has_its_error() {
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let input = Input {
            payload: Some(vec![1, 2]),
            headers: vec![
                header(DEAD_ERROR_CLASS, "unframed"),
                header(DEAD_ERROR_MESSAGE, "the record is empty"),
                header(DEAD_SOURCE_OFFSET, "9"),
            ],
            ..Default::default()
        };
        let line = text("orders.dlq", &input, &Content::DeadLetter);
        assert!(
            line.ends_with("unframed: the record is empty (offset 9, 2 bytes)"),
            "{line}"
        );
        let json = json("orders.dlq", &input, &Content::DeadLetter).unwrap();
        assert!(json.contains(r#""payload_hex":"0102""#), "{json}");
    }
}
