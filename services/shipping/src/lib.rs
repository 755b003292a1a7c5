//! Shipping: the rule book of a shipment, and the carrier that carries out its effects.

mod carrier;
mod shipment;

pub use carrier::{CARRIER, CARRIER_TRACKING, Carrier, Deadlines};
pub use shipment::{Effect, ShipmentRules};
