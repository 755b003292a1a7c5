//! The methods that are served here or elsewhere in ordermesh.

use std::collections::HashMap;
use std::sync::LazyLock;

use contracts::DESCRIPTOR_POOL;

/// Service: health, by its standard contract.
pub(super) const HEALTH_SERVICE: &str = "grpc.health.v1.Health";
/// Service: reflection, by its standard contract.
pub(super) const REFLECTION_SERVICE: &str = "grpc.reflection.v1.ServerReflection";

/// A method of the contracts.
#[derive(Clone, Debug)]
pub(super) struct Method {
    /// Its path in a request.
    pub(super) path: String,
    /// The full name of its service.
    pub(super) service: String,
    /// Its own name.
    pub(super) name: String,
    /// Whether it belongs to the health service.
    pub(super) is_health: bool,
    /// Whether its answer is a stream.
    pub(super) streams: bool,
}

impl Method {
    /// What it is called in traces.
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
        let ours = DESCRIPTOR_POOL.services().flat_map(|service| {
            let methods: Vec<_> = service
                .methods()
                .map(|rpc| method(service.full_name(), rpc.name(), rpc.is_server_streaming()))
                .collect();
            methods
        });
        standard
            .into_iter()
            .chain(ours)
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
    fn methods_are_known_by_their_path() {
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
