//! Names of telemetry: environment variables, headers, attributes.

/// Environment: the log filter, in the syntax of `tracing_subscriber::EnvFilter`.
pub const LOG: &str = "ORDERMESH_LOG";
/// Environment: the log format: `auto`, `pretty` or `json`.
pub const LOG_FORMAT: &str = "ORDERMESH_LOG_FORMAT";
/// Environment: share of new traces that are recorded, 0 to 1.
pub const TRACE_RATIO: &str = "ORDERMESH_TRACE_RATIO";
/// Environment: endpoint for spans (OTLP over gRPC); when unset, no spans are created.
pub const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Header of gRPC metadata, HTTP and Kafka records that carries the W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

/// Target of the spans of traces, which all spans of ordermesh have. They do not depend on the log filter: with an
/// exporter they are enabled, without one they are disabled and cost nothing.
pub const TRACE_TARGET: &str = "ordermesh::trace";

/// Span field: name shown in the trace, when it differs from the name of the span.
pub const SPAN_NAME: &str = "otel.name";
/// Span field: `server`, `client`, `producer`, `consumer`.
pub const SPAN_KIND: &str = "otel.kind";
/// Span field: `ok` or `error`.
pub const SPAN_STATUS: &str = "otel.status_code";
/// Span field: id of the order; log lines within the span have it too.
pub const ORDER_ID: &str = "order_id";
/// Resource attribute: version of the program.
pub const SERVICE_VERSION: &str = "service.version";
/// Resource attribute: name of a process among its replicas.
pub const SERVICE_INSTANCE: &str = "service.instance.id";
/// Attribute: the server within the process that serves a call.
pub const SERVER: &str = "ordermesh.server";
/// Attribute: host of the server that a client calls.
pub const SERVER_ADDRESS: &str = "server.address";
/// Attribute: port of the server that a client calls.
pub const SERVER_PORT: &str = "server.port";
/// Attribute: method of an HTTP request.
pub const HTTP_METHOD: &str = "http.request.method";
/// Attribute: matched route of an HTTP request.
pub const HTTP_ROUTE: &str = "http.route";
/// Attribute: status of an HTTP response.
pub const HTTP_STATUS: &str = "http.response.status_code";
/// Attribute: name of the RPC system.
pub const RPC_SYSTEM: &str = "rpc.system";
/// Attribute: full name of the service of an RPC.
pub const RPC_SERVICE: &str = "rpc.service";
/// Attribute: name of the method of an RPC.
pub const RPC_METHOD: &str = "rpc.method";
/// Attribute: gRPC code of an RPC.
pub const RPC_CODE: &str = "rpc.grpc.status_code";
/// Attribute: name of the messaging system.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// Attribute: topic.
pub const MESSAGING_DESTINATION: &str = "messaging.destination.name";
/// Attribute: partition.
pub const MESSAGING_PARTITION: &str = "messaging.destination.partition.id";
/// Attribute: operation on the messages: `send`, `process`.
pub const MESSAGING_OPERATION: &str = "messaging.operation.type";
/// Attribute: consumer group.
pub const MESSAGING_GROUP: &str = "messaging.consumer.group.name";
/// Attribute: key of the record.
pub const MESSAGING_KEY: &str = "messaging.kafka.message.key";
/// Attribute: offset.
pub const MESSAGING_OFFSET: &str = "messaging.kafka.offset";
/// Attribute: class of an error.
pub const ERROR_TYPE: &str = "error.type";
/// Attribute: the outcome of a command.
pub const OUTCOME: &str = "ordermesh.outcome";
/// Attribute: the idempotency key of an effect.
pub const EFFECT_KEY: &str = "ordermesh.effect.key";
/// Attribute: number of the try of an effect, from 1.
pub const ATTEMPT: &str = "ordermesh.attempt";
/// Attribute: records in a batch.
pub const MESSAGING_BATCH: &str = "messaging.batch.message_count";
/// Attribute: the database system.
pub const DB_SYSTEM: &str = "db.system.name";
/// Attribute: the database schema.
pub const DB_NAMESPACE: &str = "db.namespace";
