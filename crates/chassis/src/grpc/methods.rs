//! The gRPC methods of all services of ordermesh.

use std::collections::HashMap;
use std::sync::LazyLock;

use contracts::DESCRIPTOR_POOL;

/// The standard health service.
pub(super) const HEALTH_SERVICE: &str = "grpc.health.v1.Health";
/// The standard reflection service.
pub(super) const REFLECTION_SERVICE: &str = "grpc.reflection.v1.ServerReflection";

/// A method of the contracts.
#[derive(Clone, Debug)]
pub(super) struct Method {
    /// Request path, `/SERVICE/METHOD`.
    pub(super) path: String,
    /// Full name of the service.
    pub(super) service: String,
    /// Name without the service.
    pub(super) name: String,
    /// Whether it belongs to the health service.
    pub(super) is_health: bool,
    /// Whether the answer is a stream.
    pub(super) streams: bool,
}

impl Method {
    /// The name of its spans.
    pub(super) fn span_name(&self) -> &str {
        self.path.trim_start_matches('/')
    }
}

/// The method at a path.
pub(super) fn find(path: &str) -> Option<&'static Method> {
    static METHODS: LazyLock<HashMap<String, Method>> = LazyLock::new(|| {
        let standard = [
            (HEALTH_SERVICE, "Check", false),
            (HEALTH_SERVICE, "Watch", true),
            (REFLECTION_SERVICE, "ServerReflectionInfo", true),
        ];
        let standard = standard.map(|(service, name, streams)| method(service, name, streams));
        let contracts = DESCRIPTOR_POOL.services().flat_map(|service| {
            let methods: Vec<_> = service
                .methods()
                .map(|rpc| method(service.full_name(), rpc.name(), rpc.is_server_streaming()))
                .collect();
            methods
        });
        standard
            .into_iter()
            .chain(contracts)
            .map(|method| (method.path.clone(), method))
            .collect()
    });
    METHODS.get(path)
}

fn method(service: &str, name: &str, streams: bool) -> Method {
    Method {
        path: format!("/{service}/{name}"),
        service: service.to_owned(),
        name: name.to_owned(),
        is_health: service == HEALTH_SERVICE,
        streams,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_by_path() {
        let streams = |path| find(path).map(|method| method.streams);
        assert_eq!(
            streams("/ordermesh.query.v1.QueryService/WatchOrder"),
            Some(true)
        );
        assert_eq!(
            streams("/ordermesh.query.v1.QueryService/GetOrder"),
            Some(false)
        );
        assert_eq!(streams("/grpc.health.v1.Health/Watch"), Some(true));
        assert_eq!(streams("/ordermesh.query.v1.QueryService/Nothing"), None);
    }
}
