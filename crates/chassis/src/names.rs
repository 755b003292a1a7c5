//! Names of labels, headers and reasons of the chassis. Metric names are in [`crate::metrics`].

/// Header of a gRPC call: its timeout.
pub const GRPC_TIMEOUT: &str = "grpc-timeout";
/// Header or trailer of a gRPC answer: the code.
pub const GRPC_STATUS: &str = "grpc-status";

/// Domain of the `google.rpc.ErrorInfo` of every refusal.
pub const ERROR_DOMAIN: &str = "ordermesh";
/// Reason of a refusal: the request is larger than the server reads.
pub const REASON_TOO_LARGE: &str = "REQUEST_TOO_LARGE";
/// Reason of a refusal: the server has reached its limit of concurrent calls.
pub const REASON_OVERLOADED: &str = "OVERLOADED";

/// Label: the server of a process.
pub const LABEL_SERVER: &str = "server";
/// Label: the method, or the route of a REST call.
pub const LABEL_METHOD: &str = "method";
/// Label: the gRPC code.
pub const LABEL_CODE: &str = "code";
/// Label: the service that is called.
pub const LABEL_PEER: &str = "peer";
