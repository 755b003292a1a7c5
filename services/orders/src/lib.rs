//! Orders: the rule book of an order, the process manager of its life, and the API that clients place orders with.

mod api;
mod order;

pub use api::{Api, reasons};
pub use order::OrderRules;
