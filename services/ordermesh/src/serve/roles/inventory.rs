//! Inventory: the API that adjusts stock, and the processor.

use chassis::grpc::Server;
use contracts::inventory::v1::inventory_service_server::InventoryServiceServer;
use engine::CommandClient;
use engine::effects::NoEffects;
use engine::worker::Settings;
use inventory::StockRules;

use crate::serve::pending_calls::PendingCalls;
use crate::serve::shared_connections::SharedConnections;

/// Serves the API on an already bound port.
pub(in crate::serve) fn serve_api(
    connections: &SharedConnections,
    server: Server,
    client: CommandClient<contracts::Inventory>,
) -> anyhow::Result<()> {
    let api = inventory::Api::new(client);
    server
        .add_service(InventoryServiceServer::new(api))
        .serve(&connections.process)?;
    Ok(())
}

/// Starts the processor.
pub(in crate::serve) fn start(
    connections: &SharedConnections,
    pending_calls: &PendingCalls,
) -> anyhow::Result<()> {
    connections.run_worker(
        StockRules::default(),
        NoEffects,
        Settings::default(),
        pending_calls,
    )
}
