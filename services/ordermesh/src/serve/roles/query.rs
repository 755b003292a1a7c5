//! The read side: the projector, and the API over its tables.

use chassis::grpc::Server;
use contracts::query::v1::query_service_server::SERVICE_NAME;
use query::Query;

use crate::serve::Args;
use crate::serve::shared_connections::SharedConnections;

/// Starts the projector and serves the API.
pub(in crate::serve) fn start(
    connections: &SharedConnections,
    args: &Args,
    server: Server,
) -> anyhow::Result<()> {
    let config = query::Config {
        database: args.stack.database.url.clone(),
        kafka: connections.cluster.bootstrap.clone(),
        prefix: connections.cluster.prefix.clone(),
        partitions: connections.cluster.partitions,
    };
    let query = Query::new(
        config,
        connections.codec.schemas().clone(),
        connections.process.readiness(),
        connections.process.registry(),
    )?;
    let routes = query.routes().into_axum_router().reset_fallback();
    server
        .add_routes(SERVICE_NAME, routes)
        .serve(&connections.process)?;
    let observed = query.observed();
    let states = connections.process.states();
    states.add("projector", move || observed.state());
    let overview = query.run_table_metrics(connections.process.shutdown());
    connections.process.spawn("overview", overview);
    let stalls = query.watch_stalls();
    connections
        .process
        .spawn_detached("projector stalls", stalls);
    connections
        .process
        .spawn_thread("projector", move |shutdown| query.project(&shutdown))?;
    Ok(())
}
