//! Shipping: the processor, which calls the carrier.

use chassis::grpc::Peer;
use engine::worker::Settings;
use shipping::{Carrier, Deadlines, ShipmentRules};

use crate::serve::pending_calls::PendingCalls;
use crate::serve::shared_connections::{PARTNER_DEADLINE, SharedConnections, TRACKING_WAIT};

/// Starts the processor.
pub(in crate::serve) fn start(
    connections: &SharedConnections,
    partners: Peer,
    pending_calls: &PendingCalls,
) -> anyhow::Result<()> {
    let deadlines = Deadlines {
        call: PARTNER_DEADLINE,
        tracking_wait: TRACKING_WAIT,
    };
    let carrier = Carrier::new(partners, deadlines);
    connections.run_worker(ShipmentRules, carrier, Settings::default(), pending_calls)
}
