//! Orders: the API that places and cancels them, and the processor.

use chassis::grpc::{Peer, Server};
use contracts::orders::v1::order_service_server::OrderServiceServer;
use engine::CommandClient;
use engine::effects::NoEffects;

use crate::serve::Args;
use crate::serve::pending_calls::PendingCalls;
use crate::serve::runtime::Runtime;

/// Serves the API on an already bound port.
pub(in crate::serve) fn serve_api(
    runtime: &Runtime,
    server: Server,
    client: CommandClient<contracts::Orders>,
    query: &Peer,
) -> anyhow::Result<()> {
    let api = orders::Api::new(client, query);
    server
        .add_service(OrderServiceServer::new(api))
        .serve(&runtime.process)?;
    Ok(())
}

/// Starts the processor.
pub(in crate::serve) fn start(
    runtime: &Runtime,
    args: &Args,
    calls: &PendingCalls,
) -> anyhow::Result<()> {
    let settings = args.order_times.settings();
    runtime.run_worker(args.order_times.rules(), NoEffects, settings, calls)
}
