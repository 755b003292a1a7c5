//! The variables that several services share. Those of telemetry are in `observability::names`.

/// Kafka bootstrap servers.
pub const KAFKA: &str = "ORDERMESH_KAFKA";
/// Prefix of every topic, group and transactional id.
pub const PREFIX: &str = "ORDERMESH_PREFIX";
/// Partitions of every topic; cannot be changed later.
pub const PARTITIONS: &str = "ORDERMESH_PARTITIONS";
/// URL of the schema registry.
pub const REGISTRY: &str = "ORDERMESH_REGISTRY";
/// URL of the database of the read models.
pub const DATABASE: &str = "ORDERMESH_DATABASE";
/// Name of this instance.
pub const INSTANCE: &str = "ORDERMESH_INSTANCE";

/// Where health and metrics are served.
pub const ADMIN: &str = "ORDERMESH_ADMIN";
/// Where the gateway listens.
pub const PUBLIC: &str = "ORDERMESH_PUBLIC";
/// Where orders listens.
pub const ORDERS_LISTEN: &str = "ORDERMESH_ORDERS_LISTEN";
/// Where inventory listens.
pub const INVENTORY_LISTEN: &str = "ORDERMESH_INVENTORY_LISTEN";
/// Where query listens.
pub const QUERY_LISTEN: &str = "ORDERMESH_QUERY_LISTEN";
/// Where the sandbox listens.
pub const SANDBOX_LISTEN: &str = "ORDERMESH_SANDBOX_LISTEN";

/// Where orders is reached.
pub const ORDERS: &str = "ORDERMESH_ORDERS";
/// Where inventory is reached.
pub const INVENTORY: &str = "ORDERMESH_INVENTORY";
/// Where query is reached.
pub const QUERY: &str = "ORDERMESH_QUERY";
/// Where the sandbox is reached.
pub const SANDBOX: &str = "ORDERMESH_SANDBOX";
