//! Orders: the rule book of an order, the process manager of its life, and the API that clients place orders with.

mod api;
mod config;
mod order;

pub use api::{Api, reasons};
pub use config::{Config, env};
pub use order::OrderRules;
