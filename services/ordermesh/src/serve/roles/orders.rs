//! Orders: the API that places and cancels them, and the processor.

use chassis::grpc::{Peer, Server};
use contracts::orders::v1::order_service_server::OrderServiceServer;
use engine::CommandClient;
use engine::effects::NoEffects;

use crate::serve::Args;
use crate::serve::pending_calls::PendingCalls;
use crate::serve::shared_connections::SharedConnections;

/// Serves the API on an already bound port.
pub(in crate::serve) fn serve_api(
    connections: &SharedConnections,
    server: Server,
    client: CommandClient<contracts::Orders>,
    query: &Peer,
) -> anyhow::Result<()> {
    let api = orders::Api::new(client, query);
    server
        .add_service(OrderServiceServer::new(api))
        .serve(&connections.process)?;
    Ok(())
}

/// Starts the processor.
pub(in crate::serve) fn start(
    connections: &SharedConnections,
    args: &Args,
    pending_calls: &PendingCalls,
) -> anyhow::Result<()> {
    let settings = args.orders.settings();
    connections.run_worker(args.orders.rules(), NoEffects, settings, pending_calls)
}
