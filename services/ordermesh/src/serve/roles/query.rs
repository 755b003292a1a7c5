//! The read side: the projector, and the API over its tables.

use chassis::grpc::Server;
use query::Query;

use crate::serve::Args;
use crate::serve::runtime::Runtime;

const QUERY_SERVICE: &str = "ordermesh.query.v1.QueryService";

/// Starts the projector and serves the API.
pub(in crate::serve) fn start(
    runtime: &Runtime,
    args: &Args,
    server: Server,
) -> anyhow::Result<()> {
    let config = query::Config {
        database: args.stack.database.url.clone(),
        kafka: runtime.cluster.bootstrap.clone(),
        prefix: runtime.cluster.prefix.clone(),
        partitions: runtime.cluster.partitions,
    };
    let query = Query::new(
        config,
        runtime.codec.schemas().clone(),
        runtime.process.readiness(),
        runtime.process.registry(),
    )?;
    let routes = query.routes().into_axum_router().reset_fallback();
    server
        .add_routes(QUERY_SERVICE, routes)
        .serve(&runtime.process)?;
    let overview = query.run_table_metrics(runtime.process.shutdown());
    runtime.process.spawn("overview", overview);
    let stalls = query.watch_stalls();
    runtime.process.spawn_detached("projector stalls", stalls);
    runtime
        .process
        .spawn_thread("projector", move |shutdown| query.project(&shutdown))?;
    Ok(())
}
