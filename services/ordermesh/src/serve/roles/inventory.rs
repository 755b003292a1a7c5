//! Inventory: the API that adjusts stock, and the processor.

use chassis::grpc::Server;
use contracts::inventory::v1::inventory_service_server::InventoryServiceServer;
use engine::CommandClient;
use engine::effects::NoEffects;
use engine::worker::Settings;
use inventory::StockRules;

use crate::serve::pending_calls::PendingCalls;
use crate::serve::runtime::Runtime;

/// Serves the API on an already bound port.
pub(in crate::serve) fn serve_api(
    runtime: &Runtime,
    server: Server,
    client: CommandClient<contracts::Inventory>,
) -> anyhow::Result<()> {
    let api = inventory::Api::new(client);
    server
        .add_service(InventoryServiceServer::new(api))
        .serve(&runtime.process)?;
    Ok(())
}

/// Starts the processor.
pub(in crate::serve) fn start(runtime: &Runtime, calls: &PendingCalls) -> anyhow::Result<()> {
    runtime.run_worker(StockRules::default(), NoEffects, Settings::default(), calls)
}
