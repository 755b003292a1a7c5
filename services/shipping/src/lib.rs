//! Shipping: the rule book of a shipment, and the client of the carrier that executes its effects.

mod carrier;
mod shipment;

pub use carrier::{CARRIER, CARRIER_TRACKING, Carrier, Deadlines};
pub use shipment::{Effect, ShipmentRules};
