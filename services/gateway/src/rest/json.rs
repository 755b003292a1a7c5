//! Messages in the canonical JSON of proto3, in both directions.

use axum::body::Body;
use axum::response::IntoResponse;
use chassis::error;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt as _;
use prost_reflect::{DynamicMessage, ReflectMessage, SerializeOptions};
use tonic::Status;

/// Fields with default values are written as well, so that every response has all fields.
const WRITE: SerializeOptions = SerializeOptions::new().skip_default_fields(false);

/// Reads a JSON body. Unknown fields are errors.
///
/// # Errors
///
/// The body is too large or incomplete, is not JSON, or does not match the message.
pub(super) async fn read<M: ReflectMessage + Default>(body: Body) -> Result<M, Status> {
    // The server reports an exceeded size limit as an error of the body that contains the gRPC status.
    let bytes = body
        .collect()
        .await
        .map_err(|error| Status::from_error(error.into()))?
        .to_bytes();
    parse(&bytes)
}

/// A JSON response.
///
/// # Errors
///
/// The message cannot be encoded, which is an internal error.
pub(super) fn write<M: ReflectMessage>(message: &M) -> Result<impl IntoResponse + use<M>, Status> {
    Ok(([(CONTENT_TYPE, "application/json")], print(message)?))
}

/// A message as JSON, without line breaks.
///
/// # Errors
///
/// The message cannot be encoded, which is an internal error.
pub(super) fn print<M: ReflectMessage>(message: &M) -> Result<String, Status> {
    let mut bytes = Vec::new();
    message
        .transcode_to_dynamic()
        .serialize_with_options(&mut serde_json::Serializer::new(&mut bytes), &WRITE)
        .map_err(|error| error::internal(&error))?;
    String::from_utf8(bytes).map_err(|error| error::internal(&error))
}

fn parse<M: ReflectMessage + Default>(bytes: &[u8]) -> Result<M, Status> {
    let invalid = |error: serde_json::Error| error::invalid_field("body", error.to_string());
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let message =
        DynamicMessage::deserialize(M::default().descriptor(), &mut json).map_err(invalid)?;
    json.end().map_err(invalid)?;
    message
        .transcode_to()
        .map_err(|error| error::internal(&error))
}

#[cfg(test)]
mod tests {
    use contracts::orders::v1::{OrderStatus, PlaceOrderRequest, PlaceOrderResponse};
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn both_names_of_a_field_are_read() {
        for body in [r#"{"customerId": "c"}"#, r#"{"customer_id": "c"}"#] {
            let request: PlaceOrderRequest = parse(body.as_bytes()).expect("it is valid");
            assert_eq!(request.customer_id, "c");
        }
    }

    #[test]
    fn messages_are_written_in_canonical_json_with_all_fields() {
        let response = PlaceOrderResponse {
            order_id: "o".into(),
            status: OrderStatus::Pending.into(),
            version: u64::MAX,
        };
        let text = print(&response).expect("it is valid");
        assert_eq!(
            text,
            r#"{"orderId":"o","status":"ORDER_STATUS_PENDING","version":"18446744073709551615"}"#
        );
        let text = print(&PlaceOrderResponse::default()).expect("it is valid");
        assert_eq!(
            text,
            r#"{"orderId":"","status":"ORDER_STATUS_UNSPECIFIED","version":"0"}"#
        );
    }

    #[test]
    fn an_invalid_body_is_refused_with_the_reason() {
        for (body, reason) in [
            (&b"{\"surprise\": 1}"[..], "surprise"),
            (b"{\"customerId\": 1}", "string"),
            (b"{\"customerId\": \"c\"} x", "trailing"),
            (b"{\"customerId\": \"\xff\"}", "unicode"),
            (b"[]", "expected a map"),
            (b"", "EOF"),
        ] {
            let status = parse::<PlaceOrderRequest>(body).expect_err(reason);
            assert_eq!(status.code(), Code::InvalidArgument);
            let details = status
                .get_details_bad_request()
                .expect("it has field violations");
            let description = &details.field_violations[0].description;
            assert!(
                description.contains(reason),
                "{description} does not say {reason}"
            );
        }
    }
}
