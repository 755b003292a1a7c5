//! The OpenAPI document: paths from the table of operations, everything else from the contracts.

mod limits;
mod schema;

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::response::IntoResponse;
use chassis::names::GRPC_TIMEOUT;
use contracts::DESCRIPTOR_POOL;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use prost_reflect::{FieldDescriptor, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};

use super::operation::{self, Content, Operation, Success};
use super::problem;
use super::watch::LAST_EVENT_ID;
use schema::Schemas;

/// [`IDEMPOTENCY_KEY`](super::IDEMPOTENCY_KEY) as it is usually written.
const KEY_HEADER: &str = "Idempotency-Key";
/// Error statuses of every operation that calls a service.
const COMMON_ERRORS: &[u16] = &[400, 429, 500, 503, 504];

/// Serves the document.
pub(super) async fn document() -> impl IntoResponse {
    static DOCUMENT: LazyLock<Bytes> =
        LazyLock::new(|| describe(&operation::all()).to_string().into());
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}

/// The document of these operations.
fn describe(operations: &[Operation]) -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for operation in operations {
        let described = match find_rpc(operation.rpc) {
            Some(rpc) => describe_call(operation, &rpc, &mut schemas),
            None => describe_document(operation),
        };
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_ascii_lowercase()] = described;
    }
    schemas.add("Problem", problem::schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ordermesh",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The gRPC methods of ordermesh in the canonical JSON of their messages: 64-bit integers are \
                            strings, enumerations are names, bytes are base64.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.into_components(),
            "responses": problem_responses(operations),
            "parameters": {"Timeout": timeout_parameter()},
        },
    })
}

/// The gRPC method with a full name.
fn find_rpc(name: &str) -> Option<MethodDescriptor> {
    let (service, method) = name.rsplit_once('.')?;
    let service = DESCRIPTOR_POOL.get_service_by_name(service)?;
    service
        .methods()
        .find(|candidate| candidate.name() == method)
}

fn describe_call(operation: &Operation, rpc: &MethodDescriptor, schemas: &mut Schemas) -> Value {
    let mut described = json!({
        "operationId": rpc.name(),
        "tags": [rpc.parent_service().name()],
        "parameters": parameters(operation, &rpc.input(), schemas),
        "responses": responses(operation, &rpc.output(), schemas),
    });
    if let Some(description) = schema::comment(&rpc.parent_file(), rpc.path()) {
        described["description"] = description.into();
    }
    if operation.method == http::Method::POST {
        let in_path: Vec<_> = operation
            .path_fields
            .iter()
            .map(|(_, field)| *field)
            .collect();
        let schema = schemas.object(&rpc.input(), &in_path);
        described["requestBody"] = json!({
            "required": true,
            "content": {"application/json": {"schema": schema}},
        });
    }
    described
}

fn describe_document(operation: &Operation) -> Value {
    let responses = operation.successes.iter().map(|success| {
        let content = json!({"application/json": {"schema": {"type": "object"}}});
        let described = json!({"description": success.description, "content": content});
        (success.status.to_string(), described)
    });
    json!({
        "operationId": "GetDocument",
        "responses": Map::from_iter(responses),
    })
}

fn parameters(
    operation: &Operation,
    request: &MessageDescriptor,
    schemas: &mut Schemas,
) -> Vec<Value> {
    let mut parameters = Vec::new();
    for (name, field) in operation.path_fields {
        let mut parameter = parameter(name, "path", &field_of(request, field), schemas);
        parameter["required"] = true.into();
        parameters.push(parameter);
    }
    for (name, field) in operation.query_fields {
        let field = field_of(request, field);
        let mut parameter = parameter(name, "query", &field, schemas);
        if field.is_list() {
            // As a list separated by commas; repeated parameters are accepted as well.
            parameter["explode"] = false.into();
        }
        parameters.push(parameter);
    }
    if let Some(field) = operation.key_field {
        let field = field_of(request, field);
        let mut parameter = parameter(KEY_HEADER, "header", &field, schemas);
        parameter["description"] =
            format!("Makes the call safe to repeat. Sets {}.", field.json_name()).into();
        parameters.push(parameter);
    }
    if has_event_stream(operation) {
        parameters.push(json!({
            "name": LAST_EVENT_ID.as_str(),
            "in": "header",
            "description": "Id of the last received event; takes precedence over after_version.",
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
        }));
    }
    parameters.push(json!({"$ref": "#/components/parameters/Timeout"}));
    parameters
}

fn has_event_stream(operation: &Operation) -> bool {
    operation
        .successes
        .iter()
        .any(|success| success.content == Content::Events)
}

fn parameter(name: &str, location: &str, field: &FieldDescriptor, schemas: &mut Schemas) -> Value {
    let mut schema = schemas.field(field);
    // OpenAPI has the description of a parameter next to its schema, not in it.
    let description = schema
        .as_object_mut()
        .and_then(|schema| schema.remove("description"));
    let mut parameter = json!({"name": name, "in": location, "schema": schema});
    if let Some(description) = description {
        parameter["description"] = description;
    }
    parameter
}

fn timeout_parameter() -> Value {
    json!({
        "name": GRPC_TIMEOUT,
        "in": "header",
        "description": "The caller's deadline: digits and one of H, M, S, m (milliseconds), u, n. The default is 10 \
                        seconds. An event stream has no default deadline.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,8}[HMSmun]$"},
        "example": "2500m",
    })
}

fn responses(
    operation: &Operation,
    response: &MessageDescriptor,
    schemas: &mut Schemas,
) -> Map<String, Value> {
    let responses = operation.successes.iter().map(|success| {
        (
            success.status.to_string(),
            success_response(success, response, schemas),
        )
    });
    let mut responses = Map::from_iter(responses);
    responses.extend(error_statuses(operation).map(|status| {
        let reference = format!("#/components/responses/{}", problem_name(status));
        (status.to_string(), json!({"$ref": reference}))
    }));
    responses
}

fn success_response(
    success: &Success,
    response: &MessageDescriptor,
    schemas: &mut Schemas,
) -> Value {
    let mut described = json!({"description": success.description});
    match success.content {
        Content::Json | Content::JsonWithLocation => {
            let schema = schemas.message(response);
            described["content"] = json!({"application/json": {"schema": schema}});
        }
        Content::Events => {
            // OpenAPI 3.1 has no keyword for the schema of the events.
            let schema = json!({"type": "string"});
            let data = schemas.message(response);
            described["content"] =
                json!({"text/event-stream": {"schema": schema, "x-event-data": data}});
        }
        Content::Document | Content::Nothing => {}
    }
    if success.content == Content::JsonWithLocation {
        described["headers"] = json!({
            "Location": {
                "description": "The path of the order.",
                "schema": {"type": "string", "format": "uri-reference"},
            },
        });
    }
    described
}

/// Every error status of an operation.
fn error_statuses(operation: &Operation) -> impl Iterator<Item = u16> + '_ {
    let common = if operation.rpc.is_empty() {
        &[]
    } else {
        COMMON_ERRORS
    };
    common.iter().chain(operation.error_statuses).copied()
}

/// One response for each error status of these operations.
fn problem_responses(operations: &[Operation]) -> Map<String, Value> {
    let mut responses = Map::new();
    for status in operations.iter().flat_map(error_statuses) {
        let mut described = json!({
            "description": status_name(status),
            "content": {problem::MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        });
        if matches!(status, 429 | 503) {
            described["headers"] = json!({
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
            });
        }
        responses.insert(problem_name(status), described);
    }
    responses
}

fn status_name(status: u16) -> &'static str {
    StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error")
}

/// The name of a response: an identifier without spaces.
fn problem_name(status: u16) -> String {
    status_name(status).replace(' ', "")
}

fn field_of(message: &MessageDescriptor, name: &str) -> FieldDescriptor {
    message
        .get_field_by_name(name)
        .expect("the table names fields of the contract, which a test checks")
}

#[cfg(test)]
mod tests;
